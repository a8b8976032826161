import { roundF16 } from "../tensor/half.ts";
import { halfEven, halfUp } from "../tensor/rounding.ts";
import { ShapeError, type Tensor } from "../tensor/tensor.ts";
import { type Kernel, matrixShape, TINY, UNIT } from "./kernel.ts";

/**
 * A matrix as one stored matrix of 8-bit codes gives it at fewer bits.
 *
 * Rule 0, the top bits of a code between a row's least and greatest weight:
 *
 *   s = f16((max w − min w)/255),  o = f16(min w),  q = clip(round((w − o)/s), 0, 255)
 *   y = s·2^d·clip(⌊q/2^d + ½⌋, 0, 2^bits − 1) + o,  d = 8 − bits;  at 8 bits y = s·q + o
 *
 * Rule 1, a code rounded a second time:
 *
 *   s = f16(max|w|/127),  q = clip(round(w/s), −128, 127)
 *   y = s·2^d·clip(round(q/2^d), −2^(bits−1), 2^(bits−1) − 1)
 *
 *   w (rows, cols), bits 2 … 8 -> y (rows, cols), s (rows), o (rows, 0 in rule 1);  dw = dy  (straight through)
 *
 * A row without range has s = 0 and the code 0. `round` puts ties to even. So y is what the 16-bit scales and offsets
 * and the codes of an `int8-offset` or `int8` file say.
 *
 * Rule 0: Nair et al., 2025 (https://arxiv.org/abs/2502.06786), with the slice that
 * https://github.com/IST-DASLab/MatGPTQ has (src/quant_utils_matgpqt.py, matryoshka_slice): half up, clipped.
 * Rule 1: Huang et al., 2025 (https://arxiv.org/abs/2502.01199), without a zero point and with the scale of
 * the largest weight where theirs is learned.
 */
export const nested: Kernel<[w: Tensor, bits: number, rule: number]> = {
  outputs(w, bits, rule) {
    const [rows] = matrixShape("nested: w", w);
    if (!(Number.isInteger(bits) && bits >= 2 && bits <= 8)) {
      throw new ShapeError(`nested: bits are 2 … 8, got ${bits}`);
    }
    if (rule !== 0 && rule !== 1) {
      throw new ShapeError(`nested: rule is 0 (top bits) or 1 (double rounding), got ${rule}`);
    }
    return [
      { shape: w.shape, format: "f32" },
      { shape: [rows], format: "f32" },
      { shape: [rows], format: "f32" },
    ];
  },

  numbers(w, bits, rule) {
    return [w.shape[0], w.shape[1], bits, rule];
  },

  // In float32 as the C++ has it, so that both choose the same codes.
  forward([w], [y, scales, offsets], [rows, cols, bits, rule]) {
    const size = 2 ** (8 - bits);
    for (let r = 0; r < rows; r++) {
      const row = w.data.subarray(r * cols, (r + 1) * cols);
      const { low, high } = range(row);
      const most = Math.max(-low, high);
      const scale = roundF16(
        rule === 0 ? Math.fround(Math.fround(high - low) / 255) : Math.fround(most / 127),
      );
      const offset = rule === 0 ? roundF16(low) : 0;
      scales.data[r] = scale;
      offsets.data[r] = offset;
      for (let c = 0; c < cols; c++) {
        const code = scale === 0 ? 0 : halfEven(Math.fround(Math.fround(row[c] - offset) / scale));
        const slice =
          rule === 0
            ? clip(halfUp(clip(code, 0, 255) / size), 0, 2 ** bits - 1)
            : clip(halfEven(clip(code, -128, 127) / size), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1);
        y.data[r * cols + c] = scale * size * slice + offset;
      }
    }
  },

  differentiable: [0],

  backward(_inputs, _outputs, dy, [dw]) {
    dw?.data.set(dy.data);
  },

  // Scale times code is exact; with an offset the sum is rounded.
  bound(_inputs, [y], [rows]) {
    return [
      Float64Array.from(y.data, (value) => Math.abs(value) * UNIT + TINY),
      new Float64Array(rows),
      new Float64Array(rows),
    ];
  },

  // A copy.
  boundBackward(_inputs, _outputs, _dy, [dw], [rows, cols]) {
    return [dw && new Float64Array(rows * cols)];
  },
};

/** Least and greatest of w; both NaN where an element is not finite, 0 of nothing. */
function range(w: Float32Array): { low: number; high: number } {
  if (w.length === 0) return { low: 0, high: 0 };
  let [low, high] = [w[0], w[0]];
  for (let i = 0; i < w.length; i++) {
    const wrong = w[i] - w[i]; // NaN stays in the sum
    low = Math.min(low, w[i]) + wrong;
    high = Math.max(high, w[i]) + wrong;
  }
  return { low, high };
}

function clip(x: number, low: number, high: number): number {
  return Math.max(low, Math.min(high, x));
}
