import { roundF16 } from "../tensor/half.ts";
import { sizeOf, type Tensor } from "../tensor/tensor.ts";
import { gamma, type Kernel } from "./kernel.ts";

/**
 * A matrix as its binary one: each weight −α or α, with one scale as a packed
 * file stores it.
 *
 *   α = f16(mean|w|),  μ = f32(mean w),  y = α·sign(w − μ), sign(0) = 1     w any shape -> y same shape, α (1)
 *   dw = dy  (straight through)
 *
 * Wang et al., 2023 (https://arxiv.org/abs/2310.11453), eq. 1–3, with its β as
 * the scale of the weight, as Kaushal et al., 2024 (https://arxiv.org/abs/2407.12327),
 * table 1, have it; α is rounded to half precision here.
 */
export const binary: Kernel<[w: Tensor]> = {
  outputs(w) {
    return [
      { shape: w.shape, format: "f32" },
      { shape: [1], format: "f32" },
    ];
  },

  numbers(w) {
    return [sizeOf(w.shape)];
  },

  forward([w], [y, scale], [n]) {
    const { mean, magnitude } = means(w.data, n);
    const α = roundF16(Math.fround(magnitude));
    const μ = Math.fround(mean);
    for (let i = 0; i < n; i++) y.data[i] = w.data[i] < μ ? -α : α;
    scale.data[0] = α;
  },

  differentiable: [0],

  backward(_inputs, _outputs, dy, [dw]) {
    dw?.data.set(dy.data);
  },

  // Exact except where rounding decides: α when mean|w| is within its error of the middle between two half-precision
  // numbers, a sign when w is within the error of the mean.
  bound([w], [, scale], [n]) {
    const { mean, magnitude } = means(w.data, n);
    const error = gamma(n + 2);
    const step = Math.abs(roundF16(magnitude * (1 + error)) - roundF16(magnitude * (1 - error)));
    const bounds = new Float64Array(n);
    for (let i = 0; i < n; i++) {
      bounds[i] = Math.abs(w.data[i] - mean) <= error * magnitude ? 2 * scale.data[0] + step : step;
    }
    return [bounds, Float64Array.of(step)];
  },

  // A copy.
  boundBackward(_inputs, _outputs, _dy, [dw], [n]) {
    return [dw && new Float64Array(n)];
  },
};

/** mean w and mean|w|; 0 of nothing. */
function means(w: Float32Array, n: number): { mean: number; magnitude: number } {
  let [sum, absolute] = [0, 0];
  for (let i = 0; i < n; i++) {
    sum += w[i];
    absolute += Math.abs(w[i]);
  }
  return n === 0 ? { mean: 0, magnitude: 0 } : { mean: sum / n, magnitude: absolute / n };
}
