import { storeF16 } from "./format.ts";
import {
  type AffineSearch,
  affine,
  errorWeights,
  fitAffine,
  fitLargest,
  fitPositive,
  squares,
} from "./ggml-search.ts";
import { SUPERBLOCK, type Superblock, superblock } from "./k-quant.ts";

const f = Math.fround;

/** How ggml fits a K-quant with offsets. */
export interface OffsetFit {
  readonly name: string;
  readonly subgroups: 8 | 16;
  /** Largest code, and largest whole number of a scale or offset. */
  readonly top: number;
  readonly subTop: number;
  /** The search without importance: the error of x counts |x|, or √(mean of x² in the subgroup) + |x| where it is squared. */
  readonly plain: AffineSearch;
  /** The search with importance: the error² of x counts importance·√(spread·mean of x² in the superblock + x²). */
  readonly weighted: AffineSearch;
  readonly spread: 1 | 2;
}

/** Scales and offsets of the subgroups by `fitAffine`, then both in whole numbers of a common unit. */
export function fitOffsets(
  own: OffsetFit,
  x: Float64Array,
  importance: Float32Array | undefined,
  codes: Float64Array,
): Superblock {
  const { name, subgroups, top, subTop } = own;
  const size = SUPERBLOCK / subgroups;
  const scales = new Float64Array(subgroups);
  const offsets = new Float64Array(subgroups);
  const masses = new Float64Array(subgroups);
  const weights = importance ? superblockWeights(x, importance, own.spread) : new Float64Array(SUPERBLOCK);

  for (let g = 0; g < subgroups; g++) {
    const at = g * size;
    if (importance) {
      masses[g] = massOf(weights, at, size);
    } else {
      const mean = own.plain.absolute ? 0 : f(Math.sqrt(f(squares(x, at, size) / size)));
      for (let i = at; i < at + size; i++) weights[i] = f(mean + Math.abs(x[i]));
    }
    fitAffine(x, weights, at, size, top, importance ? own.weighted : own.plain, codes);
    scales[g] = affine.scale;
    offsets[g] = affine.less;
  }

  const whole = new Float64Array(subgroups);
  const scale = importance ? fitPositive(scales, masses, subTop, whole) : fitLargest(scales, subTop, whole);
  const sub = Int8Array.from(whole);
  const less = importance ? fitPositive(offsets, masses, subTop, whole) : fitLargest(offsets, subTop, whole);
  const stored = [storeF16(name, "scale", scale), -storeF16(name, "offset", less)] as const;
  return superblock(...stored, sub, Uint8Array.from(whole));
}

/** What the errors of x count with importance: importance·√(spread·mean(x²) + x²), in float32. */
export function superblockWeights(x: Float64Array, importance: Float32Array, spread: 1 | 2): Float64Array {
  return errorWeights(x, importance, f((spread * squares(x, 0, SUPERBLOCK)) / SUPERBLOCK));
}

/** Σ of n weights from `at` on, in float32. */
export function massOf(weights: Float64Array, at: number, n: number): number {
  let sum = 0;
  for (let i = at; i < at + n; i++) sum = f(sum + weights[i]);
  return sum;
}
