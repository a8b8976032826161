import { formatByName } from "../formats/index.ts";
import { activationGroup } from "../formats/levels.ts";
import { halfEven } from "../tensor/rounding.ts";
import { ShapeError, type Tensor } from "../tensor/tensor.ts";
import { largest, needPrecision, productPrecision, sumError } from "./bf16-error.ts";
import { type Kernel, lastOf, matrixShape, rowsOf } from "./kernel.ts";

/** Roundings beside the sum: a weight to float32, its scale, its offset, each applied to a part of the sum. */
const SCALING = 4;

/** A group whose largest activation is below this, 2⁻¹⁰⁰, counts as zeros: 127 by it could be infinite. */
const QUIET = 2 ** -100;

/**
 * Matrix product with a weight in any format.
 *
 *   y = x·Wᵀ                  x (…, in), w (out, in) -> y (…, out)
 *   dx = dy·W,  dW = dyᵀ·x    dW for float weights only
 *
 * A weight that was uploaded for int8 activations gets those of x rounded first, in groups of `activationGroup` along a
 * row: s = max|x|/127, q = x·(127/max|x|) rounded half to even, in float32. Then y = Σ s·(scale·Σ level·q + offset·Σ q),
 * where the inner sums are of whole numbers and exact. The gradient passes the rounding by: dx = dy·W.
 *
 * With `precision` 1 both operands of each of the three products may be rounded to BF16 (nearest even) and added up in
 * float32 where W is plain floats: what AVX-512 BF16 multiplies twice as fast. Values beyond 3.39·10³⁸ become infinite
 * then. 0, the default, is float32; packed weights and other instruction sets always are.
 */
export const linear: Kernel<[x: Tensor, w: Tensor, precision?: number]> = {
  outputs(x, w, precision) {
    needPrecision("linear", precision);
    const [out, cols] = matrixShape("linear: w", w);
    if (lastOf(x) !== cols) {
      throw new ShapeError(`linear: x needs rows of ${cols} for w ${out}×${cols}, got ${x.shape.join("×")}`);
    }
    const shape = x.shape.slice();
    shape[Math.max(0, shape.length - 1)] = out;
    return [{ shape, format: "f32" }];
  },

  numbers(x, w, precision) {
    const group = w.activations === "int8" ? activationGroup(formatByName(w.format)) : 0;
    return [rowsOf(x), w.shape[0], w.shape[1], group, productPrecision(w, precision)];
  },

  forward([x, w], [y], [rows, out, cols, group]) {
    const weights = w.decode();
    const inputs = group ? roundedActivations(x.data, cols, group) : x.data;
    for (let r = 0; r < rows; r++) {
      const xr = inputs.subarray(r * cols, (r + 1) * cols);
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

  // A sum of `cols` products, and roundings where group scales and offsets are applied. Of int8 activations a sum of one
  // term for each group, and in a term the conversion of a whole number and a factor beside them.
  //
  // Codes of b bits with a book of entries of d weights may be looked up in tables of sums (book-linear.h). A product is
  // then on the way of d roundings in its entry's sum, log₂(8/b) in that of its byte, one for each further byte and group
  // at most, one of the scale, and one of the decoded weight, which this is compared with: d + log₂(8/b) + bytes + 1. A
  // byte being d·8/b columns, that is at most cols + SCALING. The scale comes last: what a product of x and an entry
  // loses below 2⁻¹²⁶ counts so many times, and the bound holds where scales are at most 1 or nothing is lost there.
  bound([x, w], _outputs, [rows, out, cols, group, precision]) {
    const weights = w.magnitudes();
    const most = largest(x.data, weights);
    const inputs = group ? roundedActivations(x.data, cols, group) : x.data;
    const bounds = new Float64Array(rows * out);
    const roundings = (group ? Math.ceil(cols / group) + 2 : cols) + SCALING;
    for (let r = 0; r < rows; r++) {
      const xr = inputs.subarray(r * cols, (r + 1) * cols);
      for (let o = 0; o < out; o++) {
        let sum = 0;
        const from = o * cols;
        for (let i = 0; i < cols; i++) sum += Math.abs(xr[i] * weights[from + i]);
        bounds[r * out + o] = sumError(precision, sum, most, cols, roundings);
      }
    }
    return [bounds];
  },

  // The same for sums of `out` and of `rows` products.
  boundBackward([x, w], _outputs, dy, [dx, dw], [rows, out, cols, , precision]) {
    const absolute = dy.data.map(Math.abs);
    const weights = w.magnitudes();
    const most = largest(dy.data, weights, x.data);
    return [
      dx &&
        product(absolute, weights, rows, out, cols).map((sum) =>
          sumError(precision, sum, most, out, out + SCALING),
        ),
      dw &&
        transposedProduct(absolute, x.data.map(Math.abs), rows, out, cols).map((sum) =>
          sumError(precision, sum, most, rows, rows),
        ),
    ];
  },
};

/** The numbers s·q that stand for x, rows of `cols`, in groups of `group` along a row; NaN where a group is not finite. */
function roundedActivations(x: Float32Array, cols: number, group: number): Float64Array {
  const rounded = new Float64Array(x.length);
  for (let from = 0, to = 0; from < x.length; from = to) {
    to = Math.min(from + group, from - (from % cols) + cols);
    let most = 0;
    let finite = true;
    for (let i = from; i < to; i++) {
      most = Math.max(most, Math.abs(x[i]));
      finite &&= Number.isFinite(x[i]);
    }
    if (!finite) rounded.fill(Number.NaN, from, to);
    if (!finite || most < QUIET) continue;
    const scale = Math.fround(most / 127);
    const inverse = Math.fround(127 / most);
    for (let i = from; i < to; i++) rounded[i] = scale * halfEven(Math.fround(x[i] * inverse));
  }
  return rounded;
}

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
