import { roundF16 } from "../tensor/half.ts";
import { halfEven } from "../tensor/rounding.ts";
import { sizeOf, type Tensor } from "../tensor/tensor.ts";
import { gamma, type Kernel, UNIT } from "./kernel.ts";

/**
 * A matrix as its ternary one: each weight −γ, 0 or γ, with one scale as a
 * packed file stores it.
 *
 *   γ = f16(ε + mean|w|),  y = γ·round(clip(w/γ, −1, 1))     w any shape -> y same shape, γ (1)
 *   dw = dy  (straight through)
 *
 * Ma et al., 2024 (https://arxiv.org/abs/2402.17764), eq. 1–3, and Kaushal et
 * al., 2024 (https://arxiv.org/abs/2407.12327), section 3.1, with γ rounded to
 * half precision here. Ties of the rounding go to even: ±½ to 0.
 */
export const ternary: Kernel<[w: Tensor, epsilon: number]> = {
  outputs(w) {
    return [
      { shape: w.shape, format: "f32" },
      { shape: [1], format: "f32" },
    ];
  },

  numbers(w, epsilon) {
    return [sizeOf(w.shape), epsilon];
  },

  forward([w], [y, scale], [n, epsilon]) {
    const γ = roundF16(Math.fround(epsilon + meanMagnitude(w.data, n)));
    for (let i = 0; i < n; i++) y.data[i] = γ * halfEven(clip(w.data[i] / γ));
    scale.data[0] = γ;
  },

  differentiable: [0],

  backward(_inputs, _outputs, dy, [dw]) {
    dw?.data.set(dy.data);
  },

  // Exact except where rounding decides: γ when ε + mean|w| is within its error of the middle between two
  // half-precision numbers, a weight when |w/γ| is within that relative error of ½.
  bound([w], [, scale], [n, epsilon]) {
    const exact = epsilon + meanMagnitude(w.data, n);
    const error = gamma(n + 3);
    const step = Math.abs(roundF16(exact * (1 + error)) - roundF16(exact * (1 - error)));
    const γ = scale.data[0];
    const near = step / γ + 3 * UNIT;
    const bounds = new Float64Array(n);
    for (let i = 0; i < n; i++) {
      bounds[i] = Math.abs(Math.abs(w.data[i] / γ) - 0.5) <= near ? γ + step : step;
    }
    return [bounds, Float64Array.of(step)];
  },

  // A copy.
  boundBackward(_inputs, _outputs, _dy, [dw], [n]) {
    return [dw && new Float64Array(n)];
  },
};

/** mean|w|; 0 of nothing. */
function meanMagnitude(w: Float32Array, n: number): number {
  let sum = 0;
  for (let i = 0; i < n; i++) sum += Math.abs(w[i]);
  return n === 0 ? 0 : sum / n;
}

function clip(x: number): number {
  return Math.max(-1, Math.min(1, x));
}
