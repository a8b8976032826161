import { roundF16 } from "../tensor/half.ts";
import { halfEven } from "../tensor/rounding.ts";
import { ShapeError, sizeOf, type Tensor } from "../tensor/tensor.ts";
import { gamma, type Kernel, UNIT } from "./kernel.ts";

/**
 * A matrix as its ternary one: each weight −γ, 0 or γ, with one scale as a
 * packed file stores it.
 *
 *   γ = f16(ε + mean|w|)          statistic 0, the default
 *   γ = f16(max(ε, median|w|))    statistic 1; of an even number of weights the lower of the two in the middle
 *   y = γ·round(clip(w/γ, −1, 1))     w any shape -> y same shape, γ (1)
 *   dw = dy  (straight through)
 *
 * Ma et al., 2024 (https://arxiv.org/abs/2402.17764), eq. 1–3, and Kaushal et
 * al., 2024 (https://arxiv.org/abs/2407.12327), section 3.1; the median is that
 * of Nielsen and Schneider-Kamp, 2024 (https://arxiv.org/abs/2407.09527), whose
 * code clamps at ε and takes torch.median
 * (https://github.com/schneiderkamplab/bitlinear, measures.py). γ is rounded to
 * half precision here. Ties of the rounding go to even: ±½ to 0.
 */
export const ternary: Kernel<[w: Tensor, epsilon: number, statistic?: number]> = {
  outputs(w, _epsilon, statistic = 0) {
    if (statistic !== 0 && statistic !== 1) {
      throw new ShapeError(`ternary: statistic is 0 (mean) or 1 (median), got ${statistic}`);
    }
    return [
      { shape: w.shape, format: "f32" },
      { shape: [1], format: "f32" },
    ];
  },

  numbers(w, epsilon, statistic = 0) {
    return [sizeOf(w.shape), epsilon, statistic];
  },

  forward([w], [y, scale], [n, epsilon, statistic]) {
    const γ = roundF16(Math.fround(magnitude(w.data, n, epsilon, statistic)));
    for (let i = 0; i < n; i++) y.data[i] = γ * halfEven(clip(w.data[i] / γ));
    scale.data[0] = γ;
  },

  differentiable: [0],

  backward(_inputs, _outputs, dy, [dw]) {
    dw?.data.set(dy.data);
  },

  // Exact except where rounding decides: γ when ε + mean|w| is within its error of the middle between two
  // half-precision numbers, a weight when |w/γ| is within that relative error of ½. The median is found exactly.
  bound([w], [, scale], [n, epsilon, statistic]) {
    const exact = magnitude(w.data, n, epsilon, statistic);
    const error = statistic === 0 ? gamma(n + 3) : 0;
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

/** γ before it is rounded. */
function magnitude(w: Float32Array, n: number, epsilon: number, statistic: number): number {
  return statistic === 0 ? epsilon + meanMagnitude(w, n) : Math.max(epsilon, medianMagnitude(w, n));
}

/** mean|w|; 0 of nothing. */
function meanMagnitude(w: Float32Array, n: number): number {
  let sum = 0;
  for (let i = 0; i < n; i++) sum += Math.abs(w[i]);
  return n === 0 ? 0 : sum / n;
}

/** The element at (n−1)/2 of |w| in ascending order; NaN where there is one, 0 of nothing. */
function medianMagnitude(w: Float32Array, n: number): number {
  const sorted = w.map(Math.abs).sort(); // NaN last
  if (n === 0) return 0;
  return Number.isNaN(sorted[n - 1]) ? Number.NaN : sorted[(n - 1) >> 1];
}

function clip(x: number): number {
  return Math.max(-1, Math.min(1, x));
}
