import type { GgmlType } from "../formats/ggml.ts";
import { sizeOf } from "../tensor/tensor.ts";
import { stageFile } from "./disk.ts";
import { DEFAULT_ALIGNMENT, MAGIC, VALUE_TYPES, type ValueType } from "./gguf.ts";

/** A key of a file's metadata with its value; `string[]` and the like are arrays. */
export type GgufEntry =
  | readonly [key: string, type: "string", value: string]
  | readonly [key: string, type: "u32" | "f32", value: number]
  | readonly [key: string, type: "bool", value: boolean]
  | readonly [key: string, type: "string[]", value: readonly string[]]
  | readonly [key: string, type: "f32[]" | "i32[]", value: ArrayLike<number>];

/** A tensor that will be written. */
export interface GgufOutline {
  /** As GGUF names it: `blk.0.attn_q.weight`. */
  readonly name: string;
  /** The slowest first: [rows, cols]. */
  readonly shape: readonly number[];
  readonly type: GgmlType;
}

export interface GgufWriter {
  /** Bytes of the whole file; known before anything is written. */
  readonly bytes: number;
  /** Appends little-endian bytes to a tensor; pieces of one tensor come in order, tensors in any. */
  write(name: string, bytes: Uint8Array): Promise<void>;
  /** Puts the file at its place, with `last` as the value of the reserved key. Fails when bytes are missing. */
  finish(last: string): Promise<void>;
  /** Removes what was written; does nothing after `finish`. */
  discard(): Promise<void>;
}

/**
 * Begins a GGUF file of version 3, little-endian; the layout is in `gguf.ts`.
 * Tensors stand one after another in the order given, as llama.cpp wants them.
 * The string of `reserved` is known only when the work is done: room for
 * `bytes` is left, and filled up with spaces. The file appears whole or not at all.
 */
export async function ggufWriter(
  path: string,
  entries: readonly GgufEntry[],
  tensors: readonly GgufOutline[],
  reserved: { readonly key: string; readonly bytes: number },
): Promise<GgufWriter> {
  const header = (last: string) => headerOf([...entries, [reserved.key, "string", last]], tensors);
  const start = header(" ".repeat(reserved.bytes)).byteLength;
  const places = new Map<string, { at: number; left: number }>();
  let end = start;
  for (const { name, shape, type } of tensors) {
    const bytes = bytesOf(shape, type);
    places.set(name, { at: end, left: bytes });
    end += aligned(bytes);
  }
  const file = await stageFile(path);
  let over = false;
  return {
    bytes: end,
    async write(name, bytes) {
      const place = places.get(name);
      if (place === undefined || place.left < bytes.byteLength)
        throw new Error(`ggufWriter: ${bytes.byteLength} bytes too many for tensor ${name}`);
      await file.write(bytes, place.at);
      place.at += bytes.byteLength;
      place.left -= bytes.byteLength;
    },
    async finish(last) {
      const room = reserved.bytes - utf8.encode(last).byteLength;
      if (room < 0)
        throw new Error(`ggufWriter: ${reserved.key} needs ${-room} bytes more than were reserved`);
      for (const [name, { at, left }] of places) {
        if (left > 0) throw new Error(`ggufWriter: ${left} bytes of tensor ${name} were not written`);
        await file.write(new Uint8Array(aligned(at) - at), at);
      }
      await file.write(header(last + " ".repeat(room)), 0);
      await file.commit();
      over = true;
    },
    async discard() {
      if (!over) await file.discard();
      over = true;
    },
  };
}

function bytesOf(shape: readonly number[], type: GgmlType): number {
  return (sizeOf(shape) / type.weights) * type.bytes;
}

function aligned(at: number): number {
  return Math.ceil(at / DEFAULT_ALIGNMENT) * DEFAULT_ALIGNMENT;
}

/** Everything before the tensors' bytes, up to the alignment. */
function headerOf(entries: readonly GgufEntry[], tensors: readonly GgufOutline[]): Uint8Array {
  const out = new HeaderBytes();
  out.u32(MAGIC);
  out.u32(3);
  out.u64(tensors.length);
  out.u64(entries.length);
  for (const entry of entries) {
    out.string(entry[0]);
    out.value(entry);
  }
  let offset = 0;
  for (const { name, shape, type } of tensors) {
    out.string(name);
    out.u32(shape.length);
    for (const size of shape.toReversed()) out.u64(size);
    out.u32(type.id);
    out.u64(offset);
    offset += aligned(bytesOf(shape, type));
  }
  return out.padded();
}

class HeaderBytes {
  #view = new DataView(new ArrayBuffer(2 ** 16));
  #at = 0;

  #room(bytes: number): number {
    const at = this.#at;
    if (at + bytes > this.#view.byteLength) {
      const larger = new Uint8Array(2 * (at + bytes));
      larger.set(new Uint8Array(this.#view.buffer, 0, at));
      this.#view = new DataView(larger.buffer);
    }
    this.#at += bytes;
    return at;
  }

  u8(value: number): void {
    const at = this.#room(1);
    this.#view.setUint8(at, value);
  }

  u32(value: number): void {
    const at = this.#room(4);
    this.#view.setUint32(at, value, true);
  }

  u64(value: number): void {
    const at = this.#room(8);
    this.#view.setBigUint64(at, BigInt(value), true);
  }

  i32(value: number): void {
    const at = this.#room(4);
    this.#view.setInt32(at, value, true);
  }

  f32(value: number): void {
    const at = this.#room(4);
    this.#view.setFloat32(at, value, true);
  }

  string(text: string): void {
    const bytes = utf8.encode(text);
    this.u64(bytes.byteLength);
    const at = this.#room(bytes.byteLength);
    new Uint8Array(this.#view.buffer).set(bytes, at);
  }

  value([, type, value]: GgufEntry): void {
    const typeNumber = (name: ValueType) => this.u32(VALUE_TYPES.indexOf(name));
    const array = (name: ValueType, length: number) => {
      typeNumber("array");
      typeNumber(name);
      this.u64(length);
    };
    switch (type) {
      case "string":
        typeNumber(type);
        this.string(value);
        return;
      case "u32":
        typeNumber(type);
        this.u32(value);
        return;
      case "f32":
        typeNumber(type);
        this.f32(value);
        return;
      case "bool":
        typeNumber(type);
        this.u8(value ? 1 : 0);
        return;
      case "string[]":
        array("string", value.length);
        for (const text of value) this.string(text);
        return;
      case "f32[]":
        array("f32", value.length);
        for (let i = 0; i < value.length; i++) this.f32(value[i]);
        return;
      case "i32[]":
        array("i32", value.length);
        for (let i = 0; i < value.length; i++) this.i32(value[i]);
    }
  }

  padded(): Uint8Array {
    this.#room(aligned(this.#at) - this.#at);
    return new Uint8Array(this.#view.buffer, 0, this.#at);
  }
}

const utf8 = new TextEncoder();
