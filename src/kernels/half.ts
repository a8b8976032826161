import { roundF16 } from "../tensor/half.ts";
import { sizeOf, type Tensor } from "../tensor/tensor.ts";
import type { Kernel } from "./kernel.ts";

/**
 * Numbers as a file stores them in 16 bits, so that a vector of scales is
 * trained as it will be read: infinite above 65,504 and half a step.
 *
 *   y = f16(x), ties to even;  dx = dy  (straight through)      any shape
 */
export const half: Kernel<[x: Tensor]> = {
  outputs(x) {
    return [{ shape: x.shape, format: "f32" }];
  },

  numbers(x) {
    return [sizeOf(x.shape)];
  },

  forward([x], [y], [n]) {
    for (let i = 0; i < n; i++) y.data[i] = roundF16(x.data[i]);
  },

  differentiable: [0],

  backward(_inputs, _outputs, dy, [dx]) {
    dx?.data.set(dy.data);
  },

  // Exact.
  bound(_inputs, _outputs, [n]) {
    return [new Float64Array(n)];
  },

  // A copy.
  boundBackward(_inputs, _outputs, _dy, [dx], [n]) {
    return [dx && new Float64Array(n)];
  },
};
