import { InputError } from "../tensor/tensor.ts";

/**
 * Losses of one cluster: a document or a window, whose tokens are correlated.
 * Clusters are taken as independent of one another, tokens within them are not.
 */
export interface Cluster {
  /** Sum of its tokens' losses, nats. */
  readonly sum: number;
  /** Predicted tokens. */
  readonly count: number;
}

/** A mean and how far it may be off. */
export interface Estimate {
  readonly mean: number;
  /** Absent when there are fewer than two clusters: one says nothing about the spread. */
  readonly standardError?: number;
}

/** An estimate with the interval that holds the true value in 95 % of repetitions. */
export interface Interval extends Estimate {
  readonly low?: number;
  readonly high?: number;
}

/**
 * Mean per token over clusters of unequal size, with a cluster-robust standard error.
 *
 *   m = Σ y_c / Σ n_c,   s² = C/(C−1) · Σ (y_c − m·n_c)² / (Σ n_c)²
 *
 * Cochran, Sampling Techniques, 3rd ed., 1977, eq. 6.13 (ratio estimator).
 */
export function meanOfClusters(clusters: readonly Cluster[]): Estimate {
  let sum = 0;
  let tokens = 0;
  for (const { sum: y, count } of clusters) {
    sum += y;
    tokens += count;
  }
  if (tokens === 0) throw new InputError("statistics: no tokens to take a mean of");
  const mean = sum / tokens;
  const C = clusters.length;
  if (C < 2) return { mean };
  let squares = 0;
  for (const { sum: y, count } of clusters) squares += (y - mean * count) ** 2;
  return { mean, standardError: Math.sqrt((C / (C - 1)) * squares) / tokens };
}

/**
 * Mean difference a − b per token of two models on the same clusters, paired:
 * what both find hard cancels. The 95 % interval takes Student's t with one
 * degree of freedom less than there are clusters.
 */
export function pairedDifference(a: readonly Cluster[], b: readonly Cluster[]): Interval {
  if (a.length !== b.length || a.some(({ count }, c) => count !== b[c].count)) {
    throw new InputError("statistics: a paired difference needs both models on the same clusters of tokens");
  }
  const differences = a.map(({ sum, count }, c) => ({ sum: sum - b[c].sum, count }));
  const { mean, standardError } = meanOfClusters(differences);
  if (standardError === undefined) return { mean };
  const reach = tQuantile(0.975, differences.length - 1) * standardError;
  return { mean, standardError, low: mean - reach, high: mean + reach };
}

/** e^loss: the number of equally likely tokens that would be as hard to tell apart. */
export function perplexity(nats: number): number {
  return Math.exp(nats);
}

/** Bits spent on each byte of the text, from the sum of all losses in nats. */
export function bitsPerByte(totalNats: number, bytes: number): number {
  return totalNats / Math.LN2 / bytes;
}

/**
 * The value below which a share p of the values lies, linear between
 * neighbours (Hyndman & Fan, 1996, definition 7). Sorts its argument in place.
 */
export function quantile(values: Float32Array | Float64Array, p: number): number {
  if (values.length === 0) throw new InputError("statistics: a quantile needs at least one value");
  values.sort();
  const at = p * (values.length - 1);
  const below = Math.floor(at);
  const above = Math.min(below + 1, values.length - 1);
  return values[below] + (at - below) * (values[above] - values[below]);
}

/** The t with P(T ≤ t) = p for Student's distribution with `freedom` degrees of freedom; p in (0.5, 1). */
export function tQuantile(p: number, freedom: number): number {
  // P(T > t) = I_x(ν/2, ½)/2 with x = ν/(ν+t²), and I grows with x: halve the interval that holds x.
  const tail = 2 * (1 - p);
  let low = 0;
  let high = 1;
  for (let step = 0; step < 200 && low < high; step++) {
    const middle = (low + high) / 2;
    if (middle === low || middle === high) break;
    if (incompleteBeta(middle, freedom / 2, 0.5) < tail) low = middle;
    else high = middle;
  }
  return Math.sqrt((freedom * (1 - low)) / low);
}

/**
 * Regularized incomplete beta function I_x(a, b), by its continued fraction.
 *
 * Abramowitz & Stegun, 1964, 26.5.8, evaluated by Lentz's method; the symmetry
 * I_x(a, b) = 1 − I_{1−x}(b, a) keeps it where it converges quickly.
 */
function incompleteBeta(x: number, a: number, b: number): number {
  if (x <= 0) return 0;
  if (x >= 1) return 1;
  if (x > (a + 1) / (a + b + 2)) return 1 - incompleteBeta(1 - x, b, a);
  const TINY = 1e-300;
  const away = (value: number) => (Math.abs(value) < TINY ? TINY : value);
  let c = 1;
  let d = 1 / away(1 - ((a + b) * x) / (a + 1));
  let fraction = d;
  for (let m = 1; m < 1000; m++) {
    const even = (m * (b - m) * x) / ((a + 2 * m - 1) * (a + 2 * m));
    d = 1 / away(1 + even * d);
    c = away(1 + even / c);
    fraction *= d * c;
    const odd = (-(a + m) * (a + b + m) * x) / ((a + 2 * m) * (a + 2 * m + 1));
    d = 1 / away(1 + odd * d);
    c = away(1 + odd / c);
    fraction *= d * c;
    if (Math.abs(d * c - 1) < 1e-15) break;
  }
  const front = Math.exp(a * Math.log(x) + b * Math.log1p(-x) + logGamma(a + b) - logGamma(a) - logGamma(b));
  return (front * fraction) / a;
}

/** ln Γ(x) for x > 0: Stirling's series after shifting x above 15 (Abramowitz & Stegun, 1964, 6.1.41). */
function logGamma(x: number): number {
  let shift = 0;
  while (x < 15) shift += Math.log(x++);
  const r = 1 / (x * x);
  const series = (1 / 12 - r * (1 / 360 - r * (1 / 1260 - r * (1 / 1680 - r / 1188)))) / x;
  return (x - 0.5) * Math.log(x) - x + Math.log(2 * Math.PI) / 2 + series - shift;
}
