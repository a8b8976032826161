import { ShapeError, type Tensor } from "../tensor/tensor.ts";
import { matrixShape, needWhole, type Procedure } from "./kernel.ts";

/** Copies rows (tokens, dim) into a cache (capacity, dim), as its rows at … at+tokens−1. */
export const cacheAppend: Procedure<[cache: Tensor, rows: Tensor, at: number]> = {
  check(cache, rows, at) {
    const [capacity, dim] = matrixShape("cacheAppend: cache", cache);
    const [tokens, width] = matrixShape("cacheAppend: rows", rows);
    if (width !== dim) throw new ShapeError(`cacheAppend: rows need ${dim} values, got ${width}`);
    needWhole("cacheAppend: at", at);
    if (at + tokens > capacity) {
      throw new ShapeError(
        `cacheAppend: rows ${at} … ${at + tokens - 1} need more than the cache's ${capacity}`,
      );
    }
  },

  numbers(_cache, rows, at) {
    return [rows.shape[0], rows.shape[1], at];
  },

  writes: [0],

  run([cache, rows], [, dim, at]) {
    cache.data.set(rows.data, at * dim);
  },

  // A copy.
  bound([cache]) {
    return [new Float64Array(cache.data.length)];
  },
};
