import { roundF16 } from "../tensor/half.ts";
import { halfEven } from "../tensor/rounding.ts";
import { ShapeError, sizeOf, type Tensor } from "../tensor/tensor.ts";
import { type Kernel, lastOf, needWhole, rowsOf } from "./kernel.ts";
import { topK } from "./top-k.ts";

/** How a group's scale is found, by the number that `roundRows` takes. */
export const roundingRules = ["absmax", "absmean", "minmax", "stored"] as const;
export type RoundingRule = (typeof roundingRules)[number];

/**
 * Activations rounded to few bits, as training sees them: the values that the codes stand for. A row is a token (or
 * one of a matrix); every `group` neighbours along it share a scale (0: the whole row).
 *
 *   Q = 2^(bits−1) − 1,  q = RoundClip(x·f, −Q−1, Q),  halves to even
 *   0 absmax    f = Q/max(max|x|, 10⁻⁵),       y = q/f
 *   1 absmean   f = √Q/(mean|x| + 10⁻⁵),       y = q·mean|x|/√Q
 *   2 minmax    f = Q/(max|x| + 10⁻⁶),         y = q/f        (the clip never acts)
 *   3 stored    s = f16((max|x| + 10⁻⁶)/Q),    y = q·s, q = RoundClip(x/s, −Q−1, Q); 0 where s is 0:
 *               minmax with the scale of the integer formats, for weights
 *
 * `share` < 1 keeps the ⌈share·n⌉ largest |x| of each row, of equal ones the earlier; the others become 0.
 * The gradient passes straight through both, dx = dy, but with a `limit` > 0 it is 0 where |x| ≥ limit.
 *
 * 0: Ma et al., 2024 (https://arxiv.org/abs/2402.17764), section 2, Q of 8 bits. 1 and top-K: Wang et al., 2024
 * (https://arxiv.org/abs/2411.04965), section 2, where √7 belongs to 4 bits; √Q for other widths is ours. 2: Liu et
 * al., 2023 (https://arxiv.org/abs/2305.17888); its code (facebookresearch/LLM-QAT, models/utils_quant.py) masks the
 * gradient at 2 and divides by f + 10⁻⁶, which is left out here.
 *
 * Scales are computed in 64 bits and rounded to float32, everything else in float32, sums in one order: every backend
 * gives the same bits. A group that holds NaN or infinity is NaN, all of it, and nothing of its row is dropped.
 */
export const roundRows: Kernel<
  [x: Tensor, bits: number, rule: number, group: number, share: number, limit: number]
> = {
  outputs(x, bits, rule, group, share, limit) {
    needWhole("roundRows: bits", bits, 2);
    needWhole("roundRows: rule", rule);
    needWhole("roundRows: group", group);
    if (bits > 16) throw new ShapeError(`roundRows: bits need to be at most 16, got ${bits}`);
    if (rule >= roundingRules.length) throw new ShapeError(`roundRows: there is no rule ${rule}`);
    if (group > 0 && lastOf(x) % group !== 0) {
      throw new ShapeError(`roundRows: group ${group} does not divide rows of ${lastOf(x)}`);
    }
    if (!(share > 0 && share <= 1)) {
      throw new ShapeError(`roundRows: share needs to be above 0 and at most 1, got ${share}`);
    }
    if (!(limit >= 0)) throw new ShapeError(`roundRows: limit needs to be 0 or more, got ${limit}`);
    return [{ shape: x.shape, format: "f32" }];
  },

  numbers(x, bits, rule, group, share, limit) {
    const cols = lastOf(x);
    const top = 2 ** (bits - 1) - 1;
    return [rowsOf(x), cols, group || cols, Math.ceil(share * cols), top, rule, Math.sqrt(top), limit];
  },

  forward([x], [y], [rows, cols, group, kept, top, rule, root]) {
    for (let r = 0; r < rows; r++) {
      const row = x.data.subarray(r * cols, (r + 1) * cols);
      const out = y.data.subarray(r * cols, (r + 1) * cols);
      for (let g = 0; g < cols; g += group) {
        const { inverse, scale } = scaleOf(row.subarray(g, g + group), top, rule, root);
        for (let i = g; i < g + group; i++) {
          const scaled = inverse === undefined ? row[i] / scale! : row[i] * inverse;
          const q = Math.max(-top - 1, Math.min(top, halfEven(Math.fround(scaled))));
          out[i] = scale === undefined ? q / inverse! : scale === 0 ? 0 : q * scale;
        }
      }
      if (kept < cols && row.every(Number.isFinite)) {
        const chosen = topK(row.map(Math.abs), kept);
        for (let i = 0; i < cols; i++) if (!chosen[i]) out[i] = 0;
      }
    }
  },

  differentiable: [0],

  backward([x], _outputs, dy, [dx], numbers) {
    const limit = numbers[7] || Number.POSITIVE_INFINITY;
    if (!dx) return;
    for (let i = 0; i < dx.data.length; i++) {
      dx.data[i] = limit === Number.POSITIVE_INFINITY || Math.abs(x.data[i]) < limit ? dy.data[i] : 0;
    }
  },

  // Every backend does the same.
  bound([x]) {
    return [new Float64Array(sizeOf(x.shape))];
  },

  // A copy.
  boundBackward([x], _outputs, _dy, [dx]) {
    return [dx && new Float64Array(sizeOf(x.shape))];
  },
};

/** The scale with which rule 3 rounds a group, as a format keeps it. */
export function storedScale(x: Float32Array, top: number): number {
  return roundF16(Math.fround(Math.min((largestMagnitude(x) + 1e-6) / top, 65504)));
}

/** What x is multiplied by before it is rounded, and codes after it; without one of them the other divides. */
function scaleOf(
  x: Float32Array,
  top: number,
  rule: number,
  root: number,
): { inverse?: number; scale?: number } {
  if (!x.every(Number.isFinite)) return { inverse: Number.NaN };
  if (rule === 3) return { scale: storedScale(x, top) };
  if (rule === 1) {
    const mean = sumOfMagnitudes(x) / x.length;
    return { inverse: Math.fround(root / (mean + 1e-5)), scale: Math.fround(mean / root) };
  }
  const most = largestMagnitude(x);
  return { inverse: Math.fround(top / (rule === 0 ? Math.max(most, 1e-5) : most + 1e-6)) };
}

function largestMagnitude(x: Float32Array): number {
  return x.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
}

/** Σ|x| as 16 sums side by side, which then are added in order. */
function sumOfMagnitudes(x: Float32Array): number {
  const sums = new Float64Array(16);
  for (let i = 0; i < x.length; i++) sums[i % 16] += Math.abs(x[i]);
  return sums.reduce((a, b) => a + b, 0);
}
