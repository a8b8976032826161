/** Numbers, strings and arrays as GGUF stores them, for files that no writer would write. */
export interface GgufBytes {
  u8(value: number): Uint8Array;
  u32(value: number): Uint8Array;
  u64(value: number | bigint): Uint8Array;
  i64(value: number | bigint): Uint8Array;
  f32(value: number): Uint8Array;
  /** Counts and lengths: u32 in version 1, else u64. */
  size(value: number | bigint): Uint8Array;
  string(text: string): Uint8Array;
  /** A key and a value of a type by its number. */
  key(name: string, type: number, ...value: Uint8Array[]): Uint8Array;
  /** A key and an array of a type by its number. */
  array(name: string, type: number, elements: readonly Uint8Array[], count?: number | bigint): Uint8Array;
  /** A tensor's entry; `sizes` the quickest first. */
  tensor(
    name: string,
    sizes: readonly (number | bigint)[],
    type: number,
    offset: number | bigint,
  ): Uint8Array;
  file(content: GgufContent): Uint8Array;
}

export interface GgufContent {
  readonly keys?: readonly Uint8Array[];
  readonly tensors?: readonly Uint8Array[];
  readonly data?: Uint8Array;
  readonly keyCount?: number | bigint;
  readonly tensorCount?: number | bigint;
  readonly alignment?: number;
}

export const TYPE = {
  u8: 0,
  i8: 1,
  u16: 2,
  i16: 3,
  u32: 4,
  i32: 5,
  f32: 6,
  bool: 7,
  string: 8,
  array: 9,
  u64: 10,
  i64: 11,
  f64: 12,
};

export function ggufBytes(version = 3, bigEndian = false): GgufBytes {
  const number = (bytes: number, write: (view: DataView) => void) => {
    const view = new DataView(new ArrayBuffer(bytes));
    write(view);
    return new Uint8Array(view.buffer);
  };
  const little = !bigEndian;
  const u64 = (value: number | bigint) => number(8, (v) => v.setBigUint64(0, BigInt(value), little));
  const u32 = (value: number) => number(4, (v) => v.setUint32(0, value, little));
  const size = (value: number | bigint) => (version === 1 ? u32(Number(value)) : u64(value));
  const string = (text: string) => {
    const bytes = new TextEncoder().encode(text);
    return join(size(bytes.byteLength), bytes);
  };
  return {
    u8: (value) => Uint8Array.of(value),
    u32,
    u64,
    i64: (value) => number(8, (v) => v.setBigInt64(0, BigInt(value), little)),
    f32: (value) => number(4, (v) => v.setFloat32(0, value, little)),
    size,
    string,
    key: (name, type, ...value) => join(string(name), u32(type), ...value),
    array: (name, type, elements, count = elements.length) =>
      join(string(name), u32(TYPE.array), u32(type), size(count), ...elements),
    tensor: (name, sizes, type, offset) =>
      join(string(name), u32(sizes.length), ...sizes.map(size), u32(type), u64(offset)),
    file({ keys = [], tensors = [], data, keyCount, tensorCount, alignment = 32 }) {
      const header = join(
        new TextEncoder().encode("GGUF"),
        u32(version),
        size(tensorCount ?? tensors.length),
        size(keyCount ?? keys.length),
        ...keys,
        ...tensors,
      );
      if (data === undefined) return header;
      return join(header, new Uint8Array((alignment - (header.byteLength % alignment)) % alignment), data);
    },
  };
}

export function join(...parts: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.byteLength, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.byteLength;
  }
  return bytes;
}
