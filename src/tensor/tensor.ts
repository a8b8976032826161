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

/** (rows, cols) -> (cols, rows), as a copy. */
export function transposed({ rows, cols, data }: Matrix): Matrix {
  const result = matrix(cols, rows);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < cols; c++) result.data[c * rows + r] = data[r * cols + c];
  }
  return result;
}

/** (n, n) */
export function identity(n: number): Matrix {
  const I = matrix(n, n);
  for (let i = 0; i < n; i++) I.data[i * n + i] = 1;
  return I;
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
  constructor(message: string) {
    super(oneLine(message));
  }
}

/** Bad input or wrong usage: the command line prints its one line and exits with status 2. */
export class InputError extends Error {
  override readonly name = "InputError";
  constructor(message: string) {
    super(oneLine(message));
  }
}

/**
 * Names out of strangers' files stand in messages, so control characters are spelled out and the middle of a very long
 * line is left out.
 */
function oneLine(message: string): string {
  // A name of a hundred million characters is not worth looking through.
  const some = message.length > 10_000 ? `${message.slice(0, 5000)}${message.slice(-5000)}` : message;
  const line = some.replace(/[\p{Cc}\u2028\u2029]/gu, spelledOut);
  return line.length > LONGEST_LINE ? `${line.slice(0, 190)} … ${line.slice(-100)}` : line;
}

function spelledOut(character: string): string {
  const short = JSON.stringify(character).slice(1, -1);
  return short === character ? `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}` : short;
}

/** A long name fits; a shape of a million sizes does not. */
const LONGEST_LINE = 300;

/** Puts the name of a file before the words of an InputError or UnsupportedError that work on its content ends with. */
export function naming<T>(file: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (error instanceof InputError) throw new InputError(`${file}: ${error.message}`);
    if (error instanceof UnsupportedError) throw new UnsupportedError(`${file}: ${error.message}`);
    throw error;
  }
}
