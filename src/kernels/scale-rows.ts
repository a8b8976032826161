import type { Tensor } from "../tensor/tensor.ts";
import { gamma, type Kernel, lastOf, needSize, rowsOf, TINY } from "./kernel.ts";

/**
 * Every row times a number of its own: diag(v)·x.
 *
 *   y_rc = v_r·x_rc                          x (rows, cols), v (rows) -> y (rows, cols)
 *   dx_rc = v_r·dy_rc,  dv_r = Σ_c dy_rc·x_rc
 */
export const scaleRows: Kernel<[x: Tensor, v: Tensor]> = {
  outputs(x, v) {
    needSize("scaleRows: v", v, rowsOf(x));
    return [{ shape: x.shape, format: "f32" }];
  },

  numbers(x) {
    return [rowsOf(x), lastOf(x)];
  },

  forward([x, v], [y], [rows, cols]) {
    for (let at = 0; at < rows * cols; at++) y.data[at] = v.data[Math.floor(at / cols)] * x.data[at];
  },

  differentiable: [0, 1],

  backward([x, v], _outputs, dy, [dx, dv], [rows, cols]) {
    for (let r = 0; r < rows; r++) {
      let sum = 0;
      for (let at = r * cols; at < (r + 1) * cols; at++) {
        sum += dy.data[at] * x.data[at];
        if (dx) dx.data[at] = v.data[r] * dy.data[at];
      }
      if (dv) dv.data[r] = sum;
    }
  },

  // One rounding.
  bound(_inputs, [y]) {
    return [Float64Array.from(y.data, (value) => Math.abs(value) * gamma(1) + TINY)];
  },

  // One rounding, and a sum of `cols` products.
  boundBackward([x, v], _outputs, dy, [dx, dv], [rows, cols]) {
    const forDx = dx && new Float64Array(rows * cols);
    const forDv = dv && new Float64Array(rows);
    for (let at = 0; at < rows * cols; at++) {
      const r = Math.floor(at / cols);
      if (forDx) forDx[at] = Math.abs(v.data[r] * dy.data[at]) * gamma(1) + TINY;
      if (forDv) forDv[r] += Math.abs(dy.data[at] * x.data[at]) * gamma(cols) + TINY;
    }
    return [forDx, forDv];
  },
};
