import { nearestE8P, pointOfE8P } from "../formats/e8p.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { matrixShape, needMatrix, needSize, type Procedure } from "./kernel.ts";

/**
 * The point of `e8p` that is nearest to each vector, as `nearestE8P` (formats/e8p.ts) finds it.
 *
 *   x (n, 8) -> codes (n) i32, points (n, 8)
 *
 * Where two points are as near as each other up to the roundings of their distances, implementations may take different ones.
 */
export const nearestE8p: Procedure<[codes: Tensor, points: Tensor, x: Tensor]> = {
  check(codes, points, x) {
    const [n] = matrixShape("nearestE8p: x", x);
    needMatrix("nearestE8p: x", x, n, 8);
    needSize("nearestE8p: codes", codes, n);
    needMatrix("nearestE8p: points", points, n, 8);
  },

  numbers(_codes, _points, x) {
    return [x.shape[0]];
  },

  writes: [0, 1],
  integers: [0],

  run([codes, points, x], [n]) {
    for (let i = 0; i < n; i++) {
      codes.ids[i] = nearestE8P(x.data.subarray(8 * i, 8 * i + 8));
      points.data.set(pointOfE8P(codes.ids[i]), 8 * i);
    }
  },
};
