import type { Tensor } from "../tensor/tensor.ts";
import { gamma, type Kernel, lastOf, needSize, rowsOf, TINY } from "./kernel.ts";

/**
 * Every column times a number of its own: x·diag(v).
 *
 *   y_rc = x_rc·v_c                          x (rows, cols), v (cols) -> y (rows, cols)
 *   dx_rc = dy_rc·v_c,  dv_c = Σ_r dy_rc·x_rc
 */
export const scaleColumns: Kernel<[x: Tensor, v: Tensor]> = {
  outputs(x, v) {
    needSize("scaleColumns: v", v, lastOf(x));
    return [{ shape: x.shape, format: "f32" }];
  },

  numbers(x) {
    return [rowsOf(x), lastOf(x)];
  },

  forward([x, v], [y], [rows, cols]) {
    for (let at = 0; at < rows * cols; at++) y.data[at] = x.data[at] * v.data[at % cols];
  },

  differentiable: [0, 1],

  backward([x, v], _outputs, dy, [dx, dv], [rows, cols]) {
    const sums = new Float64Array(cols);
    for (let at = 0; at < rows * cols; at++) {
      if (dx) dx.data[at] = dy.data[at] * v.data[at % cols];
      sums[at % cols] += dy.data[at] * x.data[at];
    }
    dv?.data.set(sums);
  },

  // One rounding.
  bound(_inputs, [y]) {
    return [Float64Array.from(y.data, (value) => Math.abs(value) * gamma(1) + TINY)];
  },

  // One rounding, and a sum of `rows` products.
  boundBackward([x, v], _outputs, dy, [dx, dv], [rows, cols]) {
    const forDx = dx && new Float64Array(rows * cols);
    const forDv = dv && new Float64Array(cols);
    for (let at = 0; at < rows * cols; at++) {
      const c = at % cols;
      if (forDx) forDx[at] = Math.abs(dy.data[at] * v.data[c]) * gamma(1) + TINY;
      if (forDv) forDv[c] += Math.abs(dy.data[at] * x.data[at]) * gamma(rows) + TINY;
    }
    return [forDx, forDv];
  },
};
