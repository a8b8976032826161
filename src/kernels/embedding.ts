import { sizeOf, type Tensor } from "../tensor/tensor.ts";
import { gamma, type Kernel, matrixShape, needFormat, TINY } from "./kernel.ts";

/**
 * Rows of a table, by id.
 *
 *   y[t] = table[ids[t]]              table (rows, dim) in any format, ids (tokens) i32 -> y (tokens, dim)
 *   dtable[r] = Σ_{t: ids[t]=r} dy[t]  in the order of the tokens
 *
 * An id outside 0 … rows−1 gives a row of NaN and no gradient.
 */
export const embedding: Kernel<[table: Tensor, ids: Tensor]> = {
  outputs(table, ids) {
    const [, dim] = matrixShape("embedding: table", table);
    needFormat("embedding: ids", ids, "i32");
    return [{ shape: [sizeOf(ids.shape), dim], format: "f32" }];
  },

  numbers(table, ids) {
    return [sizeOf(ids.shape), table.shape[1], table.shape[0]];
  },

  forward([table, ids], [y], [tokens, dim, rows]) {
    const floats = table.decode();
    for (let t = 0; t < tokens; t++) {
      const id = ids.ids[t];
      const to = y.data.subarray(t * dim, (t + 1) * dim);
      if (id < 0 || id >= rows) to.fill(Number.NaN);
      else to.set(floats.subarray(id * dim, (id + 1) * dim));
    }
  },

  packed: 0,
  ids: 1,
  differentiable: [0],

  backward([, ids], _outputs, dy, [dtable], [tokens, dim, rows]) {
    if (!dtable) return;
    const sums = new Float64Array(rows * dim);
    for (let t = 0; t < tokens; t++) {
      const id = ids.ids[t];
      if (id < 0 || id >= rows) continue;
      for (let i = 0; i < dim; i++) sums[id * dim + i] += dy.data[t * dim + i];
    }
    dtable.data.set(sums);
  },

  // A copy: every decoder computes the same float32 weight.
  bound(_inputs, _outputs, [tokens, dim]) {
    return [new Float64Array(tokens * dim)];
  },

  // A sum of as many terms as the id occurs, the first addition to zero exact.
  boundBackward([, ids], _outputs, dy, [dtable], [tokens, dim, rows]) {
    if (!dtable) return [null];
    const bounds = new Float64Array(rows * dim);
    const counts = new Uint32Array(rows);
    for (let t = 0; t < tokens; t++) {
      const id = ids.ids[t];
      if (id < 0 || id >= rows) continue;
      counts[id]++;
      for (let i = 0; i < dim; i++) bounds[id * dim + i] += Math.abs(dy.data[t * dim + i]);
    }
    return [bounds.map((sum, at) => sum * gamma(counts[Math.floor(at / dim)]) + TINY)];
  },
};
