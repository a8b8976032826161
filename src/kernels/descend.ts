import { sizeOf, type Tensor } from "../tensor/tensor.ts";
import { gamma, needSize, type Procedure, TINY } from "./kernel.ts";

/**
 * w ← w − rate·(scale·update + decay·w), unless `norm` (1) is infinite or NaN.
 * w and update of one shape.
 */
export const descend: Procedure<
  [w: Tensor, update: Tensor, norm: Tensor, rate: number, scale: number, decay: number]
> = {
  check(w, update, norm) {
    needSize("descend: update", update, sizeOf(w.shape));
    needSize("descend: norm", norm, 1);
  },

  numbers(w, _update, _norm, rate, scale, decay) {
    return [sizeOf(w.shape), rate, scale, decay];
  },

  writes: [0],

  run([w, update, norm], [n, rate, scale, decay]) {
    if (!Number.isFinite(norm.data[0])) return;
    for (let i = 0; i < n; i++) w.data[i] -= rate * (scale * update.data[i] + decay * w.data[i]);
  },

  // The three numbers are rounded, two products, a sum, a product and the difference.
  bound([w, update], _after, [n, rate, scale, decay]) {
    const bounds = new Float64Array(n);
    for (let i = 0; i < n; i++) {
      const step = rate * (Math.abs(scale * update.data[i]) + Math.abs(decay * w.data[i]));
      bounds[i] = gamma(7) * step + gamma(1) * Math.abs(w.data[i]) + 2 * TINY;
    }
    return [bounds];
  },
};
