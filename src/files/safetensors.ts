import { InputError, sizeOf } from "../tensor/tensor.ts";
import { PART_BYTES, type Part, type PartType } from "../tensor/weight.ts";
import type { ByteSource, JsonObject } from "./file.ts";
import { isObject, isShape, parseJson } from "./json.ts";

/**
 * safetensors: named arrays behind a JSON header
 * (https://github.com/huggingface/safetensors#format).
 *
 *   bytes 0..7     N, length of the header, unsigned 64-bit little-endian
 *   bytes 8..8+N   JSON: { NAME: { dtype, shape, data_offsets: [from, to] }, …, "__metadata__": { … } },
 *                  begins with `{`, may end with spaces
 *   from 8+N on    the arrays, little-endian, row-major; offsets count from here,
 *                  and the ranges cover the rest of the file without gap or overlap
 *
 * A file is a stranger: its header is checked against the file's length
 * before anything is allocated, and every range before anything is read.
 */

/** An array as the header describes it; `from` and `to` count from the file's first byte. */
export interface StoredTensor {
  readonly name: string;
  /** As the header spells it: `F32`, `BF16`, `F8_E4M3`. */
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly from: number;
  readonly to: number;
}

export interface SafetensorsHeader {
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  readonly metadata: Readonly<Record<string, string>>;
}

/**
 * The reference reader takes a hundred million bytes; tensors enough for every model in use have a few hundred thousand,
 * and a stranger's header shall not take more memory than that.
 */
const LONGEST_HEADER = 2 ** 23;

/** Bits of one element, for every dtype that the format knows. */
const DTYPE_BITS: Readonly<Record<string, number>> = {
  BOOL: 8,
  U8: 8,
  I8: 8,
  F8_E5M2: 8,
  F8_E4M3: 8,
  F8_E8M0: 8,
  F8_E4M3FNUZ: 8,
  F8_E5M2FNUZ: 8,
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
  I16: 16,
  U16: 16,
  F16: 16,
  BF16: 16,
  I32: 32,
  U32: 32,
  F32: 32,
  C64: 64,
  F64: 64,
  I64: 64,
  U64: 64,
};

const PART_OF_DTYPE: Readonly<Record<string, PartType>> = {
  U8: "u8",
  I8: "i8",
  I16: "i16",
  U16: "u16",
  F16: "f16",
  BF16: "bf16",
  I32: "i32",
  F32: "f32",
};

/** Our name of a dtype where lowbit reads it, else the header's own in lower case (`f64`). */
export function formatOfDtype(dtype: string): string {
  return PART_OF_DTYPE[dtype] ?? dtype.toLowerCase();
}

/** The header of a file, checked; reads nothing else. Throws an InputError that names the file and the tensor. */
export async function readHeader(source: ByteSource): Promise<SafetensorsHeader> {
  const { name: file, byteLength } = source;
  if (byteLength < 8)
    throw new InputError(
      `${file}: truncated: a safetensors file has at least 8 bytes, this one ${byteLength}`,
    );
  const first = await source.slice(0, 8);
  const length = new DataView(first.buffer, first.byteOffset, 8).getBigUint64(0, true);
  if (length > BigInt(byteLength - 8)) {
    throw new InputError(
      `${file}: header length ${length} is beyond the file's ${byteLength} bytes; truncated, or not a safetensors file`,
    );
  }
  if (length > LONGEST_HEADER) {
    throw new InputError(`${file}: header of ${length} bytes; ${LONGEST_HEADER} are read`);
  }
  const data = 8 + Number(length);
  const text = await source.slice(8, data);
  if (text[0] !== 0x7b)
    throw new InputError(`${file}: not a safetensors file: its header does not begin with {`);
  const entries = parseJson(text, `${file}: header`);
  const { __metadata__: metadata = {} } = entries;
  if (!isObject(metadata) || Object.values(metadata).some((value) => typeof value !== "string")) {
    throw new InputError(`${file}: __metadata__ must hold strings only`);
  }
  const tensors = new Map<string, StoredTensor>();
  for (const name of Object.keys(entries)) {
    if (name === "__metadata__") continue;
    tensors.set(name, checkEntry(`${file}: tensor ${name}`, name, entries[name], data, byteLength));
  }
  checkCover(file, [...tensors.values()], data, byteLength);
  return { tensors, metadata: metadata as Record<string, string> };
}

