import type { Matrix } from "../tensor/tensor.ts";

/** Relative change of the singular value below which the iteration ends, and the most rounds it takes. */
const TOLERANCE = 1e-12;
const ROUNDS = 300;

/**
 * The best approximation of rank one, A ≈ left·rightᵀ with |left| = |right|:
 * √σ times the first singular vectors. Of a matrix without negative numbers
 * neither vector has one (Perron and Frobenius), so it is the best
 * non-negative factorization too. Power iteration in 64 bits from the sums of
 * the rows of A; all zeros give zeros.
 */
export function rankOne({ rows, cols, data }: Matrix): { left: Float32Array; right: Float32Array } {
  const left = new Float64Array(rows);
  const right = new Float64Array(cols).fill(1);
  let sigma = 0;
  for (let round = 0; round < ROUNDS; round++) {
    normalize(right);
    for (let r = 0; r < rows; r++) {
      let sum = 0;
      for (let c = 0; c < cols; c++) sum += data[r * cols + c] * right[c];
      left[r] = sum;
    }
    const before = sigma;
    sigma = normalize(left);
    right.fill(0);
    for (let r = 0; r < rows; r++) {
      for (let c = 0; c < cols; c++) right[c] += data[r * cols + c] * left[r];
    }
    if (Math.abs(sigma - before) <= TOLERANCE * sigma) break;
  }
  sigma = normalize(right);
  const root = Math.sqrt(sigma);
  return { left: Float32Array.from(left, (x) => root * x), right: Float32Array.from(right, (x) => root * x) };
}

/** Makes a vector one of length 1, unless it is 0; gives its length before. */
function normalize(v: Float64Array): number {
  let square = 0;
  for (let i = 0; i < v.length; i++) square += v[i] * v[i];
  const length = Math.sqrt(square);
  if (length > 0) for (let i = 0; i < v.length; i++) v[i] /= length;
  return length;
}
