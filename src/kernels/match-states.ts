import { ShapeError, sizeOf, type Tensor } from "../tensor/tensor.ts";
import { gamma, type Kernel, lastOf, rowsOf, TINY, UNIT } from "./kernel.ts";

/**
 * How far the directions of a student's hidden states are from a teacher's, per token.
 *
 *   e = a/‖a‖ − b/‖b‖,  loss = ‖e‖² = 2 − 2·cos(a, b)      a and b (tokens, dim) -> loss (tokens)
 *   da = dloss·2/‖a‖·(e − â·(â·e)),  â = a/‖a‖;  no gradient for b
 *
 * A row whose norm is at most 10⁻¹² counts as 0 and has no gradient.
 *
 * Xu et al., 2024 (https://arxiv.org/abs/2402.11295), the loss of hidden states in section 3.4.
 */
export const matchStates: Kernel<[a: Tensor, b: Tensor]> = {
  outputs(a, b) {
    if (lastOf(a) !== lastOf(b) || sizeOf(a.shape) !== sizeOf(b.shape)) {
      throw new ShapeError(
        `matchStates: b needs the shape of a, ${a.shape.join("×")}, got ${b.shape.join("×")}`,
      );
    }
    return [{ shape: [rowsOf(a)], format: "f32" }];
  },

  numbers(a) {
    return [rowsOf(a), lastOf(a)];
  },

  forward([a, b], [loss], [tokens, dim]) {
    for (let t = 0; t < tokens; t++) {
      const { e } = directions(a.data, b.data, t, dim);
      loss.data[t] = e.reduce((sum, value) => sum + value ** 2, 0);
    }
  },

  differentiable: [0],

  backward([a, b], _outputs, dloss, [da], [tokens, dim]) {
    if (!da) return;
    for (let t = 0; t < tokens; t++) {
      const { own, e, inverse } = directions(a.data, b.data, t, dim);
      const along = own.reduce((sum, value, i) => sum + value * e[i], 0);
      const factor = 2 * inverse * dloss.data[t];
      for (let i = 0; i < dim; i++) da.data[t * dim + i] = factor * (e[i] - own[i] * along);
    }
  },

  // A norm is a root of a sum of dim squares; with 1/‖a‖ and a product, directions have the relative error ρ.
  bound([a, b], _outputs, [tokens, dim]) {
    const bounds = new Float64Array(tokens);
    for (let t = 0; t < tokens; t++) {
      const { own, other, e } = directions(a.data, b.data, t, dim);
      for (let i = 0; i < dim; i++) {
        const error = differenceError(own[i], other[i], e[i], dim);
        bounds[t] += 2 * Math.abs(e[i]) * error + error ** 2 + gamma(dim + 1) * e[i] ** 2 + TINY;
      }
    }
    return [bounds];
  },

  boundBackward([a, b], _outputs, dloss, [da], [tokens, dim]) {
    if (!da) return [null];
    const bounds = new Float64Array(tokens * dim);
    const ρ = relativeError(dim);
    for (let t = 0; t < tokens; t++) {
      const { own, other, e, inverse } = directions(a.data, b.data, t, dim);
      const errors = e.map((value, i) => differenceError(own[i], other[i], value, dim));
      let [along, alongError] = [0, 0];
      for (let i = 0; i < dim; i++) {
        const size = Math.abs(own[i] * e[i]);
        along += own[i] * e[i];
        alongError += Math.abs(own[i]) * errors[i] * (1 + ρ) + size * (ρ + gamma(dim + 1));
      }
      const factor = Math.abs(2 * inverse * dloss.data[t]);
      for (let i = 0; i < dim; i++) {
        const pull = Math.abs(own[i] * along);
        const error = errors[i] + Math.abs(own[i]) * alongError * (1 + ρ) + pull * ρ;
        const rounding = (Math.abs(e[i]) + pull) * (ρ + 6 * UNIT);
        bounds[t * dim + i] = factor * (error * (1 + ρ) + rounding + TINY) + TINY;
      }
    }
    return [bounds];
  },
};

const LEAST_NORM = 1e-12;

/** a/‖a‖, b/‖b‖, their difference, and 1/‖a‖ of a token. */
function directions(a: Float32Array, b: Float32Array, t: number, dim: number) {
  const [[own, inverse], [other]] = [a, b].map((data): [Float64Array, number] => {
    const row = Float64Array.from(data.subarray(t * dim, (t + 1) * dim));
    const norm = Math.sqrt(row.reduce((sum, value) => sum + value ** 2, 0));
    const inverse = norm <= LEAST_NORM ? 0 : 1 / norm;
    return [row.map((value) => value * inverse), inverse];
  });
  return { own, other, inverse, e: own.map((value, i) => value - other[i]) };
}

function relativeError(dim: number): number {
  return gamma((dim + 1) / 2 + 4);
}

/** Of an element of e. */
function differenceError(own: number, other: number, e: number, dim: number): number {
  return (Math.abs(own) + Math.abs(other)) * relativeError(dim) + UNIT * Math.abs(e) + 2 * TINY;
}
