/**
 * ggml's searches for a scale, each over a few weights that share it: many are
 * tried, and for each the codes that it gives are held fixed and the best
 * scale for them computed. x are the weights, m what the error of each counts,
 * codes the result, all as doubles that hold float32 or whole numbers.
 *
 * The steps are in float32, and a·b + c is rounded once: so compute ggml's
 * builds for ARM, which made the vectors that we compare with; a build without
 * fused multiply-add may choose another scale where two are equally good. A
 * product of two float32 is exact in a double, so fround(a·b + c) is that one
 * rounding (but for a double rounding in 2⁻²⁹ of the cases).
 *
 * Source: https://github.com/ggml-org/ggml/blob/d99724f2b141fed9e1a9f402213506c081433465/src/ggml-quants.c
 */
const f = Math.fround;

/** Below this largest |x| a group counts as zero. */
const ZERO = f(1e-15);

const TENTH = f(0.1);

/** Added and taken away, it rounds a double below 2⁵¹ to a whole number. */
const WHOLE = 1.5 * 2 ** 52;

/** x as `halfEven` rounds it, several times as fast: for |x| < 2⁵¹. */
export function rounded(x: number): number {
  return x + WHOLE - WHOLE;
}

/** The number from low to high that is nearest to x. */
export function limited(x: number, low: number, high: number): number {
  if (x < low) return low;
  if (x > high) return high;
  return x;
}

/** Which scales `fitAffine` tries: those that spread the range over top + first + i·step levels, i = 0 … steps. */
export interface AffineSearch {
  readonly first: number;
  readonly step: number;
  readonly steps: number;
  /** Least Σ m·|error| instead of Σ m·error². */
  readonly absolute?: boolean;
}

/** Scale of the last `fitAffine` and what it takes off: x ≈ scale·code − less, less ≥ 0. */
export const affine = { scale: 0, less: 0 };

/** Codes of the scale that is being tried. */
const trial = new Float64Array(32);

/**
 * Scale and offset of x[at … at+n−1] ≈ scale·code − less with codes 0 … top, left in `affine`: for the codes of each
 * scale that is tried, the weighted least squares line (through 0 where it would be above 0 there).
 * ggml: make_qkx2_quants, make_qkx3_quants.
 */
export function fitAffine(
  x: Float64Array,
  m: Float64Array,
  at: number,
  n: number,
  top: number,
  search: AffineSearch,
  codes: Float64Array,
): void {
  const first = f(search.first);
  const step = f(search.step);
  const absolute = search.absolute === true;
  const end = at + n;
  let min = x[at];
  let max = x[at];
  let sumM = m[at];
  let sumX = f(sumM * x[at]);
  for (let i = at + 1; i < end; i++) {
    if (x[i] < min) min = x[i];
    if (x[i] > max) max = x[i];
    sumM = f(sumM + m[i]);
    sumX = f(m[i] * x[i] + sumX);
  }
  if (min > 0) min = 0;
  if (max <= min) {
    codes.fill(0, at, end);
    affine.scale = 0;
    affine.less = -min;
    return;
  }

  const inverse = f(top / f(max - min));
  let scale = f(1 / inverse);
  let least = 0;
  for (let i = at; i < end; i++) {
    const code = limited(rounded(f(inverse * f(x[i] - min))), 0, top);
    codes[i] = code;
    const off = f(f(scale * code + min) - x[i]);
    least = f(m[i] * (absolute ? Math.abs(off) : f(off * off)) + least);
  }

  for (let s = 0; s <= search.steps; s++) {
    const inverse = f(f(f(step * s + first) + top) / f(max - min));
    let sumL = 0;
    let sumLL = 0;
    let sumXL = 0;
    for (let i = at; i < end; i++) {
      const code = limited(rounded(f(inverse * f(x[i] - min))), 0, top);
      trial[i - at] = code;
      const ml = f(m[i] * code);
      sumL = f(m[i] * code + sumL);
      sumLL = f(ml * code + sumLL);
      sumXL = f(ml * x[i] + sumXL);
    }
    const D = f(sumM * sumLL - f(sumL * sumL));
    if (!(D > 0)) continue;
    let thisScale = f(f(sumM * sumXL - f(sumX * sumL)) / D);
    let thisMin = f(f(sumLL * sumX - f(sumL * sumXL)) / D);
    if (thisMin > 0) {
      thisMin = 0;
      thisScale = f(sumXL / sumLL);
    }
    let error = 0;
    // The error only grows, so a trial is over as soon as it has more than the least.
    for (let i = at; i < end && error < least; i++) {
      const off = f(f(thisScale * trial[i - at] + thisMin) - x[i]);
      error = f(m[i] * (absolute ? Math.abs(off) : f(off * off)) + error);
    }
    if (!(error < least)) continue;
    for (let i = at; i < end; i++) codes[i] = trial[i - at];
    least = error;
    scale = thisScale;
    min = thisMin;
  }
  affine.scale = scale;
  affine.less = -min;
}

