import { checkFinite as checkFloats } from "../tensor/finite.ts";
import { nearestName } from "../tensor/nearest-name.ts";
import { InputError, type Matrix, matrix, sizeOf } from "../tensor/tensor.ts";
import { PART_BYTES, type Parts, packedWeight, type Weight } from "../tensor/weight.ts";
import { affine8 } from "./affine8.ts";
import { bf16 } from "./bf16.ts";
import { binary } from "./binary.ts";
import { composeWeight } from "./compose-weight.ts";
import { e8p } from "./e8p.ts";
import { e81b } from "./e81b.ts";
import { f16 } from "./f16.ts";
import { f32 } from "./f32.ts";
import { type Format, type PartSpec, roundToNearest, valuesOf } from "./format.ts";
import { type IntegerBits, integer } from "./integer.ts";
import { iq4_nl } from "./iq4_nl.ts";
import { normalFloat } from "./normal-float.ts";
import { q2_k } from "./q2_k.ts";
import { q3_k } from "./q3_k.ts";
import { q4_0 } from "./q4_0.ts";
import { q4_1 } from "./q4_1.ts";
import { q4_k } from "./q4_k.ts";
import { q5_0 } from "./q5_0.ts";
import { q5_1 } from "./q5_1.ts";
import { q5_k } from "./q5_k.ts";
import { q6_k } from "./q6_k.ts";
import { q8_0 } from "./q8_0.ts";
import { tq1_0 } from "./tq1_0.ts";
import { tq2_0 } from "./tq2_0.ts";
import { trellis } from "./trellis.ts";
import { trits } from "./trits.ts";

export { clipped } from "./clipped.ts";
export { integer } from "./integer.ts";

const widths = [8, 6, 4, 3, 2] as const satisfies readonly IntegerBits[];
const groups = [undefined, 128, 64, 32] as const;

const all = new Map<string, Format>(
  [
    f32,
    f16,
    bf16,
    ...widths.flatMap((bits) =>
      [false, true].flatMap((offset) => groups.map((group) => integer(bits, { offset, group }))),
    ),
    ...([4, 3, 2] as const).flatMap((bits) => groups.map((group) => normalFloat(bits, group))),
    tq2_0,
    tq1_0,
    trits,
    binary,
    q8_0,
    q4_0,
    q4_1,
    q5_0,
    q5_1,
    iq4_nl,
    q2_k,
    q3_k,
    q4_k,
    q5_k,
    q6_k,
    ...([2, 3, 4] as const).map(trellis),
    e8p,
    e81b,
    affine8,
  ].map((format) => [format.name, format]),
);

/** Every format, by name. */
export const formats: ReadonlyMap<string, Format> = all;

/**
 * Makes a format known by its name, everywhere. Without C++ of its own (a stem that formats.h does not list) its levels
 * are handed to the kernels as bytes where they are whole numbers, and its weights as float32 elsewhere.
 */
export function addFormat(format: Format): void {
  if (all.has(format.name)) {
    throw new InputError(`format: ${format.name} exists already; give the new format another name`);
  }
  all.set(format.name, format);
}

/** The format of a name as files and the command line spell it; an InputError suggests the nearest name. */
export function formatByName(name: string): Format {
  const format = formats.get(name);
  if (format) return format;
  throw new InputError(
    `format: no format is called ${JSON.stringify(name)}; did you mean ${nearestName(name, formats.keys())}? There are ` +
      `${[...formats.keys()].filter((known) => !/^(int|nf)\d/.test(known)).join(", ")}, int8, int6, int4, int3, int2 ` +
      `with -offset, -g32, -g64, -g128 as wanted, and nf4, nf3, nf2 with -g32, -g64, -g128`,
  );
}

/** The weights that the parts of a packed matrix stand for, (rows, cols), as every decoder computes them. */
export function decode(format: Format, parts: Parts, rows: number, cols: number): Float32Array {
  checkParts(format, parts, rows, cols);
  if (format.kind === "opaque") return format.decode(parts, rows, cols);
  return valuesOf(format, format.unpack(parts, rows, cols));
}

/** The matrix that a stored weight stands for, whatever parts it is made of. */
export function decodeWeight(weight: Weight): Matrix {
  return composeWeight(weight, (name, parts, rows, cols) => decode(formatByName(name), parts, rows, cols));
}

/** Throws an InputError that names the first NaN or infinity among a weight's stored floats: values, scales, offsets. */
export function checkFinite(model: string, name: string, weight: Weight): void {
  checkFloats(model, name, weight);
  if (weight.expression.kind !== "packed") return;
  const { format, parts } = weight.expression;
  const block = formats.get(format)?.firstNotFinite?.(parts) ?? -1;
  if (block === -1) return;
  throw new InputError(
    `${model}: tensor ${name} (${format}) has NaN or infinity among the scales of block ${block}; the file is damaged`,
  );
}

/** Packs W (rows, cols), each weight at the code nearest to it (importance by column, for a clip search). */
export function encode(format: Format, W: Matrix, importance?: Float32Array): Parts {
  if (format.kind === "opaque") return format.encode(W.data, W.rows, W.cols);
  return format.pack(roundToNearest(format, W, importance), W.rows, W.cols);
}

/** A tensor of any rank as a stored weight, seen as rows of its last axis; a plain array keeps the tensor's own shape. */
export function encodeWeight(format: Format, shape: readonly number[], data: Float32Array): Weight {
  const cols = shape.at(-1) ?? 1;
  const parts = encode(format, matrix(cols === 0 ? 0 : data.length / cols, cols, data));
  const own = format.kind === "opaque" && parts.data ? { data: { ...parts.data, shape } } : parts;
  return packedWeight(shape, format.name, own);
}

/** Stored bytes of a matrix (rows, cols), all parts together; an InputError when the format does not fit it. */
export function bytesPerMatrix(format: Format, rows: number, cols: number): number {
  return format.parts(rows, cols).reduce((bytes, part) => bytes + partBytes(part), 0);
}

/** Stored bits of a matrix (rows, cols) for each of its weights, scales and padding included. */
export function bitsPerWeight(format: Format, rows: number, cols: number): number {
  return (8 * bytesPerMatrix(format, rows, cols)) / (rows * cols);
}

/** Throws an InputError unless the parts are those that a matrix of this size has. */
export function checkParts(format: Format, parts: Parts, rows: number, cols: number): void {
  for (const spec of format.parts(rows, cols)) {
    const part = parts[spec.name];
    if (part && part.dtype === spec.dtype && part.bytes.byteLength === partBytes(spec)) continue;
    const met = part ? `${part.bytes.byteLength} bytes of ${part.dtype}` : "none";
    throw new InputError(
      `${format.name}: ${rows}×${cols} needs ${spec.name} of ${partBytes(spec)} bytes of ${spec.dtype}, got ${met}`,
    );
  }
}

/** Stored bytes of a part. */
export function partBytes({ dtype, shape }: PartSpec): number {
  return PART_BYTES[dtype] * sizeOf(shape);
}
