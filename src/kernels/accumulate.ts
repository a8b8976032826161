import { sizeOf, type Tensor } from "../tensor/tensor.ts";
import { gamma, needSize, type Procedure, TINY } from "./kernel.ts";

/** into ← into + factor·from, for two tensors of one size. */
export const accumulate: Procedure<[into: Tensor, from: Tensor, factor: number]> = {
  check(into, from) {
    needSize("accumulate: from", from, sizeOf(into.shape));
  },

  numbers(into, _from, factor) {
    return [sizeOf(into.shape), factor];
  },

  writes: [0],

  run([into, from], [n, factor]) {
    for (let i = 0; i < n; i++) into.data[i] += factor * from.data[i];
  },

  // The factor to float32, a product and a sum.
  bound([into, from], _after, [n, factor]) {
    const bounds = new Float64Array(n);
    for (let i = 0; i < n; i++) {
      bounds[i] = gamma(3) * (Math.abs(into.data[i]) + Math.abs(factor * from.data[i])) + TINY;
    }
    return [bounds];
  },
};
