import type { Tensor } from "../tensor/tensor.ts";
import { gamma, matrixShape, needWhole, type Procedure, UNIT } from "./kernel.ts";

/** a, b and c of the iteration: the steepest odd quintic at 0 that keeps 0 … 1.2 near 1. */
export const QUINTIC = [3.4445, -4.775, 2.0315] as const;

/**
 * Newton and Schulz's iteration towards the orthogonal factor U·Vᵀ of
 * x = U·S·Vᵀ, in place:
 *
 *   X ← x/‖x‖_F,  then `steps` times  X ← a·X + b·(X·Xᵀ)·X + c·(X·Xᵀ)²·X
 *
 * It moves each singular value by s ← a·s + b·s³ + c·s⁵. These coefficients do
 * not let it settle at 1 but carry it there fast: once above 0.06, one step
 * later in 0.2 … 1.2024, and from 0.68 on always in 0.6818 … 1.1341.
 * x (rows, cols), of zeros: stays.
 *
 * Jordan et al., 2024 (https://kellerjordan.github.io/posts/muon/), where 1e-7 is added to the norm and the products are
 * bf16; Björck & Bowie, 1971, for the iteration.
 */
export const orthogonalize: Procedure<[x: Tensor, steps: number]> = {
  check(x, steps) {
    matrixShape("orthogonalize: x", x);
    needWhole("orthogonalize: steps", steps);
  },

  numbers(x, steps) {
    return [x.shape[0], x.shape[1], steps];
  },

  writes: [0],

  run([x], [rows, cols, steps]) {
    const norm = Math.sqrt(x.data.reduce((sum, value) => sum + value * value, 0));
    if (norm === 0) return;
    let X = Float64Array.from(x.data, (value) => value / norm);
    for (let step = 0; step < steps; step++) X = stepOf(X, rows, cols);
    x.data.set(X);
  },

  // A step with errors dA in X·Xᵀ, dB in the polynomial and dX in the product, and then through the steps that follow,
  // each of which stretches by at most 4: |a + 3b·s² + 5c·s⁴| ≤ 4 for |s| ≤ 1.21, and an odd function of a matrix
  // stretches by no more than its slope. In Frobenius norms, with ‖X‖₂ ≤ 1.21, ‖A‖₂ ≤ 1.47 and ‖B‖₂ ≤ 5.
  bound([x], _after, [rows, cols, steps]) {
    const [small, large] = rows < cols ? [rows, cols] : [cols, rows];
    const [a, b, c] = QUINTIC.map(Math.abs);
    const X = 1.21 * Math.sqrt(small);
    const A = 1.47 * Math.sqrt(small);
    const dA = gamma(large + 2) * X * X;
    const dB = b * dA + c * (2 * 1.47 * dA + gamma(small + 2) * A * A) + gamma(4) * (a + b * A + c * A * A);
    const dX = 1.21 * dB + gamma(small + 2) * 5 * Math.sqrt(small) * X;
    let error = 2 * UNIT;
    for (let step = 0; step < steps; step++) error = 4 * error + dX;
    return [new Float64Array(x.data.length).fill(error)];
  },
};

/** One step on X (rows, cols). */
function stepOf(X: Float64Array, rows: number, cols: number): Float64Array<ArrayBuffer> {
  const [a, b, c] = QUINTIC;
  const XX = product(X, transposed(X, rows, cols), rows, cols, rows);
  const square = product(XX, XX, rows, rows, rows);
  const polynomial = XX.map((value, at) => b * value + c * square[at] + (at % (rows + 1) === 0 ? a : 0));
  return product(polynomial, X, rows, rows, cols);
}

/** x (rows, inner) · y (inner, cols) */
function product(x: Float64Array, y: Float64Array, rows: number, inner: number, cols: number) {
  const result = new Float64Array(rows * cols);
  for (let r = 0; r < rows; r++) {
    for (let k = 0; k < inner; k++) {
      const factor = x[r * inner + k];
      for (let j = 0; j < cols; j++) result[r * cols + j] += factor * y[k * cols + j];
    }
  }
  return result;
}

function transposed(x: Float64Array, rows: number, cols: number): Float64Array {
  const result = new Float64Array(x.length);
  for (let r = 0; r < rows; r++) for (let j = 0; j < cols; j++) result[j * rows + r] = x[r * cols + j];
  return result;
}
