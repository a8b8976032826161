import { ShapeError, type Tensor } from "../tensor/tensor.ts";
import { gamma, type Kernel, lastOf, matrixShape, rowsOf, TINY } from "./kernel.ts";

/** Roundings beside the sum: a weight to float32, its scale, its offset, each applied to a part of the sum. */
const SCALING = 4;

/**
 * Matrix product with a weight in any format.
 *
 *   y = x·Wᵀ                  x (…, in), w (out, in) -> y (…, out)
 *   dx = dy·W,  dW = dyᵀ·x    dW for float weights only
 */
export const linear: Kernel<[x: Tensor, w: Tensor]> = {
  outputs(x, w) {
    const [out, cols] = matrixShape("linear: w", w);
    if (lastOf(x) !== cols) {
      throw new ShapeError(`linear: x needs rows of ${cols} for w ${out}×${cols}, got ${x.shape.join("×")}`);
    }
    const shape = x.shape.slice();
    shape[Math.max(0, shape.length - 1)] = out;
    return [{ shape, format: "f32" }];
  },

  numbers(x, w) {
    return [rowsOf(x), w.shape[0], w.shape[1]];
  },

  forward([x, w], [y], [rows, out, cols]) {
    const weights = w.decode();
    for (let r = 0; r < rows; r++) {
      const xr = x.data.subarray(r * cols, (r + 1) * cols);
      for (let o = 0; o < out; o++) {
        let sum = 0;
        const from = o * cols;
        for (let i = 0; i < cols; i++) sum += xr[i] * weights[from + i];
        y.data[r * out + o] = sum;
      }
    }
  },

  packed: 1,
  differentiable: [0, 1],

  backward([x, w], _outputs, dy, [dx, dw], [rows, out, cols]) {
    if (dx) dx.data.set(product(dy.data, w.decode(), rows, out, cols));
    if (dw) dw.data.set(transposedProduct(dy.data, x.data, rows, out, cols));
  },

  // A sum of `cols` products, and roundings where group scales and offsets are applied.
  bound([x, w], _outputs, [rows, out, cols]) {
    const weights = w.magnitudes();
    const bounds = new Float64Array(rows * out);
    const relative = gamma(cols + SCALING);
    for (let r = 0; r < rows; r++) {
      const xr = x.data.subarray(r * cols, (r + 1) * cols);
      for (let o = 0; o < out; o++) {
        let sum = 0;
        const from = o * cols;
        for (let i = 0; i < cols; i++) sum += Math.abs(xr[i] * weights[from + i]);
        bounds[r * out + o] = sum * relative + cols * TINY;
      }
    }
    return [bounds];
  },

  // The same for sums of `out` and of `rows` products.
  boundBackward([x, w], _outputs, dy, [dx, dw], [rows, out, cols]) {
    const absolute = dy.data.map(Math.abs);
    return [
      dx &&
        product(absolute, w.magnitudes(), rows, out, cols).map(
          (sum) => sum * gamma(out + SCALING) + out * TINY,
        ),
      dw &&
        transposedProduct(absolute, x.data.map(Math.abs), rows, out, cols).map(
          (sum) => sum * gamma(rows) + rows * TINY,
        ),
    ];
  },
};

/** a (rows, inner) · b (inner, cols) -> (rows, cols), in 64 bits. */
function product(a: Float32Array, b: Float32Array, rows: number, inner: number, cols: number): Float64Array {
  const sums = new Float64Array(rows * cols);
  for (let r = 0; r < rows; r++) {
    for (let k = 0; k < inner; k++) {
      const factor = a[r * inner + k];
      for (let c = 0; c < cols; c++) sums[r * cols + c] += factor * b[k * cols + c];
    }
  }
  return sums;
}

/** aᵀ · b for a (inner, rows), b (inner, cols) -> (rows, cols), in 64 bits. */
function transposedProduct(
  a: Float32Array,
  b: Float32Array,
  inner: number,
  rows: number,
  cols: number,
): Float64Array {
  const sums = new Float64Array(rows * cols);
  for (let k = 0; k < inner; k++) {
    for (let r = 0; r < rows; r++) {
      const factor = a[k * rows + r];
      for (let c = 0; c < cols; c++) sums[r * cols + c] += factor * b[k * cols + c];
    }
  }
  return sums;
}
