import type { Backend } from "../backends/backend.ts";
import { type GroupFormat, groupSize, type Parameters } from "../formats/format.ts";
import type { KernelName } from "../kernels/index.ts";
import {
  type HostTensor,
  hostTensor,
  InputError,
  type Matrix,
  matrix,
  type Tensor,
} from "../tensor/tensor.ts";
import { packedWeight, type Weight } from "../tensor/weight.ts";

/**
 * All outputs of an operation, read: W (rows, cols) is its first argument,
 * `rest` are the others. The backend's own pass decides, so that a weight in
 * the middle between two levels becomes what it was in training.
 */
export async function outputsOf(
  backend: Backend,
  name: KernelName,
  { rows, cols, data }: Matrix,
  rest: readonly (HostTensor | number)[],
): Promise<Float32Array[]> {
  const outputs = backend.scope(() => {
    const W = backend.upload(hostTensor([rows, cols], data));
    return backend.forward(name, [W, ...rest.map((a) => (typeof a === "number" ? a : backend.upload(a)))]);
  });
  try {
    return (await Promise.all(outputs.map((t: Tensor) => backend.read(t)))) as Float32Array[];
  } finally {
    for (const t of outputs) backend.free(t);
  }
}

/**
 * Packs values that are levels of a format already, those of row r by the
 * scale and offset `of(r)`; an InputError names the method and the formats
 * that have such levels when this one has not.
 */
export function packLevels(
  method: { readonly name: string; readonly formats: readonly string[] },
  { rows, cols, data }: Matrix,
  format: GroupFormat,
  of: (r: number) => Parameters,
): Weight {
  format.parts(rows, cols); // refuses a row that whole groups do not fill
  const size = groupSize(format, rows, cols);
  const codes = new Uint8Array(data.length);
  const refuse = (value: number) =>
    new InputError(
      `${method.name}: ${format.name} has no level ${value}; use ${method.formats.join(" or ")}`,
    );
  if (format.groupShape.kind === "superblock" || format.groupShape.kind === "vector") throw refuse(data[0]);
  const parameters = Array.from({ length: size === 0 ? 0 : data.length / size }, (_, g) =>
    of(Math.floor((g * size) / cols)),
  );
  for (let i = 0; i < data.length; i++) {
    const group = parameters[Math.floor(i / size)];
    codes[i] = format.nearest(data[i], group, i % size);
    if (format.value(codes[i], group, i % size) !== data[i]) throw refuse(data[i]);
  }
  return packedWeight([rows, cols], format.name, format.pack({ codes, parameters }, rows, cols));
}

/** The same for one scale for the whole matrix, as `ternary` and `binary` give it: values and scale. */
export function packScaled(
  method: { readonly name: string; readonly formats: readonly string[] },
  { rows, cols }: Matrix,
  format: GroupFormat,
  [values, scale]: readonly Float32Array[],
): Weight {
  const group = { scale: scale[0], offset: 0 };
  return packLevels(method, matrix(rows, cols, values), format, () => group);
}

/** Sum of the rows' or columns' terms over W, divided by their number: means of a method's start. */
export function meansBy(
  { rows, cols, data }: Matrix,
  by: "rows" | "cols",
  term: (w: number, at: number) => number,
): Float32Array {
  const sums = new Float64Array(by === "rows" ? rows : cols);
  for (let i = 0; i < data.length; i++) {
    const at = by === "rows" ? Math.floor(i / cols) : i % cols;
    sums[at] += term(data[i], at);
  }
  return Float32Array.from(sums, (sum) => sum / (by === "rows" ? cols : rows));
}
