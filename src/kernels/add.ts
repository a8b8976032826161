import { ShapeError, sizeOf, type Tensor } from "../tensor/tensor.ts";
import { type Kernel, TINY, UNIT } from "./kernel.ts";

/**
 * Sum of two tensors of one shape: a residual connection.
 *
 *   y = a + b,  da = db = dy
 */
export const add: Kernel<[a: Tensor, b: Tensor]> = {
  outputs(a, b) {
    if (a.shape.length !== b.shape.length || a.shape.some((length, i) => length !== b.shape[i])) {
      throw new ShapeError(`add: needs two equal shapes, got ${a.shape.join("×")} and ${b.shape.join("×")}`);
    }
    return [{ shape: a.shape, format: "f32" }];
  },

  numbers(a) {
    return [sizeOf(a.shape)];
  },

  forward([a, b], [y], [n]) {
    for (let i = 0; i < n; i++) y.data[i] = a.data[i] + b.data[i];
  },

  differentiable: [0, 1],

  backward(_inputs, _outputs, dy, [da, db]) {
    da?.data.set(dy.data);
    db?.data.set(dy.data);
  },

  // One rounding.
  bound(_, [y]) {
    return [Float64Array.from(y.data, (value) => Math.abs(value) * UNIT + TINY)];
  },

  // Copies.
  boundBackward(_inputs, _outputs, dy, [da, db]) {
    return [da && new Float64Array(dy.data.length), db && new Float64Array(dy.data.length)];
  },
};
