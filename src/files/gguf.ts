import { type GgmlName, type GgmlType, ggmlTypes } from "../formats/ggml.ts";
import { InputError, sizeOf } from "../tensor/tensor.ts";
import type { ByteSource } from "./file.ts";

/**
 * GGUF, the file of llama.cpp (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md), versions 1, 2 and 3:
 *
 *   "GGUF"  u32 version  size tensors  size keys
 *   keys×     string key, u32 type, value
 *   tensors×  string name, u32 dimensions, size of each (the quickest first), u32 ggml type, u64 offset
 *   zeros up to a multiple of the alignment; from there the tensors' bytes, each at its offset
 *
 * A string is a size and UTF-8; an array is u32 element type, size count, the elements. A size is u64, in version 1
 * u32. A file is little-endian unless the version reads as a multiple of 65536, which then is a big-endian version.
 *
 * What a stranger's file says is checked against the file's length and the limits below before anything is allocated
 * for it; arrays are passed over and read when asked for. `@huggingface/gguf` (0.4.6) was tried and does not bear such
 * files: it accepts keys twice, strings and tensors beyond the end and unknown types, and takes 7 s and 200 MB over a
 * file of 50 bytes that announces a million strings.
 */
export interface Gguf {
  readonly version: 1 | 2 | 3;
  readonly bigEndian: boolean;
  readonly metadata: ReadonlyMap<string, GgufValue>;
  /** In the order of the file. */
  readonly tensors: ReadonlyMap<string, GgufTensor>;
  /** Elements of an array of strings; undefined when there is no such key. */
  strings(key: string): Promise<string[] | undefined>;
  /** Elements of an array of numbers or truth values (1 and 0); undefined when there is no such key. */
  numbers(key: string): Promise<Float64Array | undefined>;
  /** Stored bytes of a tensor, little-endian in every file. */
  read(tensor: GgufTensor): Promise<Uint8Array>;
}

/** 64-bit numbers that a double does not hold exactly stay bigint. */
export type GgufValue = string | number | bigint | boolean | GgufArray;

/** An array as the file holds it, not read yet. */
export interface GgufArray {
  readonly element: ValueType;
  readonly count: number;
  /** Of its first element. */
  readonly from: number;
}

export interface GgufTensor {
  readonly name: string;
  /** Sizes, the slowest first: a matrix is [rows, cols]. */
  readonly shape: readonly number[];
  readonly type: GgmlType;
  /** Position of its bytes in the file. */
  readonly from: number;
  readonly bytes: number;
}

/** Types of values by their number in the file. */
export const VALUE_TYPES = [
  "u8",
  "i8",
  "u16",
  "i16",
  "u32",
  "i32",
  "f32",
  "bool",
  "string",
  "array",
  "u64",
  "i64",
  "f64",
] as const;
export type ValueType = (typeof VALUE_TYPES)[number];

const BYTES: Record<Exclude<ValueType, "string" | "array">, number> = {
  u8: 1,
  i8: 1,
  bool: 1,
  u16: 2,
  i16: 2,
  u32: 4,
  i32: 4,
  f32: 4,
  u64: 8,
  i64: 8,
  f64: 8,
};

export const MAGIC = 0x46554747; // "GGUF", little-endian
export const DEFAULT_ALIGNMENT = 32;
/** Key of our record, JSON. */
export const RECORD_KEY = "lowbit.record";

// Far above all models in use, and what a hostile header can make us keep stays below 64 MB.
const MOST_KEYS = 2 ** 13;
const MOST_TENSORS = 2 ** 15;
const MOST_DIMENSIONS = 4; // ggml's own limit
const LONGEST_NAME = 2 ** 16 - 1; // the specification's limit for keys
const LARGEST_ALIGNMENT = 2 ** 16;
/** Bytes of all keys, names and single strings together; a chat template or a record is a few kilobytes. */
const MOST_TEXT = 2 ** 23;
/** Strings in all arrays together; the largest vocabularies have a quarter of a million tokens and half a million merges. */
const MOST_STRINGS = 2 ** 20;
/** Bytes of an array of strings that is read; the largest in use, of merges, have 10 MB. */
const LARGEST_ARRAY = 2 ** 25;
/** Numbers of an array that is read: a score or a type for each token. */
const MOST_NUMBERS = 2 ** 20;

