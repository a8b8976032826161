import { ShapeError, sizeOf, type Tensor } from "../tensor/tensor.ts";
import { gamma, type Kernel, lastOf, rowsOf } from "./kernel.ts";

/**
 * Columns in another order, or some of them.
 *
 *   y_tk = x_t,places(k)                x (…, cols), places (n) i32 -> y (…, n); NaN where a place is no column
 *   dx_tc = Σ dy_tk over k with places(k) = c
 */
export const pickColumns: Kernel<[x: Tensor, places: Tensor]> = {
  outputs(x, places) {
    if (x.shape.length === 0) throw new ShapeError("pickColumns: x needs columns, got a scalar");
    return [{ shape: [...x.shape.slice(0, -1), sizeOf(places.shape)], format: "f32" }];
  },

  numbers(x, places) {
    return [rowsOf(x), lastOf(x), sizeOf(places.shape)];
  },

  ids: 1,

  forward([x, places], [y], [rows, cols, n]) {
    for (let at = 0; at < rows * n; at++) {
      const place = places.ids[at % n];
      y.data[at] = place >= 0 && place < cols ? x.data[Math.floor(at / n) * cols + place] : Number.NaN;
    }
  },

  differentiable: [0],

  backward([, places], _outputs, dy, [dx], [rows, cols, n]) {
    if (!dx) return;
    const sums = new Float64Array(rows * cols);
    for (let at = 0; at < rows * n; at++) {
      const place = places.ids[at % n];
      if (place >= 0 && place < cols) sums[Math.floor(at / n) * cols + place] += dy.data[at];
    }
    dx.data.set(sums);
  },

  bound(_inputs, [y]) {
    return [new Float64Array(y.data.length)];
  },

  // One rounding for each time that a column is taken beyond the first: n at most.
  boundBackward([, places], _outputs, dy, [dx], [rows, cols, n]) {
    if (!dx) return [null];
    const times = new Uint32Array(cols);
    for (const place of places.ids) if (place >= 0 && place < cols) times[place]++;
    const bounds = new Float64Array(rows * cols);
    for (let at = 0; at < rows * n; at++) {
      const place = places.ids[at % n];
      if (place >= 0 && place < cols && times[place] > 1)
        bounds[Math.floor(at / n) * cols + place] += Math.abs(dy.data[at]) * gamma(times[place]);
    }
    return [bounds];
  },
};
