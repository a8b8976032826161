import { z } from "zod";

const count = z.int().min(1);

/** What is done when the loss jumps; unless a recipe asks for it, nothing but to stop at a loss that is no number. */
export const spikesSchema = z.strictObject({
  /** Losses of so many steps say what is usual. */
  window: z.int().min(8).default(64),
  /** A loss so many deviations above their median is a spike. */
  threshold: z.number().positive().default(10),
  /** Batches left out: that of the spike and those before it, whose steps may be its cause. */
  skip: count.default(2),
  /** Rollbacks for one spike, before the run stops. */
  retries: count.default(3),
});

export type Spikes = z.output<typeof spikesSchema>;

/** 1.4826·MAD is the deviation of a normal distribution. */
const MAD_TO_DEVIATION = 1.4826;
/** A plateau has no deviation at all; this share of the median is the least that counts. */
const LEAST = 1e-3;

/**
 * What is unusual about a loss, in words; undefined when nothing is.
 *
 *   loss > m + threshold·max(1.4826·MAD, |m|/1000),  m = median, MAD = median|l − m| of the `window` losses before
 *
 * Going back to a checkpoint and leaving out the batches around a spike:
 * Chowdhery et al., 2022 (PaLM, https://arxiv.org/abs/2204.02311), section 5.1.
 * The median and its deviation, which a spike does not move: Hampel, 1974.
 */
export function spikeOf(
  before: readonly number[],
  loss: number,
  { window, threshold }: Pick<Spikes, "window" | "threshold">,
): string | undefined {
  if (!Number.isFinite(loss)) return `the loss is ${loss}`;
  if (before.length < window) return undefined;
  const recent = before.slice(-window);
  const m = median(recent);
  const deviation = Math.max(
    MAD_TO_DEVIATION * median(recent.map((l) => Math.abs(l - m))),
    LEAST * Math.abs(m),
  );
  if (loss <= m + threshold * deviation) return undefined;
  const times = ((loss - m) / deviation).toFixed(1);
  return `the loss ${loss.toFixed(4)} is ${times} deviations above the median ${m.toFixed(4)} of ${window} steps`;
}

/** Steps over which a run must be bad to be called diverged. */
export const DIVERGED_STEPS = 16;
/** Times the loss of the first step, or of a model that knows nothing. */
const DIVERGED_LOSS = 3;

/** Whether a run is lost: the median of its last losses is three times what it began with, and what guessing gives. */
export function hasDiverged(losses: readonly number[], first: number, vocabulary: number): boolean {
  if (losses.length < DIVERGED_STEPS) return false;
  return median(losses.slice(-DIVERGED_STEPS)) > DIVERGED_LOSS * Math.max(first, Math.log(vocabulary));
}

/** Which batch a step sees (both from 0) when some are left out; `skipped` in ascending order. */
export function batchOf(step: number, skipped: readonly number[]): number {
  let batch = step;
  for (const one of skipped) if (one <= batch) batch++;
  return batch;
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