/** Opens a file; reads its header only. Throws an InputError of one line for everything that a GGUF file cannot be. */
export async function openGguf(file: ByteSource): Promise<Gguf> {
  const cursor = new Cursor(file);
  const { version, tensorCount, keyCount } = await readStart(cursor);
  const metadata = await readMetadata(cursor, keyCount);
  const alignment = alignmentOf(cursor, metadata);
  const tensors = await readTensors(cursor, tensorCount, alignment);
  const { bigEndian } = cursor;
  const arrayAt = (key: string): GgufArray | undefined => {
    const value = metadata.get(key);
    if (value === undefined || typeof value === "object") return value;
    throw new InputError(`${file.name}: key ${key} must be an array, is ${typeof value}`);
  };
  return {
    version,
    bigEndian,
    metadata,
    tensors,
    async strings(key) {
      const array = arrayAt(key);
      if (array === undefined) return undefined;
      if (array.element !== "string")
        throw new InputError(`${file.name}: key ${key} must hold strings, holds ${array.element}`);
      return readStrings(cursor.copy(array.from), key, array.count);
    },
    async numbers(key) {
      const array = arrayAt(key);
      return array && readNumbers(file, bigEndian, key, array);
    },
    async read(tensor) {
      const bytes = await file.slice(tensor.from, tensor.from + tensor.bytes);
      return bigEndian ? swapped(file.name, tensor, bytes) : bytes;
    },
  };
}

/** Reads numbers one after another; a small piece of the file is in memory at a time. */
class Cursor {
  readonly file: ByteSource;
  at = 0;
  version = 3;
  bigEndian = false;
  #view: DataView = new DataView(new ArrayBuffer(0));
  #from = 0;

  constructor(file: ByteSource) {
    this.file = file;
  }

  /** Another cursor of the same file, elsewhere. */
  copy(at: number): Cursor {
    const copy = new Cursor(this.file);
    copy.version = this.version;
    copy.bigEndian = this.bigEndian;
    copy.at = at;
    return copy;
  }

  get left(): number {
    return this.file.byteLength - this.at;
  }

  /** Whether the next n bytes are in memory; if not, `load` them. */
  has(n: number): boolean {
    return this.at >= this.#from && this.at + n <= this.#from + this.#view.byteLength;
  }

  async load(n: number, what: string): Promise<void> {
    if (n > this.left)
      throw this.wrong(`truncated in ${what}: needs ${n} bytes at ${this.at}, has ${this.left}`);
    const bytes = await this.file.slice(this.at, this.at + Math.min(this.left, Math.max(n, PIECE)));
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#from = this.at;
  }

  async need(n: number, what: string): Promise<void> {
    if (!this.has(n)) await this.load(n, what);
  }

  /** Bytes of a size: u32 in version 1, else u64. */
  get sizeBytes(): number {
    return this.version === 1 ? 4 : 8;
  }

  /** A size that is in memory, checked against what can be there. */
  size(what: string, most: number): number {
    return this.atMost(this.version === 1 ? this.u32() : this.u64(), what, most);
  }

  atMost(value: number | bigint, what: string, most: number): number {
    if (value > most) throw this.wrong(`${what} is ${value}; there can be ${most} at most`);
    return Number(value);
  }

  u64(): bigint {
    const value = this.#view.getBigUint64(this.at - this.#from, !this.bigEndian);
    this.at += 8;
    return value;
  }

  u32(): number {
    const value = this.#view.getUint32(this.at - this.#from, !this.bigEndian);
    this.at += 4;
    return value;
  }

