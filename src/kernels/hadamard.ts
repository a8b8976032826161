import { hadamardOf } from "../tensor/hadamard.ts";
import { ShapeError, sizeOf, type Tensor } from "../tensor/tensor.ts";
import { gamma, type Kernel, lastOf, needWhole, TINY } from "./kernel.ts";

/**
 * Every `block` elements of a row times the orthonormal Hadamard matrix, by the fast transform.
 *
 *   y = x·diag(H, …, H),  H_ij = (−1)^popcount(i & j) / √block      x (…, cols) -> y (…, cols)
 *   dx = dy·diag(H, …, H)                                          H is symmetric
 *
 * `block` is a power of two that divides cols.
 */
export const hadamard: Kernel<[x: Tensor, block: number]> = {
  outputs(x, block) {
    needWhole("hadamard: block", block, 1);
    if (!Number.isInteger(Math.log2(block)) || lastOf(x) % block !== 0) {
      throw new ShapeError(
        `hadamard: needs blocks of a power of two that divides rows of ${lastOf(x)}, got ${block}`,
      );
    }
    return [{ shape: x.shape, format: "f32" }];
  },

  numbers(x, block) {
    return [sizeOf(x.shape), block];
  },

  forward([x], [y], [, block]) {
    y.data.set(hadamardOf(x.data, block));
  },

  differentiable: [0],

  backward(_inputs, _outputs, dy, [dx], [, block]) {
    dx?.data.set(hadamardOf(dy.data, block));
  },

  bound([x], _outputs, [n, block]) {
    return [errors(x.data, n, block)];
  },

  boundBackward(_inputs, _outputs, dy, [dx], [n, block]) {
    return [dx && errors(dy.data, n, block)];
  },
};

// Sums of `block` numbers, added up in pairs or one by one, and a rounded factor.
function errors(x: Float32Array, n: number, block: number): Float64Array {
  const bounds = new Float64Array(n);
  for (let from = 0; from < n; from += block) {
    let sum = 0;
    for (let i = from; i < from + block; i++) sum += Math.abs(x[i]);
    const most = Math.min(block, LANES + Math.log2(block)) + 2;
    bounds.fill((sum / Math.sqrt(block)) * gamma(most) + TINY, from, from + block);
  }
  return bounds;
}

/** The widest vector, inside which sums are added up one by one. */
const LANES = 16;
