import { ShapeError, type Tensor } from "../tensor/tensor.ts";
import { gamma, matrixShape, needMatrix, needWhole, type Procedure, TINY } from "./kernel.ts";

/**
 * Spreads the quantization errors of columns fromJ … toJ−1 over columns
 * fromK … toK−1, all transposed so that a column of weights is a row here.
 *
 *   w[k] ← w[k] − Σ_{j=fromJ}^{toJ−1} u[j, k]·errors[j]     w and errors (cols, rows), u (cols, cols) upper
 *
 * Frantar et al., 2022 (https://arxiv.org/abs/2210.17323), algorithm 1, the updates inside and after a block.
 */
export const gptqUpdate: Procedure<
  [w: Tensor, errors: Tensor, u: Tensor, fromJ: number, toJ: number, fromK: number, toK: number]
> = {
  check(w, errors, u, fromJ, toJ, fromK, toK) {
    const [cols, rows] = matrixShape("gptqUpdate: w", w);
    needMatrix("gptqUpdate: errors", errors, cols, rows);
    needMatrix("gptqUpdate: u", u, cols, cols);
    for (const [from, to] of [
      [fromJ, toJ],
      [fromK, toK],
    ]) {
      needWhole("gptqUpdate: from", from);
      needWhole("gptqUpdate: to", to);
      if (!(from <= to && to <= cols)) {
        throw new ShapeError(`gptqUpdate: columns ${from} … ${to} are not in 0 … ${cols}`);
      }
    }
  },

  numbers(w, _errors, _u, fromJ, toJ, fromK, toK) {
    return [w.shape[0], w.shape[1], fromJ, toJ, fromK, toK];
  },

  writes: [0],

  run([w, errors, u], [cols, rows, fromJ, toJ, fromK, toK]) {
    for (let k = fromK; k < toK; k++) {
      const sums = new Float64Array(rows);
      for (let j = fromJ; j < toJ; j++) {
        const factor = u.data[j * cols + k];
        for (let r = 0; r < rows; r++) sums[r] += factor * errors.data[j * rows + r];
      }
      for (let r = 0; r < rows; r++) w.data[k * rows + r] -= sums[r];
    }
  },

  // A sum of toJ−fromJ products and w.
  bound([w, errors, u], _after, [cols, rows, fromJ, toJ, fromK, toK]) {
    const bounds = new Float64Array(cols * rows);
    const relative = gamma(toJ - fromJ + 1);
    for (let k = fromK; k < toK; k++) {
      for (let r = 0; r < rows; r++) {
        let sum = Math.abs(w.data[k * rows + r]);
        for (let j = fromJ; j < toJ; j++) sum += Math.abs(u.data[j * cols + k] * errors.data[j * rows + r]);
        bounds[k * rows + r] = relative * sum + TINY * (toJ - fromJ + 1);
      }
    }
    return [bounds];
  },
};
