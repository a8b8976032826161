import { roundF16 } from "../tensor/half.ts";
import { halfEven } from "../tensor/rounding.ts";
import { ShapeError, type Tensor } from "../tensor/tensor.ts";
import { gamma, type Kernel, matrixShape, needSize, TINY, UNIT } from "./kernel.ts";

/** The least scale. */
const FLOOR = Math.fround(1e-5);
/** Where stretched elastic quantization clips w/α. */
const CLIP = Math.fround(0.99);

/**
 * A matrix rounded with a learned scale for each row, its levels as a packed
 * file stores them.
 *
 *   α_r = f16(max(scale_r, 10⁻⁵)),  q = w/α                 w (rows, cols), scale (rows)
 *
 *   bits 1     code sign(w), sign(0) = 1                    values α·code
 *   bits 0     code round(1.5·clip(q, ±0.99))               values f16(⅔α)·code: ternary
 *   bits 2     code round(2·clip(q, ±0.99) − ½) + 2         values ½α·code − f16(¾α), code 0 … 3
 *   bits 3, 4  code clip(round(q), −2^(bits−1), 2^(bits−1)−1)    values α·code
 *
 *   -> y (rows, cols), and what a group of the file is made of: scale (rows), offset (rows), offset 0 but at 2 bits
 *
 *   dw = dy inside, 0 outside; inside: |q| ≤ 1 at 1 bit, |q| ≤ 0.99 at 0 and 2, Qn ≤ q ≤ Qp at 3 and 4
 *   dscale_r = Σ_c dy·t/√(rows·cols·P)
 *   t = sign(w) at 1 bit; else ŷ/α − q inside and Qn, Qp below and above, where ŷ/α is the level over α before it is
 *   rounded to 16 bits. Qn, Qp = ∓1 at bits 0, ∓¾ at 2, the least and greatest code at 3 and 4. P = 1, at 3 and 4 Qp.
 *
 * Liu et al., 2025 (https://arxiv.org/abs/2502.02631): 1 bit, learned step size (Esser et al., 2019,
 * https://arxiv.org/abs/1902.08153) and stretched elastic quantization, as in
 * https://github.com/facebookresearch/ParetoQ/blob/4bcc1207e8eb5863550ca662eb2c86df50a3f366/models/utils_quant.py,
 * whose α is not rounded to 16 bits and whose sign of 0 is 0. As there, the gradient passes the floor.
 */
export const learnedStep: Kernel<[w: Tensor, scale: Tensor, bits: number]> = {
  outputs(w, scale, bits) {
    const [rows] = matrixShape("learnedStep: w", w);
    needSize("learnedStep: scale", scale, rows);
    if (![0, 1, 2, 3, 4].includes(bits)) {
      throw new ShapeError(`learnedStep: bits are 1, 2, 3, 4 or 0 (ternary), got ${bits}`);
    }
    return [
      { shape: w.shape, format: "f32" },
      { shape: [rows], format: "f32" },
      { shape: [rows], format: "f32" },
    ];
  },

  numbers(w, _scale, bits) {
    return [w.shape[0], w.shape[1], bits];
  },

  // In float32 as the C++ has it, so that both choose the same codes.
  forward([w, scale], [y, steps, offsets], [rows, cols, bits]) {
    for (let r = 0; r < rows; r++) {
      const α = alphaOf(scale.data[r]);
      const step = bits === 0 ? roundF16(Math.fround(α * THIRDS)) : bits === 2 ? α / 2 : α;
      const offset = bits === 2 ? -roundF16(0.75 * α) : 0;
      steps.data[r] = step;
      offsets.data[r] = offset;
      for (let at = r * cols; at < (r + 1) * cols; at++) {
        y.data[at] = step * codeOf(w.data[at], α, bits) + offset;
      }
    }
  },

  differentiable: [0, 1],

  backward([w, scale], _outputs, dy, [dw, dscale], [rows, cols, bits]) {
    const factor = 1 / Math.sqrt(rows * cols * positive(bits));
    for (let r = 0; r < rows; r++) {
      const α = alphaOf(scale.data[r]);
      let sum = 0;
      for (let at = r * cols; at < (r + 1) * cols; at++) {
        const { inside, slope } = slopes(w.data[at], α, bits);
        if (dw) dw.data[at] = inside ? dy.data[at] : 0;
        sum += dy.data[at] * slope;
      }
      if (dscale) dscale.data[r] = sum * factor;
    }
  },

  // At 2 bits one rounding of the sum; products are exact or rounded alike.
  bound(_inputs, [y], [rows]) {
    return [
      Float64Array.from(y.data, (value) => Math.abs(value) * UNIT + TINY),
      new Float64Array(rows),
      new Float64Array(rows),
    ];
  },

  // A copy; a sum of `cols` products whose factor has lost a rounding of q and two of the level, and the last factor.
  boundBackward([w, scale], _outputs, dy, [dw, dscale], [rows, cols, bits]) {
    const forDscale = dscale && new Float64Array(rows);
    const factor = 1 / Math.sqrt(rows * cols * positive(bits));
    for (let r = 0; forDscale && r < rows; r++) {
      const α = alphaOf(scale.data[r]);
      for (let at = r * cols; at < (r + 1) * cols; at++) {
        const { slope } = slopes(w.data[at], α, bits);
        const lost = bits === 1 ? 0 : (1 + Math.min(Math.abs(w.data[at] / α), 8)) * gamma(4);
        const off = Math.abs(slope) * gamma(cols + 4) + lost;
        forDscale[r] += Math.abs(dy.data[at]) * off * factor + TINY;
      }
    }
    return [dw && new Float64Array(rows * cols), forDscale];
  },
};

/** ⅔ in float32. */
const THIRDS = Math.fround(2 / 3);

function alphaOf(scale: number): number {
  return roundF16(Math.max(scale, FLOOR)); // NaN stays
}

/** P: the greatest code where rounding is that of a learned step size. */
function positive(bits: number): number {
  return bits > 2 ? 2 ** (bits - 1) - 1 : 1;
}

function codeOf(w: number, α: number, bits: number): number {
  const q = Math.fround(w / α);
  if (bits === 1) return (w < 0 ? -1 : 1) + (w - w);
  if (bits === 0) return halfEven(Math.fround(1.5 * clip(q, -CLIP, CLIP)));
  if (bits === 2) return halfEven(Math.fround(2 * clip(q, -CLIP, CLIP) - 0.5)) + 2;
  const top = positive(bits);
  return clip(halfEven(q), -top - 1, top);
}

/** Whether the gradient of a weight passes, and what its row's scale gets of it. */
function slopes(w: number, α: number, bits: number): { inside: boolean; slope: number } {
  const q = Math.fround(w / α);
  const top = positive(bits);
  const [low, high] = bits === 1 ? [-1, 1] : bits < 3 ? [-CLIP, CLIP] : [-top - 1, top];
  const inside = !(q < low) && !(q > high); // NaN is
  const code = codeOf(w, α, bits);
  if (bits === 1) return { inside, slope: code };
  if (bits > 2) return { inside, slope: inside ? code - q : q < low ? low : high };
  const ends = bits === 0 ? 1 : 0.75;
  const level = bits === 0 ? code / 1.5 : (code - 1.5) / 2;
  return { inside, slope: inside ? level - q : q < low ? -ends : ends };
}

function clip(x: number, low: number, high: number): number {
  return Math.max(low, Math.min(high, x));
}
