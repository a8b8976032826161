import { sizeOf, type Tensor } from "../tensor/tensor.ts";
import { needSize, type Procedure, TINY, UNIT } from "./kernel.ts";

/**
 * into[0] ← (add ? into[0] : 0) + Σ t²: with one call per tensor, the squared
 * norm of them all. Accumulates in 64 bits, in chunks fixed by the size.
 */
export const squaredNorm: Procedure<[into: Tensor, t: Tensor, add: number]> = {
  check(into) {
    needSize("squaredNorm: into", into, 1);
  },

  numbers(_into, t, add) {
    return [sizeOf(t.shape), add];
  },

  writes: [0],

  run([into, t], [n, add]) {
    let sum = add ? into.data[0] : 0;
    for (let i = 0; i < n; i++) sum += t.data[i] * t.data[i];
    into.data[0] = sum;
  },

  // Stored once as float32; sums in 64 bits cost next to nothing beside that.
  bound(_before, [into]) {
    return [Float64Array.of(Math.abs(into.data[0]) * 2 * UNIT + TINY)];
  },
};
