import type { Parts } from "../formats/format.ts";
import { groupSize } from "../formats/format.ts";
import { decode, formatByName } from "../formats/index.ts";
import { type Elements, sizeOf } from "../tensor/tensor.ts";
import type { View } from "./kernel.ts";

const NO_FLOATS = new Float32Array(0);
const NO_IDS = new Int32Array(0);

/** What a kernel computes on, over elements in plain memory: writing into the view writes into them. */
export function elementsView(shape: readonly number[], elements: Elements): View {
  const isFloat = elements instanceof Float32Array;
  const data = isFloat ? elements : NO_FLOATS;
  return {
    shape,
    format: isFloat ? "f32" : "i32",
    data,
    ids: isFloat ? NO_IDS : elements,
    decode: () => data,
    magnitudes: () => data.map(Math.abs),
  };
}

/** The same over a packed matrix; its floats are made when first asked for, and kept. */
export function packedView(shape: readonly number[], format: string, parts: Parts): View {
  const [rows, cols] = asMatrix(shape);
  let floats: Float32Array | undefined;
  return {
    shape,
    format,
    data: NO_FLOATS,
    ids: NO_IDS,
    parts,
    decode: () => (floats ??= decode(formatByName(format), parts, rows, cols)),
    magnitudes: () => magnitudes(format, parts, rows, cols),
  };
}

/** The same over a matrix whose floats `decode` makes when they are first asked for. */
export function decodedView(shape: readonly number[], format: string, decode: () => Float32Array): View {
  let floats: Float32Array | undefined;
  const decoded = () => (floats ??= decode());
  return {
    shape,
    format,
    data: NO_FLOATS,
    ids: NO_IDS,
    decode: decoded,
    magnitudes: () => decoded().map(Math.abs),
  };
}

/** A tensor of any rank as rows of its last axis. */
export function asMatrix(shape: readonly number[]): readonly [rows: number, cols: number] {
  return [sizeOf(shape.slice(0, -1)), shape.length === 0 ? 1 : shape[shape.length - 1]];
}

function magnitudes(name: string, parts: Parts, rows: number, cols: number): Float32Array {
  const format = formatByName(name);
  if (format.kind === "opaque") return format.decode(parts, rows, cols).map(Math.abs);
  const { codes, parameters } = format.unpack(parts, rows, cols);
  const size = groupSize(format, rows, cols);
  return Float32Array.from(codes, (code, at) => {
    const group = parameters[Math.floor(at / size)];
    const first = format.value(0, group, at % size);
    return Math.abs(format.value(code, group, at % size) - first) + Math.abs(first);
  });
}
