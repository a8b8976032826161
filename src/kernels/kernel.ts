import { ShapeError, sizeOf, type Tensor } from "../tensor/tensor.ts";
import type { Parts } from "../tensor/weight.ts";

/** What an operation makes: shape and element type of one output. */
export interface Output {
  readonly shape: readonly number[];
  readonly format: "f32" | "i32";
}

/**
 * What the plain reference computes on. `data` are the elements of an f32
 * tensor, `ids` those of an i32 tensor; the other one is empty, and of a packed
 * matrix both are. `decode` gives the floats of a packed matrix, row-major, and
 * `data` itself of an f32 tensor.
 */
export interface View {
  readonly shape: readonly number[];
  readonly format: string;
  readonly data: Float32Array;
  readonly ids: Int32Array;
  /** Stored arrays of a packed matrix; a cache's are written into. */
  readonly parts?: Parts;
  decode(): Float32Array;
  /**
   * |value − value of code 0| + |value of code 0| of every weight: what is added up where a kernel multiplies by
   * codes and applies scale and offset to the sums. The absolute values themselves of floats.
   */
  magnitudes(): Float32Array;
}

/**
 * One differentiable operation; its stem is its definition. `.ts` is the plain
 * reference, which accumulates in 64 bits; `.cpp` is tested against it.
 *
 * Arguments are tensors first, then plain numbers. All functions get the
 * tensors as `inputs`, in order, and the rest through `numbers`. A kernel may
 * have more than one output: the first is the result, the others are kept for
 * its backward pass.
 */
export interface Kernel<Arguments extends readonly unknown[] = readonly unknown[]> {
  /** Checks the arguments (ShapeError) and says what comes out. */
  outputs(...args: Arguments): readonly Output[];
  /** Every number the C++ needs, sizes included, in the order in which it reads them. */
  numbers(...args: Arguments): readonly number[];
  /** Writes the outputs. */
  forward(inputs: readonly View[], outputs: readonly View[], numbers: readonly number[]): void;
  /** Position of the input that may be a matrix in a packed format; all others are plain f32. */
  readonly packed?: number;
  /** Positions of the inputs that may be the keys or values of a cache, in a format of `isCacheFormat`. */
  readonly caches?: readonly number[];
  /** Position of the input that holds whole numbers (i32). */
  readonly ids?: number;
  /**
   * Which inputs can have a gradient, by position. A packed weight never has
   * one, and the tape asks only for those that lead to a parameter.
   */
  readonly differentiable: readonly number[];
  /**
   * Writes (not adds) the gradients of the inputs that `gradients` holds;
   * null where none is wanted. `outputs` are those of the forward pass.
   */
  backward(
    inputs: readonly View[],
    outputs: readonly View[],
    dy: View,
    gradients: readonly (View | null)[],
    numbers: readonly number[],
  ): void;
  /**
   * How far a float32 implementation of `forward` may be from the exact result
   * for the given float32 inputs: one bound per element of each output,
   * derived from the arithmetic (γₙ = n·2⁻²⁴/(1−n·2⁻²⁴) for n roundings in any order).
   */
  bound(
    inputs: readonly View[],
    outputs: readonly View[],
    numbers: readonly number[],
  ): readonly Float64Array[];
  /** The same for each gradient that `backward` writes; null where none is wanted. */
  boundBackward(
    inputs: readonly View[],
    outputs: readonly View[],
    dy: View,
    gradients: readonly (View | null)[],
    numbers: readonly number[],
  ): readonly (Float64Array | null)[];
}

/**
 * One operation that changes tensors in place or only measures: an optimizer
 * step, a cache append, a factorization. It has no gradient.
 */
export interface Procedure<Arguments extends readonly unknown[] = readonly unknown[]> {
  /** Checks the arguments (ShapeError). */
  check(...args: Arguments): void;
  /** Every number the C++ needs, sizes included, in the order in which it reads them. */
  numbers(...args: Arguments): readonly number[];
  /** Positions of the tensors that are written. */
  readonly writes: readonly number[];
  /** Positions of the tensors that hold whole numbers (i32); all others are f32. */
  readonly integers?: readonly number[];
  /** Positions of the tensors that may be a cache, in a format of `isCacheFormat`. */
  readonly caches?: readonly number[];
  /** The plain reference. */
  run(tensors: readonly View[], numbers: readonly number[]): void;
  /**
   * How far float32 implementations may be from the exact result: for each
   * tensor in `writes`, in order, one bound per element, from the tensors as
   * they were before and as the reference leaves them. A factorization has no
   * such bound, as its error depends on the matrix's condition; it is judged
   * by the equation that its result must satisfy.
   */
  bound?(
    before: readonly View[],
    after: readonly View[],
    numbers: readonly number[],
  ): readonly Float64Array[];
}

