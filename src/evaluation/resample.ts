import type { Random } from "../tensor/random.ts";
import { InputError } from "../tensor/tensor.ts";
import { quantile } from "./statistics.ts";

/**
 * How often each window of a text occurs in one resample of it: documents are
 * drawn with replacement, and then, of each document drawn, as many windows as
 * it has, with replacement. `sizes` are the windows of each document; the
 * result has one number for each window, document after document.
 *
 * The bootstrap of nested samples, Davison and Hinkley, Bootstrap Methods and
 * their Application, 1997, section 3.8. With few documents drawing these alone finds
 * too little spread, by (n−1)/n in the variance; the second draw makes up for it.
 */
export function drawWindows(random: Random, sizes: readonly number[]): Float64Array {
  const starts: number[] = [];
  let total = 0;
  for (const size of sizes) {
    starts.push(total);
    total += size;
  }
  const times = new Float64Array(total);
  for (let i = 0; i < sizes.length; i++) {
    const d = Math.floor(random() * sizes.length);
    for (let k = 0; k < sizes[d]; k++) times[starts[d] + Math.floor(random() * sizes[d])]++;
  }
  return times;
}

/** Ends of the interval that holds the middle `level` of the replicates (Efron's percentile interval). */
export function percentiles(
  replicates: ArrayLike<number>,
  level = 0.95,
): { readonly low: number; readonly high: number } {
  const values = Float64Array.from(replicates);
  if (values.some(Number.isNaN)) throw new InputError("statistics: a replicate is not a number");
  return { low: quantile(values, (1 - level) / 2), high: quantile(values, (1 + level) / 2) };
}
