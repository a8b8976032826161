import type { Tensor } from "../tensor/tensor.ts";
import { gamma, type Kernel, lastOf, rowsOf, TINY, UNIT } from "./kernel.ts";

/**
 * Layer normalization without gain and bias, per row.
 *
 *   y = (x − μ)·s,  μ = mean(x),  s = 1/√(mean((x−μ)²) + ε)     x (tokens, dim) -> y (tokens, dim), s (tokens)
 *   dx = s·(dy − mean(dy) − y·mean(y⊙dy))
 *
 * Ba et al., 2016 (https://arxiv.org/abs/1607.06450), section 3.1. Before each linear layer in BitNet (Wang et al.,
 * 2023, https://arxiv.org/abs/2310.11453, eq. 11–12), after each in OneBit (Xu et al., 2024,
 * https://arxiv.org/abs/2402.11295).
 */
export const layerNorm: Kernel<[x: Tensor, epsilon: number]> = {
  outputs(x) {
    return [
      { shape: x.shape, format: "f32" },
      { shape: [rowsOf(x)], format: "f32" },
    ];
  },

  numbers(x, epsilon) {
    return [rowsOf(x), lastOf(x), epsilon];
  },

  forward([x], [y, inverses], [tokens, dim, epsilon]) {
    for (let t = 0; t < tokens; t++) {
      const row = x.data.subarray(t * dim, (t + 1) * dim);
      const { mean, inverse } = momentsOf(row, epsilon);
      inverses.data[t] = inverse;
      for (let i = 0; i < dim; i++) y.data[t * dim + i] = (row[i] - mean) * inverse;
    }
  },

  differentiable: [0],

  backward(_inputs, [y, inverses], dy, [dx], [tokens, dim]) {
    if (!dx) return;
    for (let t = 0; t < tokens; t++) {
      const [from, to] = [t * dim, (t + 1) * dim];
      let [sum, dot] = [0, 0];
      for (let i = from; i < to; i++) {
        sum += dy.data[i];
        dot += y.data[i] * dy.data[i];
      }
      for (let i = from; i < to; i++) {
        dx.data[i] = inverses.data[t] * (dy.data[i] - sum / dim - y.data[i] * (dot / dim));
      }
    }
  },

  // μ is off by at most e = γ_{dim+1}·mean|x|. The mean square of x − μ then is larger by at most e², and has the
  // relative error of its sum; s half of both, and a root and a division. y has e·s, and the errors of x − μ and s.
  bound([x], [y, inverses], [tokens, dim, epsilon]) {
    const bounds = new Float64Array(tokens * dim);
    const forInverses = new Float64Array(tokens);
    for (let t = 0; t < tokens; t++) {
      const row = x.data.subarray(t * dim, (t + 1) * dim);
      const s = momentsOf(row, epsilon).inverse;
      const e = gamma(dim + 1) * (row.reduce((sum, value) => sum + Math.abs(value), 0) / dim);
      const relative = ((e + UNIT * (e + 1 / s)) * s) ** 2 / 2 + gamma((dim + 4) / 2 + 4);
      forInverses[t] = Math.abs(inverses.data[t]) * relative + TINY;
      for (let i = t * dim; i < (t + 1) * dim; i++) {
        bounds[i] = e * s * (1 + relative) + Math.abs(y.data[i]) * (relative + 3 * UNIT) + TINY;
      }
    }
    return [bounds, forInverses];
  },

  // Two means of dim terms, a product and two subtractions, a product.
  boundBackward(_inputs, [y, inverses], dy, [dx], [tokens, dim]) {
    if (!dx) return [null];
    const bounds = new Float64Array(tokens * dim);
    for (let t = 0; t < tokens; t++) {
      const [from, to] = [t * dim, (t + 1) * dim];
      let [sum, dot] = [0, 0];
      for (let i = from; i < to; i++) {
        sum += Math.abs(dy.data[i]);
        dot += Math.abs(y.data[i] * dy.data[i]);
      }
      for (let i = from; i < to; i++) {
        const terms = sum / dim + Math.abs(y.data[i]) * (dot / dim);
        const size = Math.abs(dy.data[i]) * 3 * UNIT + terms * gamma(dim + 6);
        bounds[i] = inverses.data[t] * size + TINY * (1 + inverses.data[t]);
      }
    }
    return [bounds];
  },
};

function momentsOf(x: Float32Array, epsilon: number): { mean: number; inverse: number } {
  let [sum, squares] = [0, 0];
  for (const value of x) sum += value;
  const mean = sum / x.length;
  for (const value of x) squares += (value - mean) ** 2;
  return { mean, inverse: 1 / Math.sqrt(squares / x.length + epsilon) };
}
