import { ShapeError, type Tensor } from "../tensor/tensor.ts";
import { matrixShape, needMatrix, needWhole, type Procedure } from "./kernel.ts";

/**
 * Solves L·X = B, or Lᵀ·X = B when transposed is 1, in place, for columns
 * from … to−1 of B. Cost O(n²) per column.
 *
 *   l (n, n) lower triangular, b (n, m)
 *   x_i = (b_i − Σ_{k<i} l_ik·x_k)/l_ii downwards;  x_i = (b_i − Σ_{k>i} l_ki·x_k)/l_ii upwards
 *
 * Golub & Van Loan, Matrix Computations, 2013, algorithms 3.1.1 and 3.1.2.
 */
export const triangularSolve: Procedure<
  [l: Tensor, b: Tensor, transposed: number, from: number, to: number]
> = {
  check(l, b, _transposed, from, to) {
    const [n, m] = matrixShape("triangularSolve: b", b);
    needMatrix("triangularSolve: l", l, n, n);
    needWhole("triangularSolve: from", from);
    needWhole("triangularSolve: to", to);
    if (!(from <= to && to <= m)) {
      throw new ShapeError(`triangularSolve: columns ${from} … ${to} are not in 0 … ${m}`);
    }
  },

  numbers(_l, b, transposed, from, to) {
    return [b.shape[0], b.shape[1], transposed, from, to];
  },

  writes: [1],

  run([{ data: l }, { data: b }], [n, m, transposed, from, to]) {
    for (let c = from; c < to; c++) {
      for (let step = 0; step < n; step++) {
        const i = transposed ? n - 1 - step : step;
        let sum = b[i * m + c];
        if (transposed) for (let k = i + 1; k < n; k++) sum -= l[k * n + i] * b[k * m + c];
        else for (let k = 0; k < i; k++) sum -= l[i * n + k] * b[k * m + c];
        b[i * m + c] = sum / l[i * n + i];
      }
    }
  },
};
