import { sizeOf, type Tensor } from "../tensor/tensor.ts";
import { needFormat, type Procedure } from "./kernel.ts";

/** t ← value, every element. */
export const fill: Procedure<[t: Tensor, value: number]> = {
  check(t) {
    needFormat("fill: t", t, "f32");
  },

  numbers(t, value) {
    return [sizeOf(t.shape), value];
  },

  writes: [0],

  run([t], [, value]) {
    t.data.fill(value);
  },

  // The value's float32, everywhere.
  bound([t]) {
    return [new Float64Array(t.data.length)];
  },
};