/** Half the distance between 1 and the next float32: the largest relative error of one rounding. */
export const UNIT = 2 ** -24;

/** The smallest normal float32: what a result may lose when denormals are flushed to zero. */
export const TINY = 2 ** -126;

/** Largest relative error of e^x in simd.h: 1.2 units in the last place, a unit being at most 2·2⁻²⁴. */
export const EXP_ERROR = 3 * UNIT;

/** γₙ: the largest relative error of n roundings in a row (Higham, Accuracy and Stability of Numerical Algorithms, 2002, eq. 3.1). */
export function gamma(n: number): number {
  return (n * UNIT) / (1 - n * UNIT);
}

/** The tensors of an argument list, in order. */
export function tensorsIn(args: readonly unknown[]): Tensor[] {
  return args.filter(isTensor);
}

export function isTensor(value: unknown): value is Tensor {
  return typeof value === "object" && value !== null && "shape" in value && "format" in value;
}

/** Length of a tensor's last axis; a scalar counts as one row of one element. */
export function lastOf(t: Tensor): number {
  return t.shape.length === 0 ? 1 : t.shape[t.shape.length - 1];
}

/** Number of rows when all axes but the last are counted as one. */
export function rowsOf(t: Tensor): number {
  let rows = 1;
  for (let i = 0; i < t.shape.length - 1; i++) rows *= t.shape[i];
  return rows;
}

/** Throws a ShapeError unless t has `size` elements. */
export function needSize(where: string, t: Tensor, size: number): void {
  if (sizeOf(t.shape) !== size) {
    throw new ShapeError(`${where} needs ${size} values, got ${t.shape.join("×")}`);
  }
}

/** How many images of so many values a tensor holds; a ShapeError where the last is not whole. */
export function imagesOf(where: string, x: Tensor, size: number): number {
  const images = sizeOf(x.shape) / size;
  if (Number.isInteger(images)) return images;
  throw new ShapeError(`${where}: x ${x.shape.join("×")} does not hold whole images of ${size} values`);
}

/** Throws a ShapeError unless all are sizes, and the kernel odd. */
export function needAround(
  where: string,
  sizes: { readonly [name: string]: number; readonly kernel: number },
): void {
  for (const [name, size] of Object.entries(sizes)) needWhole(`${where}: ${name}`, size, 1);
  if (sizes.kernel % 2 === 0) throw new ShapeError(`${where}: kernel ${sizes.kernel} is not odd`);
}

/** Throws a ShapeError unless t is a matrix of (rows, cols). */
export function needMatrix(where: string, t: Tensor, rows: number, cols: number): void {
  if (t.shape.length !== 2 || t.shape[0] !== rows || t.shape[1] !== cols) {
    throw new ShapeError(`${where} needs ${rows}×${cols}, got ${t.shape.join("×")}`);
  }
}

/** Throws a ShapeError unless t is a matrix; gives it back as [rows, cols]. */
export function matrixShape(where: string, t: Tensor): readonly [rows: number, cols: number] {
  if (t.shape.length !== 2) throw new ShapeError(`${where} needs a matrix, got shape ${t.shape.join("×")}`);
  return t.shape as readonly [number, number];
}

/** Throws a ShapeError unless a size or place is a whole number from `least` on: what C++ would divide or count by. */
export function needWhole(where: string, value: number, least = 0): void {
  if (!(Number.isInteger(value) && value >= least)) {
    throw new ShapeError(`${where} needs to be a whole number from ${least} on, got ${value}`);
  }
}

/** Throws a ShapeError unless t's elements are of that type. */
export function needFormat(where: string, t: Tensor, format: "f32" | "i32"): void {
  if (t.format !== format) throw new ShapeError(`${where} needs ${format} elements, got ${t.format}`);
}
