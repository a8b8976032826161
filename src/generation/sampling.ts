import { InputError } from "../tensor/tensor.ts";

/** How the next token is drawn. Filters work in this order, on the softmax of logits/temperature. */
export interface SamplingOptions {
  /** Divides the logits; 0 takes the best token each time. Default 1. */
  readonly temperature?: number;
  /** Keeps the k best tokens; 0 keeps all. Default 0. */
  readonly topK?: number;
  /** Keeps the fewest best tokens whose probabilities sum to at least this. Default 1: all. */
  readonly topP?: number;
  /** Keeps tokens at least this probable relative to the best one. Default 0: all. */
  readonly minP?: number;
}

/** A token that may be drawn, and its probability among those. */
export interface Candidate {
  readonly id: number;
  readonly probability: number;
}

/** Throws an InputError that names the option that is out of range. */
export function checkSampling({ temperature = 1, topK = 0, topP = 1, minP = 0 }: SamplingOptions): void {
  const need = (ok: boolean, name: string, range: string, met: number) => {
    if (!ok) throw new InputError(`sampling: ${name} must be ${range}, got ${met}`);
  };
  need(temperature >= 0 && Number.isFinite(temperature), "temperature", "0 or more", temperature);
  need(Number.isInteger(topK) && topK >= 0, "top-k", "a whole number from 0", topK);
  need(topP > 0 && topP <= 1, "top-p", "above 0 and at most 1", topP);
  need(minP >= 0 && minP <= 1, "min-p", "from 0 to 1", minP);
}

/** The best token; of equals the one with the lowest id. Throws when there is none: NaN anywhere, or infinity on top. */
export function greedy(logits: Float32Array): number {
  let best = 0;
  for (let id = 0; id < logits.length; id++) {
    if (!(logits[id] <= logits[best])) best = id;
    if (Number.isNaN(logits[id])) break;
  }
  if (!Number.isFinite(logits[best])) {
    throw new Error(`sampling: the logit of token ${best} is ${logits[best]}; are the weights sound?`);
  }
  return best;
}

/**
 * The tokens that the filters leave, by ascending id, with probabilities that sum to 1.
 * Of equal logits the lower id counts as better.
 *
 * top-k: Fan et al., 2018 (https://arxiv.org/abs/1805.04833), section 5.4;
 * top-p: Holtzman et al., 2019 (https://arxiv.org/abs/1904.09751), section 3.1;
 * min-p: Nguyen et al., 2024 (https://arxiv.org/abs/2407.01082), section 3.1.
 */
export function candidates(
  logits: Float32Array,
  { temperature = 1, topK = 0, topP = 1, minP = 0 }: SamplingOptions,
): Candidate[] {
  const best = greedy(logits);
  if (temperature === 0) return [{ id: best, probability: 1 }];
  const weight = (logit: number) => Math.exp((logit - logits[best]) / temperature); // 1 for the best token

  // Sorted logits say how many stay; the smallest of them is the threshold.
  const descending = logits.slice().sort().reverse();
  let count = topK > 0 ? Math.min(topK, logits.length) : logits.length;
  if (topP < 1) count = nucleus(descending.subarray(0, count), weight, topP);
  while (count > 1 && weight(descending[count - 1]) < minP) count--;

  const threshold = descending[count - 1];
  let ties = count - descending.indexOf(threshold); // of those at the threshold, this many
  const kept: Candidate[] = [];
  let total = 0;
  for (let id = 0; id < logits.length; id++) {
    if (!(logits[id] > threshold || (logits[id] === threshold && ties-- > 0))) continue;
    kept.push({ id, probability: weight(logits[id]) });
    total += weight(logits[id]);
  }
  return kept.map(({ id, probability }) => ({ id, probability: probability / total }));
}

/** Draws one token: greedy at temperature 0, else by one number from `random`. */
export function sample(logits: Float32Array, options: SamplingOptions, random: () => number): number {
  if (options.temperature === 0) return greedy(logits);
  const kept = candidates(logits, options);
  let left = random();
  for (const { id, probability } of kept) {
    left -= probability;
    if (left < 0) return id;
  }
  return kept[kept.length - 1].id; // rounding left a crumb
}

/** Fewest of the best whose weights reach the share `topP` of all given weights. */
function nucleus(descending: Float32Array, weight: (logit: number) => number, topP: number): number {
  const total = descending.reduce((sum, logit) => sum + weight(logit), 0);
  let sum = 0;
  for (let count = 0; count < descending.length; count++) {
    sum += weight(descending[count]);
    if (sum >= topP * total) return count + 1;
  }
  return descending.length;
}
