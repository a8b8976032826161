import { GELU, geluArgument, gelu as geluOf, geluSlope, nearGelu } from "../formats/gelu.ts";
import { sizeOf, type Tensor } from "../tensor/tensor.ts";
import { EXP_ERROR, gamma, type Kernel, TINY, UNIT } from "./kernel.ts";

/**
 * The Gaussian error linear unit in the form with a hyperbolic tangent; its formula is in formats/gelu.ts.
 *
 *   y = gelu(x),  dx = dy·gelu′(x)      any shape
 *
 * Hendrycks and Gimpel, 2016 (https://arxiv.org/abs/1606.08415), section 2.
 */
export const gelu: Kernel<[x: Tensor]> = {
  outputs(x) {
    return [{ shape: x.shape, format: "f32" }];
  },

  numbers(x) {
    return [sizeOf(x.shape), ...GELU];
  },

  forward([x], [y], [n]) {
    for (let i = 0; i < n; i++) y.data[i] = geluOf(x.data[i]);
  },

  differentiable: [0],

  backward([x], _outputs, dy, [dx], [n]) {
    for (let i = 0; dx && i < n; i++) dx.data[i] = dy.data[i] * geluSlope(x.data[i]);
  },

  // Where e^(−u) overflows, what is lost is below TINY·|x|.
  bound([x], [y], [n]) {
    return [
      Float64Array.from({ length: n }, (_, i) => {
        return Math.abs(y.data[i]) * (sigmoid(x.data[i]).error + 2 * UNIT) + TINY * (1 + Math.abs(x.data[i]));
      }),
    ];
  },

  // 1−σ has the absolute error of σ and one rounding; the slope of u four, the product of four three, and two more.
  boundBackward([x], _outputs, dy, [dx], [n]) {
    if (!dx) return [null];
    return [
      Float64Array.from({ length: n }, (_, i) => {
        const t = nearGelu(x.data[i]);
        const { σ, error } = sigmoid(t);
        const slope = Math.abs(t) * σ * (GELU[0] + 3 * GELU[1] * t * t);
        const first = σ * (error + gamma(2));
        const second = slope * ((1 - σ) * (error + gamma(9)) + σ * error + 2 * UNIT);
        return Math.abs(dy.data[i]) * (first + second + TINY) + TINY;
      }),
    ];
  },
};

/** σ(u) and how far it may be off, as a share: six roundings of u move it by (1−σ)·|u| of theirs; e^x, a sum, a quotient. */
function sigmoid(x: number): { σ: number; error: number } {
  const u = geluArgument(x);
  const e = Math.exp(-Math.abs(u));
  const left = u < 0 ? 1 / (1 + e) : e / (1 + e); // 1−σ
  const moved = left === 0 ? 0 : left * Math.abs(u);
  return { σ: 1 / (1 + Math.exp(-u)), error: 1.01 * gamma(6) * moved + EXP_ERROR + 3 * UNIT };
}