  number(type: Exclude<ValueType, "string" | "array">): number | bigint | boolean {
    const value = numberAt(this.#view, this.at - this.#from, type, !this.bigEndian);
    this.at += BYTES[type];
    return type === "bool" ? value !== 0 : value;
  }

  text(length: number, what: string): string {
    const { buffer, byteOffset } = this.#view;
    const bytes = new Uint8Array(buffer, byteOffset + this.at - this.#from, length);
    this.at += length;
    try {
      return utf8.decode(bytes);
    } catch {
      throw this.wrong(`${what} is not UTF-8`);
    }
  }

  wrong(what: string): InputError {
    return new InputError(`${this.file.name}: ${what}`);
  }
}

/** Bytes read at a time. */
const PIECE = 2 ** 18;

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

function numberAt(view: DataView, at: number, type: Exclude<ValueType, "string" | "array">, little: boolean) {
  switch (type) {
    case "u8":
    case "bool":
      return view.getUint8(at);
    case "i8":
      return view.getInt8(at);
    case "u16":
      return view.getUint16(at, little);
    case "i16":
      return view.getInt16(at, little);
    case "u32":
      return view.getUint32(at, little);
    case "i32":
      return view.getInt32(at, little);
    case "f32":
      return view.getFloat32(at, little);
    case "f64":
      return view.getFloat64(at, little);
    case "u64":
      return exact(view.getBigUint64(at, little));
    case "i64":
      return exact(view.getBigInt64(at, little));
  }
}

function exact(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}

async function readStart(cursor: Cursor) {
  const { file } = cursor;
  if (file.byteLength < 4) throw cursor.wrong(`not a GGUF file: it has ${file.byteLength} bytes`);
  await cursor.need(4, "its magic number");
  if (cursor.u32() !== MAGIC) throw cursor.wrong('not a GGUF file: it does not begin with "GGUF"');
  await cursor.need(4, "its version");
  const stored = cursor.u32();
  cursor.bigEndian = stored !== 0 && stored % 2 ** 16 === 0;
  cursor.at -= 4;
  const version = cursor.u32();
  if (version !== 1 && version !== 2 && version !== 3)
    throw cursor.wrong(`GGUF version ${version}; versions 1, 2 and 3 are read`);
  cursor.version = version;
  await cursor.need(2 * cursor.sizeBytes, "its counts");
  const tensorCount = cursor.size("the number of tensors", MOST_TENSORS);
  const keyCount = cursor.size("the number of keys", MOST_KEYS);
  return { version, tensorCount, keyCount } as const;
}

/** Counts the bytes of names and single strings, which stay in memory. */
class Texts {
  #bytes = 0;

  async read(cursor: Cursor, what: string, longest: number): Promise<string> {
    await cursor.need(cursor.sizeBytes, what);
    const length = cursor.size(`the length of ${what}`, Math.min(longest, cursor.left - cursor.sizeBytes));
    this.#bytes += length;
    if (this.#bytes > MOST_TEXT) throw cursor.wrong(`its keys and strings have more than ${MOST_TEXT} bytes`);
    await cursor.need(length, what);
    return cursor.text(length, what);
  }
}

async function readMetadata(cursor: Cursor, count: number): Promise<Map<string, GgufValue>> {
  const metadata = new Map<string, GgufValue>();
  const texts = new Texts();
  const strings = { left: MOST_STRINGS };
  for (let i = 0; i < count; i++) {
    const key = await texts.read(cursor, `key ${i}`, LONGEST_NAME);
    if (key === "") throw cursor.wrong(`key ${i} is empty`);
    if (metadata.has(key)) throw cursor.wrong(`the key ${key} occurs twice`);
    const type = await readType(cursor, key);
    if (type === "string") metadata.set(key, await texts.read(cursor, `key ${key}`, MOST_TEXT));
    else if (type === "array") metadata.set(key, await passArray(cursor, key, strings));
    else {
      await cursor.need(BYTES[type], `key ${key}`);
      metadata.set(key, cursor.number(type));
    }
  }
  return metadata;
}

async function readType(cursor: Cursor, key: string): Promise<ValueType> {
  await cursor.need(4, `key ${key}`);
  const number = cursor.u32();
  const type = VALUE_TYPES[number];
  if (type === undefined) throw cursor.wrong(`key ${key} has type ${number}, which GGUF does not have`);
  return type;
}

/** Goes to the end of an array. */
async function passArray(cursor: Cursor, key: string, strings: { left: number }): Promise<GgufArray> {
  const element = await readType(cursor, key);
  if (element === "array")
    throw cursor.wrong(`key ${key} is an array of arrays, which neither lowbit nor llama.cpp reads`);
  const what = `the count of key ${key}`;
  await cursor.need(cursor.sizeBytes, what);
  const left = cursor.left - cursor.sizeBytes;
  if (element !== "string") {
    const count = cursor.size(what, Math.floor(left / BYTES[element]));
    const from = cursor.at;
    cursor.at += count * BYTES[element];
    return { element, count, from };
  }
  const count = cursor.size(what, Math.min(strings.left, Math.floor(left / cursor.sizeBytes)));
  strings.left -= count;
  const from = cursor.at;
  const length = `the length of a string of key ${key}`;
  for (let i = 0; i < count; i++) {
    if (!cursor.has(cursor.sizeBytes)) await cursor.load(cursor.sizeBytes, `key ${key}`);
    const bytes = cursor.size(length, cursor.left - cursor.sizeBytes);
    cursor.at += bytes;
  }
  return { element, count, from };
}

async function readStrings(cursor: Cursor, key: string, count: number): Promise<string[]> {
  const strings: string[] = [];
  const from = cursor.at;
  const length = `the length of a string of key ${key}`;
  for (let i = 0; i < count; i++) {
    if (!cursor.has(cursor.sizeBytes)) await cursor.load(cursor.sizeBytes, `key ${key}`);
    const bytes = cursor.size(length, cursor.left - cursor.sizeBytes);
    if (cursor.at + bytes - from > LARGEST_ARRAY)
      throw cursor.wrong(`the strings of key ${key} have more than ${LARGEST_ARRAY} bytes`);
    if (!cursor.has(bytes)) await cursor.load(bytes, `key ${key}`);
    strings.push(cursor.text(bytes, `string ${i} of key ${key}`));
  }
  return strings;
}

async function readNumbers(file: ByteSource, bigEndian: boolean, key: string, array: GgufArray) {
  const { element, count, from } = array;
  if (element === "string" || element === "array")
    throw new InputError(`${file.name}: key ${key} must hold numbers, holds strings`);
  if (count > MOST_NUMBERS)
    throw new InputError(`${file.name}: key ${key} has ${count} numbers; too many for any model in use`);
  const width = BYTES[element];
  const bytes = await file.slice(from, from + count * width);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Float64Array.from({ length: count }, (_, i) =>
    Number(numberAt(view, i * width, element, !bigEndian)),
  );
}

function alignmentOf(cursor: Cursor, metadata: ReadonlyMap<string, GgufValue>): number {
  const alignment = metadata.get("general.alignment") ?? DEFAULT_ALIGNMENT;
  const isPower = typeof alignment === "number" && alignment >= 1 && Number.isInteger(Math.log2(alignment));
  if (isPower && alignment <= LARGEST_ALIGNMENT) return alignment;
  const met = typeof alignment === "object" ? "an array" : String(alignment);
  throw cursor.wrong(`general.alignment must be a power of two up to ${LARGEST_ALIGNMENT}, is ${met}`);
}

async function readTensors(
  cursor: Cursor,
  count: number,
  alignment: number,
): Promise<Map<string, GgufTensor>> {
  const found: { name: string; shape: number[]; type: GgmlType; offset: number; bytes: number }[] = [];
  const names = new Set<string>();
  const texts = new Texts();
  for (let i = 0; i < count; i++) {
    const name = await texts.read(cursor, `the name of tensor ${i}`, LONGEST_NAME);
    if (names.has(name)) throw cursor.wrong(`the tensor ${name} occurs twice`);
    names.add(name);
    found.push({ name, ...(await readTensor(cursor, name, alignment)) });
  }
  const start = count === 0 ? cursor.at : Math.ceil(cursor.at / alignment) * alignment;
  const tensors = new Map<string, GgufTensor>();
  for (const { name, shape, type, offset, bytes } of found) {
    const from = start + offset;
    if (from + bytes > cursor.file.byteLength) {
      throw cursor.wrong(
        `truncated: tensor ${name} has ${bytes} bytes at ${from}, the file ends at ${cursor.file.byteLength}`,
      );
    }
    tensors.set(name, { name, shape, type, from, bytes });
  }
  const inOrder = [...tensors.values()].sort((a, b) => a.from - b.from);
  for (const [i, { name, from }] of inOrder.entries()) {
    const before = inOrder[i - 1];
    if (before && before.from + before.bytes > from)
      throw cursor.wrong(`the tensors ${before.name} and ${name} overlap`);
  }
  return tensors;
}

async function readTensor(cursor: Cursor, name: string, alignment: number) {
  await cursor.need(4, `tensor ${name}`);
  const dimensions = cursor.u32();
  if (dimensions > MOST_DIMENSIONS)
    throw cursor.wrong(`tensor ${name} has ${dimensions} dimensions; ggml has at most ${MOST_DIMENSIONS}`);
  await cursor.need(dimensions * cursor.sizeBytes + 12, `tensor ${name}`);
  const sizes: number[] = [];
  for (let d = 0; d < dimensions; d++)
    sizes.push(cursor.size(`dimension ${d} of tensor ${name}`, Number.MAX_SAFE_INTEGER));
  if (sizes.includes(0)) throw cursor.wrong(`tensor ${name} has a dimension of 0`);
  const id = cursor.u32();
  const type = ggmlTypes.get(id);
  if (type === undefined) throw cursor.wrong(`tensor ${name} has ggml type ${id}, which is not known`);
  const shape = sizes.toReversed();
  const cols = sizes[0] ?? 1;
  // A retired type has no block: the tensor is listed, and refused when it is read.
  const bytes = type.weights === 0 ? 0 : (sizeOf(shape) / type.weights) * type.bytes;
  if (type.weights > 0 && cols % type.weights !== 0) {
    throw cursor.wrong(
      `tensor ${name}: rows of ${cols} weights are not whole blocks of ${type.weights}, as ${type.name} needs`,
    );
  }
  // Even at one bit a weight a larger tensor would be no part of any file.
  if (!Number.isSafeInteger(sizeOf(shape)))
    throw cursor.wrong(`tensor ${name} of shape ${shape.join("×")} is larger than any file`);
  const offset = cursor.atMost(cursor.u64(), `the offset of tensor ${name}`, cursor.file.byteLength);
  if (offset % alignment !== 0)
    throw cursor.wrong(
      `tensor ${name} begins at ${offset}, which is no multiple of the alignment ${alignment}`,
    );
  return { shape, type, offset, bytes };
}

/**
 * Numbers of several bytes in a block, as [offset, width]; the types that llama.cpp's converter knows
 * (https://github.com/ggml-org/llama.cpp/blob/master/gguf-py/gguf/scripts/gguf_convert_endian.py), and plain numbers.
 */
const WIDE: Partial<Record<GgmlName, readonly (readonly [offset: number, width: number])[]>> = {
  i8: [],
  f16: [[0, 2]],
  bf16: [[0, 2]],
  i16: [[0, 2]],
  f32: [[0, 4]],
  i32: [[0, 4]],
  f64: [[0, 8]],
  i64: [[0, 8]],
  q4_0: [[0, 2]],
  q8_0: [[0, 2]],
  q4_k: [
    [0, 2],
    [2, 2],
  ],
  q6_k: [[208, 2]],
  q1_0: [[0, 2]],
  tq2_0: [[64, 2]],
  mxfp4: [],
  nvfp4: [],
};

/** A tensor's bytes from big-endian to little-endian, in place. */
function swapped(file: string, { name, type }: GgufTensor, bytes: Uint8Array): Uint8Array {
  const wide = WIDE[type.name];
  if (wide === undefined) {
    throw new InputError(
      `${file}: tensor ${name}: nothing says how ${type.name} stands in a big-endian file; take a little-endian one`,
    );
  }
  for (let block = 0; block < bytes.byteLength; block += type.bytes) {
    for (const [offset, width] of wide) bytes.subarray(block + offset, block + offset + width).reverse();
  }
  return bytes;
}
