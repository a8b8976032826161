import type { Tensor } from "../tensor/tensor.ts";
import { gamma, type Kernel, lastOf, needSize, rowsOf, TINY, UNIT } from "./kernel.ts";

/**
 * One row added to every row: a bias, or an offset for each column.
 *
 *   y_rc = x_rc + v_c             x (rows, cols), v (cols) -> y (rows, cols)
 *   dx = dy,  dv_c = Σ_r dy_rc
 */
export const addRow: Kernel<[x: Tensor, v: Tensor]> = {
  outputs(x, v) {
    needSize("addRow: v", v, lastOf(x));
    return [{ shape: x.shape, format: "f32" }];
  },

  numbers(x) {
    return [rowsOf(x), lastOf(x)];
  },

  forward([x, v], [y], [rows, cols]) {
    for (let at = 0; at < rows * cols; at++) y.data[at] = x.data[at] + v.data[at % cols];
  },

  differentiable: [0, 1],

  backward(_inputs, _outputs, dy, [dx, dv], [rows, cols]) {
    dx?.data.set(dy.data);
    const sums = new Float64Array(cols);
    for (let at = 0; at < rows * cols; at++) sums[at % cols] += dy.data[at];
    dv?.data.set(sums);
  },

  // One rounding.
  bound(_inputs, [y]) {
    return [Float64Array.from(y.data, (value) => Math.abs(value) * UNIT + TINY)];
  },

  // A copy, and a sum of `rows`.
  boundBackward(_inputs, _outputs, dy, [dx, dv], [rows, cols]) {
    const forDv = dv && new Float64Array(cols);
    for (let at = 0; forDv && at < rows * cols; at++) {
      forDv[at % cols] += Math.abs(dy.data[at]) * gamma(rows) + TINY;
    }
    return [dx && new Float64Array(rows * cols), forDv];
  },
};
