import type { Tensor } from "../tensor/tensor.ts";
import { gamma, lastOf, needMatrix, type Procedure, rowsOf, TINY } from "./kernel.ts";

/**
 * Adds what the rows of x contribute to the Hessian of a linear layer.
 *
 *   h ← h + factor·xᵀ·x         x (rows, dim), h (dim, dim) symmetric
 *
 * Frantar et al., 2022 (https://arxiv.org/abs/2210.17323), eq. 1: H = 2·X·Xᵀ with their columns as our rows.
 */
export const addGram: Procedure<[h: Tensor, x: Tensor, factor: number]> = {
  check(h, x) {
    needMatrix("addGram: h", h, lastOf(x), lastOf(x));
  },

  numbers(_h, x, factor) {
    return [rowsOf(x), lastOf(x), factor];
  },

  writes: [0],

  run([h, x], [rows, dim, factor]) {
    for (let i = 0; i < dim; i++) {
      for (let j = 0; j < dim; j++) {
        let sum = 0;
        for (let r = 0; r < rows; r++) sum += x.data[r * dim + i] * x.data[r * dim + j];
        h.data[i * dim + j] += factor * sum;
      }
    }
  },

  // A sum of as many products as there are rows; the factor to float32, its product, the sum with h.
  bound([h, x], _after, [rows, dim, factor]) {
    const bounds = new Float64Array(dim * dim);
    for (let i = 0; i < dim; i++) {
      for (let j = 0; j < dim; j++) {
        let sum = 0;
        for (let r = 0; r < rows; r++) sum += Math.abs(x.data[r * dim + i] * x.data[r * dim + j]);
        const at = i * dim + j;
        bounds[at] =
          gamma(rows + 3) * Math.abs(factor) * sum + gamma(rows + 1) * Math.abs(h.data[at]) + rows * TINY;
      }
    }
    return [bounds];
  },
};
