import { ShapeError, type Tensor } from "../tensor/tensor.ts";
import { matrixShape, needMatrix, needSize, needWhole, type Procedure } from "./kernel.ts";

/**
 * Cholesky factorization A = L·Lᵀ of a symmetric positive definite matrix,
 * columns from … to−1 of L in this call: from = 0 first, then in order, so
 * that long work can be cut into slices. Cost O(n³/3).
 *
 *   l_jj = √(a_jj − Σ_{k<j} l_jk²),  l_ij = (a_ij − Σ_{k<j} l_ik·l_jk)/l_jj  for i > j
 *
 * a (n, n): reads the lower part, leaves L there; the strict upper part is 0
 * when to = n. status (2): [1 + row of the first pivot ≤ 0 or NaN, that pivot],
 * zeros while all is well; after a failure the rest is left undone.
 *
 * Golub & Van Loan, Matrix Computations, 2013, algorithm 4.2.1.
 */
export const cholesky: Procedure<[a: Tensor, status: Tensor, from: number, to: number]> = {
  check(a, status, from, to) {
    const [n] = matrixShape("cholesky: a", a);
    needMatrix("cholesky: a", a, n, n);
    needSize("cholesky: status", status, 2);
    needWhole("cholesky: from", from);
    needWhole("cholesky: to", to);
    if (!(from <= to && to <= n)) {
      throw new ShapeError(`cholesky: columns ${from} … ${to} are not in 0 … ${n}`);
    }
  },

  numbers(a, _status, from, to) {
    return [a.shape[0], from, to];
  },

  writes: [0, 1],

  run([{ data: a }, { data: status }], [n, from, to]) {
    if (from === 0) status.fill(0);
    if (status[0] !== 0) return;
    for (let j = from; j < to; j++) {
      const pivot = a[j * n + j] - partialDot(a, j * n, j * n, j);
      if (!(pivot > 0)) {
        status[0] = 1 + j;
        status[1] = pivot;
        return;
      }
      const diagonal = Math.sqrt(pivot);
      a[j * n + j] = diagonal;
      for (let i = j + 1; i < n; i++) {
        a[i * n + j] = (a[i * n + j] - partialDot(a, i * n, j * n, j)) / diagonal;
      }
    }
    if (to === n) {
      for (let i = 0; i < n; i++) a.fill(0, i * n + i + 1, (i + 1) * n);
    }
  },
};

/** Dot product of the first `length` elements of the rows that begin at `first` and `second`. */
function partialDot(a: Float32Array, first: number, second: number, length: number): number {
  let sum = 0;
  for (let k = 0; k < length; k++) sum += a[first + k] * a[second + k];
  return sum;
}
