/**
 * A tensor handle: what it is, wherever it lives. Each backend makes its own
 * handles and is the only one that looks inside them.
 *
 * `format` is an element type (`f32`, `i32`, `f16`, `bf16`) or the name of a
 * number format in which a matrix is packed (`int4-g64`, `tq2_0`).
 */
export interface Tensor {
  readonly shape: readonly number[];
  readonly format: string;
  /** On a packed matrix: that what is multiplied by it is rounded to signed bytes first (kernels/linear.ts). */
  readonly activations?: "int8";
}

export type Elements = Float32Array | Int32Array;

/** A tensor in plain memory. */
export interface HostTensor extends Tensor {
  readonly format: "f32" | "i32";
  readonly data: Elements;
}

/** A row-major matrix of floats, (rows, cols). */
export interface Matrix {
  readonly rows: number;
  readonly cols: number;
  readonly data: Float32Array;
}

/** Number of elements of a shape; 1 for the empty shape. */
export function sizeOf(shape: readonly number[]): number {
  let size = 1;
  for (let i = 0; i < shape.length; i++) size *= shape[i];
  return size;
}

export function matrix(
  rows: number,
  cols: number,
  data: Float32Array = new Float32Array(rows * cols),
): Matrix {
  if (data.length !== rows * cols) {
    throw new ShapeError(`matrix: ${rows}×${cols} needs ${rows * cols} values, got ${data.length}`);
  }
  return { rows, cols, data };
}

/** Row r as a view: writing into it writes into the matrix. */
export function row(m: Matrix, r: number): Float32Array {
  return m.data.subarray(r * m.cols, (r + 1) * m.cols);
}

export function hostTensor(shape: readonly number[], data: Elements): HostTensor {
  if (data.length !== sizeOf(shape)) {
    throw new ShapeError(`tensor: ${shape.join("×")} needs ${sizeOf(shape)} values, got ${data.length}`);
  }
  return { shape, format: data instanceof Int32Array ? "i32" : "f32", data };
}

/** Thrown wherever shapes do not fit: `where: what was needed, what was met`. */
export class ShapeError extends Error {
  override readonly name = "ShapeError";
}

/** A format, operation or device that something does not offer; callers may fall back on it. */
export class UnsupportedError extends Error {
  override readonly name = "UnsupportedError";
}

/**
 * Bad input or wrong usage: the command line prints its one line and exits with status 2. Names out of strangers'
 * files stand in it, so control characters are spelled out and the middle of a very long line is left out.
 */
export class InputError extends Error {
  override readonly name = "InputError";
  constructor(message: string) {
    const line = message.replace(/[\p{Cc}\u2028\u2029]/gu, (character) =>
      JSON.stringify(character).slice(1, -1),
    );
    super(line.length > LONGEST_LINE ? `${line.slice(0, 600)} … ${line.slice(-300)}` : line);
  }
}

/** A long path fits; a shape of a million sizes does not. */
const LONGEST_LINE = 2000;