/**
 * Scale of x ≈ scale·code with codes −top … top−1, stored as code + top: the weighted least squares scale for the codes
 * of each of 19 scales, from (top − 0.9)/max|x| to (top + 0.9)/max|x|. ggml: make_qx_quants of type 1.
 */
export function fitSigned(
  x: Float64Array,
  m: Float64Array,
  at: number,
  n: number,
  top: number,
  codes: Float64Array,
): number {
  const end = at + n;
  const extreme = extremeOf(x, at, end);
  if (Math.abs(extreme) < ZERO) {
    codes.fill(0, at, end);
    return 0;
  }
  let scale = 0;
  let best = 0;
  for (let t = 0; t <= 18; t++) {
    // The plain scale first, then from 0.9 below to 0.9 above it.
    const shift = t === 0 ? 0 : t <= 9 ? t - 10 : t - 9;
    const inverse = f(-f(TENTH * shift + top) / extreme);
    let sumXL = 0;
    let sumLL = 0;
    for (let i = at; i < end; i++) {
      const code = signedCode(x[i], inverse, top);
      sumXL = f(f(m[i] * x[i]) * code + sumXL);
      sumLL = f(f(m[i] * code) * code + sumLL);
    }
    if (t > 0 && !(sumLL > 0 && f(sumXL * sumXL) > f(best * sumLL))) continue;
    for (let i = at; i < end; i++) codes[i] = signedCode(x[i], inverse, top) + top;
    scale = sumLL !== 0 ? f(sumXL / sumLL) : 0;
    best = f(scale * sumXL);
  }
  return scale;
}

/**
 * Scale of x ≈ scale·code with codes −top … top−1, stored as code + top, for an error weighted by x²: from the codes of
 * the plain scale, code after code is moved where that helps, at most five times round. ggml: make_q3_quants.
 */
export function fitSignedByTurns(
  x: Float64Array,
  at: number,
  n: number,
  top: number,
  codes: Float64Array,
): number {
  const end = at + n;
  const extreme = extremeOf(x, at, end);
  if (Math.abs(extreme) < ZERO) {
    codes.fill(0, at, end);
    return 0;
  }
  const inverse = f(-top / extreme);
  let sumXL = 0;
  let sumLL = 0;
  for (let i = at; i < end; i++) {
    const code = signedCode(x[i], inverse, top);
    const m = f(x[i] * x[i]);
    codes[i] = code;
    sumXL = f(f(m * x[i]) * code + sumXL);
    sumLL = f(f(m * code) * code + sumLL);
  }
  for (let turn = 0; turn < 5; turn++) {
    let changed = false;
    for (let i = at; i < end; i++) {
      const m = f(x[i] * x[i]);
      const mx = f(m * x[i]);
      const otherXL = f(sumXL - mx * codes[i]);
      if (!(otherXL > 0)) continue;
      const otherLL = f(sumLL - f(m * codes[i]) * codes[i]);
      const code = limited(rounded(f(f(x[i] * otherLL) / otherXL)), -top, top - 1);
      if (code === codes[i]) continue;
      const newXL = f(mx * code + otherXL);
      const newLL = f(f(m * code) * code + otherLL);
      if (!(newLL > 0 && f(f(newXL * newXL) * sumLL) > f(f(sumXL * sumXL) * newLL))) continue;
      codes[i] = code;
      sumXL = newXL;
      sumLL = newLL;
      changed = true;
    }
    if (!changed) break;
  }
  for (let i = at; i < end; i++) codes[i] += top;
  return sumLL > 0 ? f(sumXL / sumLL) : 0;
}

/**
 * Scale of x ≈ scale·code for x ≥ 0 and codes 0 … top: the best of nine plain scales, then code after code is moved
 * where that helps, at most five times round. ggml: make_qp_quants.
 */
