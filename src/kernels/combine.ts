import { ShapeError, sizeOf, type Tensor } from "../tensor/tensor.ts";
import { gamma, type Kernel, TINY } from "./kernel.ts";

/**
 * Two tensors of one shape, each times a number: (1−λ)·w + λ·q while rounding
 * is faded in, or a sum of losses with their shares.
 *
 *   y = α·a + β·b,  da = α·dy,  db = β·dy      α and β in float32
 */
export const combine: Kernel<[a: Tensor, b: Tensor, alpha: number, beta: number]> = {
  outputs(a, b) {
    if (a.shape.length !== b.shape.length || a.shape.some((length, i) => length !== b.shape[i])) {
      throw new ShapeError(
        `combine: needs two equal shapes, got ${a.shape.join("×")} and ${b.shape.join("×")}`,
      );
    }
    return [{ shape: a.shape, format: "f32" }];
  },

  numbers(a, _b, alpha, beta) {
    return [sizeOf(a.shape), Math.fround(alpha), Math.fround(beta)];
  },

  forward([a, b], [y], [n, alpha, beta]) {
    for (let i = 0; i < n; i++) y.data[i] = alpha * a.data[i] + beta * b.data[i];
  },

  differentiable: [0, 1],

  backward(_inputs, _outputs, dy, [da, db], [n, alpha, beta]) {
    for (let i = 0; i < n; i++) {
      if (da) da.data[i] = alpha * dy.data[i];
      if (db) db.data[i] = beta * dy.data[i];
    }
  },

  // Two products and a sum.
  bound([a, b], _outputs, [n, alpha, beta]) {
    return [
      Float64Array.from({ length: n }, (_, i) => {
        return (Math.abs(alpha * a.data[i]) + Math.abs(beta * b.data[i])) * gamma(2) + 3 * TINY;
      }),
    ];
  },

  // One rounding.
  boundBackward(_inputs, _outputs, dy, [da, db], [, alpha, beta]) {
    const one = (factor: number) =>
      Float64Array.from(dy.data, (value) => Math.abs(factor * value) * gamma(1) + TINY);
    return [da && one(alpha), db && one(beta)];
  },
};
