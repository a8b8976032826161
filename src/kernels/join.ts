import { ShapeError, type Tensor } from "../tensor/tensor.ts";
import { type Kernel, lastOf, rowsOf } from "./kernel.ts";

/**
 * Two matrices side by side.
 *
 *   y_r = (a_r, b_r)                          a (rows, m), b (rows, n) -> y (rows, m + n)
 *   da, db are their columns of dy
 */
export const join: Kernel<[a: Tensor, b: Tensor]> = {
  outputs(a, b) {
    if (rowsOf(a) !== rowsOf(b))
      throw new ShapeError(`join: needs as many rows, got ${a.shape.join("×")} and ${b.shape.join("×")}`);
    return [{ shape: [...a.shape.slice(0, -1), lastOf(a) + lastOf(b)], format: "f32" }];
  },

  numbers(a, b) {
    return [rowsOf(a), lastOf(a), lastOf(b)];
  },

  forward([a, b], [y], [rows, m, n]) {
    for (let r = 0; r < rows; r++) {
      y.data.set(a.data.subarray(r * m, (r + 1) * m), r * (m + n));
      y.data.set(b.data.subarray(r * n, (r + 1) * n), r * (m + n) + m);
    }
  },

  differentiable: [0, 1],

  backward(_inputs, _outputs, dy, [da, db], [rows, m, n]) {
    for (let r = 0; r < rows; r++) {
      const from = r * (m + n);
      da?.data.set(dy.data.subarray(from, from + m), r * m);
      db?.data.set(dy.data.subarray(from + m, from + m + n), r * n);
    }
  },

  // Copies.
  bound(_inputs, _outputs, [rows, m, n]) {
    return [new Float64Array(rows * (m + n))];
  },

  boundBackward(_inputs, _outputs, _dy, [da, db], [rows, m, n]) {
    return [da && new Float64Array(rows * m), db && new Float64Array(rows * n)];
  },
};