function checkEntry(
  where: string,
  name: string,
  entry: unknown,
  data: number,
  byteLength: number,
): StoredTensor {
  const { dtype, shape, data_offsets: offsets } = (isObject(entry as JsonObject) ? entry : {}) as JsonObject;
  if (typeof dtype !== "string" || !isShape(shape) || !isRange(offsets)) {
    throw new InputError(
      `${where}: needs dtype, shape and two data_offsets, met ${JSON.stringify(entry).slice(0, 80)}`,
    );
  }
  const bits = Object.hasOwn(DTYPE_BITS, dtype) ? DTYPE_BITS[dtype] : undefined;
  if (bits === undefined) throw new InputError(`${where}: unknown dtype ${JSON.stringify(dtype)}`);
  const [from, to] = [data + offsets[0], data + offsets[1]];
  if (from > to || to > byteLength) {
    throw new InputError(
      `${where}: bytes ${offsets[0]}…${offsets[1]} leave the file, whose data has ${byteLength - data} bytes`,
    );
  }
  const bytes = (sizeOf(shape) * bits) / 8;
  if (bytes !== to - from) {
    throw new InputError(
      `${where}: ${dtype} of shape ${shape.join("×")} needs ${bytes} bytes, its range has ${to - from}`,
    );
  }
  return { name, dtype, shape, from, to };
}

function isRange(value: unknown): value is readonly [number, number] {
  return (
    Array.isArray(value) && value.length === 2 && value.every((at) => Number.isSafeInteger(at) && at >= 0)
  );
}

function checkCover(file: string, tensors: StoredTensor[], data: number, byteLength: number): void {
  tensors.sort((a, b) => a.from - b.from || a.to - b.to);
  let end = data;
  let before = "the header";
  for (const { name, from, to } of tensors) {
    if (from < end) throw new InputError(`${file}: the ranges of tensors ${before} and ${name} overlap`);
    if (from > end)
      throw new InputError(
        `${file}: ${from - end} bytes between ${before} and tensor ${name} belong to nothing`,
      );
    end = to;
    before = name;
  }
  if (end < byteLength)
    throw new InputError(`${file}: the last ${byteLength - end} bytes belong to no tensor`);
}

/** One array's bytes. A dtype that no part can have is refused by name. */
export async function readPart(source: ByteSource, tensor: StoredTensor): Promise<Part> {
  const dtype = PART_OF_DTYPE[tensor.dtype];
  if (dtype === undefined) {
    throw new InputError(
      `${source.name}: tensor ${tensor.name} has dtype ${tensor.dtype}, which lowbit does not read; convert it to F32, F16 or BF16`,
    );
  }
  return { dtype, shape: tensor.shape, bytes: await source.slice(tensor.from, tensor.to) };
}

/** A part to be written: everything but its bytes. */
export interface PartOutline {
  readonly name: string;
  readonly dtype: PartType;
  readonly shape: readonly number[];
}

export interface SafetensorsLayout {
  /** Bytes before the data: the length and the JSON, padded with spaces to a multiple of 8. */
  readonly header: Uint8Array;
  /** Where each tensor's bytes stand, counted from the file's first byte. */
  readonly tensors: ReadonlyMap<string, { readonly from: number; readonly to: number }>;
  readonly byteLength: number;
}

/**
 * Where everything stands in a file of these tensors, so that it can be
 * written one tensor at a time. Wider elements come first, as in the
 * reference writer, so that every array starts at a multiple of its element
 * size; within a width the order given is kept.
 */
export function layOut(
  parts: Iterable<PartOutline>,
  metadata: Readonly<Record<string, string>> = {},
): SafetensorsLayout {
  const ordered = [...parts].sort((a, b) => PART_BYTES[b.dtype] - PART_BYTES[a.dtype]);
  const entries: [string, unknown][] = Object.keys(metadata).length > 0 ? [["__metadata__", metadata]] : [];
  const ranges = new Map<string, { from: number; to: number }>();
  let end = 0;
  for (const { name, dtype, shape } of ordered) {
    if (ranges.has(name)) throw new Error(`safetensors: tensor ${name} is given twice`);
    const from = end;
    end += sizeOf(shape) * PART_BYTES[dtype];
    ranges.set(name, { from, to: end });
    entries.push([name, { dtype: dtype.toUpperCase(), shape, data_offsets: [from, end] }]);
  }
  const json = new TextEncoder().encode(JSON.stringify(Object.fromEntries(entries)));
  const header = new Uint8Array(8 + Math.ceil(json.byteLength / 8) * 8).fill(0x20);
  new DataView(header.buffer).setBigUint64(0, BigInt(header.byteLength - 8), true);
  header.set(json, 8);
  for (const range of ranges.values()) {
    range.from += header.byteLength;
    range.to += header.byteLength;
  }
  return { header, tensors: ranges, byteLength: header.byteLength + end };
}

/** A whole file in memory. */
export function encodeSafetensors(
  parts: ReadonlyMap<string, Part>,
  metadata?: Readonly<Record<string, string>>,
): Uint8Array {
  const layout = layOut(
    [...parts].map(([name, part]) => ({ name, dtype: part.dtype, shape: part.shape })),
    metadata,
  );
  const bytes = new Uint8Array(layout.byteLength);
  bytes.set(layout.header);
  for (const [name, part] of parts) bytes.set(part.bytes, layout.tensors.get(name)!.from);
  return bytes;
}
