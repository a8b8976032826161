import { ShapeError, sizeOf, type Tensor } from "../tensor/tensor.ts";
import { gamma, type Kernel, TINY } from "./kernel.ts";

/**
 * The sign of every weight, for weights that are ±1 times something trained.
 *
 *   y = 1 where w ≥ 0, else −1; NaN where w is not finite      any shape
 *   dw = dy                    rule 0: straight through
 *   dw = dy·(1.001 − tanh²w)   rule 1: OneBit
 *
 * Rule 1: Xu et al., 2024 (https://arxiv.org/abs/2402.11295), as its authors
 * train it (https://github.com/xuyuzhuang11/OneBit, models/bitnet.py,
 * SignSTEFunc). Their sign of 0 is 0, which one bit cannot store.
 */
export const sign: Kernel<[w: Tensor, rule: number]> = {
  outputs(w, rule) {
    if (rule !== 0 && rule !== 1) {
      throw new ShapeError(`sign: rule is 0 (straight through) or 1 (OneBit), got ${rule}`);
    }
    return [{ shape: w.shape, format: "f32" }];
  },

  numbers(w, rule) {
    return [sizeOf(w.shape), rule];
  },

  forward([w], [y], [n]) {
    for (let i = 0; i < n; i++) y.data[i] = (w.data[i] < 0 ? -1 : 1) + (w.data[i] - w.data[i]);
  },

  differentiable: [0],

  backward([w], _outputs, dy, [dw], [n, rule]) {
    if (!dw) return;
    for (let i = 0; i < n; i++) {
      dw.data[i] = rule === 0 ? dy.data[i] : dy.data[i] * (1.001 - Math.tanh(w.data[i]) ** 2);
    }
  },

  bound(_inputs, _outputs, [n]) {
    return [new Float64Array(n)];
  },

  // With e = e^2w, whose relative error is EXP_ERROR, tanh w = 1 − 2/(e + 1) is off by at most 2·6u + u, its square by
  // twice that and one rounding; then 1.001, the difference and the product are rounded.
  boundBackward(_inputs, _outputs, dy, [dw], [n, rule]) {
    if (!dw) return [null];
    return [Float64Array.from({ length: n }, (_, i) => rule * (Math.abs(dy.data[i]) * gamma(32) + TINY))];
  },
};