export function fitPositive(x: Float64Array, m: Float64Array, top: number, codes: Float64Array): number {
  const n = x.length;
  let max = 0;
  for (let i = 0; i < n; i++) if (x[i] > max) max = x[i];
  if (max < ZERO) {
    codes.fill(0);
    return 0;
  }
  let inverse = 0;
  let least = Infinity;
  for (let t = 0; t <= 8; t++) {
    const shift = t === 0 ? 0 : t <= 4 ? t - 5 : t - 4;
    const thisInverse = f(f(TENTH * shift + top) / max);
    const scale = f(1 / thisInverse);
    let error = 0;
    for (let i = 0; i < n; i++) {
      const off = f(x[i] - scale * positiveCode(f(thisInverse * x[i]), top));
      error = f(f(m[i] * off) * off + error);
    }
    if (!(error < least)) continue;
    least = error;
    inverse = thisInverse;
  }

  let sumXL = 0;
  let sumLL = 0;
  for (let i = 0; i < n; i++) {
    const code = positiveCode(f(inverse * x[i]), top);
    codes[i] = code;
    sumXL = f(f(m[i] * x[i]) * code + sumXL);
    sumLL = f(f(m[i] * code) * code + sumLL);
  }
  for (let turn = 0; turn < 5; turn++) {
    let changed = false;
    for (let i = 0; i < n; i++) {
      const mx = f(m[i] * x[i]);
      const otherXL = f(sumXL - mx * codes[i]);
      const otherLL = f(sumLL - f(m[i] * codes[i]) * codes[i]);
      if (!(otherXL > 0 && otherLL > 0)) continue;
      const code = positiveCode(f(f(x[i] * otherLL) / otherXL), top);
      if (code === codes[i]) continue;
      const newXL = f(mx * code + otherXL);
      const newLL = f(f(m[i] * code) * code + otherLL);
      if (!(f(f(newXL * newXL) * sumLL) > f(f(sumXL * sumXL) * newLL))) continue;
      codes[i] = code;
      sumXL = newXL;
      sumLL = newLL;
      changed = true;
    }
    if (!changed) break;
  }
  return sumLL > 0 ? f(sumXL / sumLL) : 0;
}

/** Scale of x ≈ scale·whole for x ≥ 0 and whole 0 … top, the largest x at top. */
export function fitLargest(x: Float64Array, top: number, whole: Float64Array): number {
  let largest = 0;
  for (let i = 0; i < x.length; i++) if (x[i] > largest) largest = x[i];
  const inverse = largest > 0 ? f(top / largest) : 0;
  for (let i = 0; i < x.length; i++) whole[i] = positiveCode(f(inverse * x[i]), top);
  return f(largest / top);
}

/**
 * Scale of x ≈ scale·whole with whole −top … top−1, the x of largest size at −top; 0 when that counts as zero.
 * ggml: at the end of quantize_row_q3_K_ref and quantize_row_q6_K_ref.
 */
export function fitLargestSigned(x: Float64Array, top: number, whole: Float64Array): number {
  const extreme = extremeOf(x, 0, x.length);
  if (Math.abs(extreme) < ZERO) {
    whole.fill(0);
    return 0;
  }
  const inverse = f(-top / extreme);
  for (let i = 0; i < x.length; i++) whole[i] = signedCode(x[i], inverse, top);
  return f(1 / inverse);
}

/** What ggml weighs an error by when it has importance, in float32: m·√(s + x²), s the mean of x² or twice that. */
export function errorWeights(
  x: Float32Array | Float64Array,
  importance: Float32Array,
  s: number,
): Float64Array {
  return Float64Array.from(x, (w, i) => f(importance[i] * f(Math.sqrt(f(w * w + s)))));
}

/** Σ x² of x[at … at+n−1] in float32. */
export function squares(x: Float32Array | Float64Array, at: number, n: number): number {
  let sum = 0;
  for (let i = at; i < at + n; i++) sum = f(x[i] * x[i] + sum);
  return sum;
}

/** The first x of largest |x|. */
function extremeOf(x: Float64Array, at: number, end: number): number {
  let extreme = 0;
  for (let i = at; i < end; i++) if (Math.abs(x[i]) > Math.abs(extreme)) extreme = x[i];
  return extreme;
}

function signedCode(x: number, inverse: number, top: number): number {
  return limited(rounded(f(inverse * x)), -top, top - 1);
}

function positiveCode(x: number, top: number): number {
  return limited(rounded(x), 0, top);
}
