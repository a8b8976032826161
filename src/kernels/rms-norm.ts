import type { Tensor } from "../tensor/tensor.ts";
import { gamma, type Kernel, lastOf, needSize, rowsOf, TINY } from "./kernel.ts";

/**
 * Root-mean-square normalization with a learned gain, per row.
 *
 *   y = x/r ⊙ g,  r = √(mean(x²) + ε)            x (tokens, dim), g (dim) -> y (tokens, dim)
 *   dx = (g⊙dy − x·mean(x⊙g⊙dy)/r²)/r,  dg = Σ_tokens dy⊙x/r
 *
 * Zhang & Sennrich, 2019 (https://arxiv.org/abs/1910.07467), eq. 4.
 */
export const rmsNorm: Kernel<[x: Tensor, gain: Tensor, epsilon: number]> = {
  outputs(x, gain) {
    needSize("rmsNorm: gain", gain, lastOf(x));
    return [{ shape: x.shape, format: "f32" }];
  },

  numbers(x, _gain, epsilon) {
    return [rowsOf(x), lastOf(x), epsilon];
  },

  forward([x, gain], [y], [tokens, dim, epsilon]) {
    for (let t = 0; t < tokens; t++) {
      const inverse = 1 / rootMeanSquare(x.data, t * dim, dim, epsilon);
      for (let i = 0; i < dim; i++) y.data[t * dim + i] = x.data[t * dim + i] * inverse * gain.data[i];
    }
  },

  differentiable: [0, 1],

  backward([x, gain], _, dy, [dx, dgain], [tokens, dim, epsilon]) {
    const sums = new Float64Array(dim);
    for (let t = 0; t < tokens; t++) {
      const inverse = 1 / rootMeanSquare(x.data, t * dim, dim, epsilon);
      let dot = 0; // Σ x⊙g⊙dy
      for (let i = 0; i < dim; i++) dot += x.data[t * dim + i] * gain.data[i] * dy.data[t * dim + i];
      const pull = (dot / dim) * inverse * inverse;
      for (let i = 0; i < dim; i++) {
        const at = t * dim + i;
        if (dx) dx.data[at] = (gain.data[i] * dy.data[at] - x.data[at] * pull) * inverse;
        sums[i] += dy.data[at] * x.data[at] * inverse;
      }
    }
    if (dgain) dgain.data.set(sums);
  },

  // r² is a sum of dim squares: relative error γ_{dim+2}, halved by the root; then 1/r and two products.
  bound(_, [y], [, dim]) {
    const relative = gamma((dim + 2) / 2 + 5);
    return [Float64Array.from(y.data, (value) => Math.abs(value) * relative + TINY)];
  },

  boundBackward([x, gain], _, dy, [dx, dgain], [tokens, dim, epsilon]) {
    const forDx = dx && new Float64Array(tokens * dim);
    const forDgain = dgain && new Float64Array(dim);
    const relative = gamma((dim + 2) / 2 + 5);
    for (let t = 0; t < tokens; t++) {
      const inverse = 1 / rootMeanSquare(x.data, t * dim, dim, epsilon);
      let absolute = 0;
      for (let i = 0; i < dim; i++) {
        absolute += Math.abs(x.data[t * dim + i] * gain.data[i] * dy.data[t * dim + i]);
      }
      const pull = (absolute / dim) * inverse * inverse;
      for (let i = 0; i < dim; i++) {
        const at = t * dim + i;
        const parts = Math.abs(gain.data[i] * dy.data[at]) + Math.abs(x.data[at]) * pull;
        if (forDx) forDx[at] = parts * inverse * (3 * relative + gamma(dim + 4)) + TINY;
        if (forDgain)
          forDgain[i] += Math.abs(dy.data[at] * x.data[at]) * inverse * (relative + gamma(tokens + 2)) + TINY;
      }
    }
    return [forDx, forDgain];
  },
};

function rootMeanSquare(x: Float32Array, from: number, dim: number, epsilon: number): number {
  let sum = 0;
  for (let i = from; i < from + dim; i++) sum += x[i] * x[i];
  return Math.sqrt(sum / dim + epsilon);
}
