import type { Running } from "../models/run.ts";
import { pauses } from "../record/pause.ts";
import type { Job } from "../record/record.ts";
import { InputError } from "../tensor/tensor.ts";
import { best, clusterOf, LOGIT_ROWS, logitsOfRows, lossesOfStates, scoredStates } from "./loss.ts";
import { counted, type Sequence } from "./sequences.ts";
import { type Cluster, quantile } from "./statistics.ts";

/** How far a model's predictions are from a reference model's, over the same tokens. */
export interface Divergence {
  /** Mean of KL(reference ‖ model), nats. */
  readonly klMean: number;
  /** Its 99th percentile over tokens, nats. */
  readonly kl99: number;
  /** Share of tokens where both find the same token most probable, 0 … 1. */
  readonly sameTop1: number;
}

/** What running a model beside its reference tells. */
export interface Comparison {
  /** Losses of the model, as `losses` gives them. */
  readonly clusters: readonly Cluster[];
  readonly divergence: Divergence;
}

/**
 * Runs both models over the same sequences in lock-step and compares every
 * predicted distribution. Memory: the hidden states of one sequence, the logits
 * of 16 tokens, and 4 bytes a token for the percentile.
 */
export async function compare(
  reference: Running,
  model: Running,
  sequences: readonly Sequence[],
  job: Job = {},
): Promise<Comparison> {
  const vocabulary = reference.model.config.vocabulary;
  if (model.model.config.vocabulary !== vocabulary) {
    throw new InputError(
      `divergence: both models need the same vocabulary, got ${vocabulary} and ${model.model.config.vocabulary} tokens`,
    );
  }
  const pause = pauses(job);
  const total = sequences.reduce((sum, sequence) => sum + counted(sequence), 0);
  const clusters: Cluster[] = [];
  const kl = new Float32Array(total);
  let done = 0;
  let sum = 0;
  let same = 0;
  for (const sequence of sequences) {
    await pause();
    const p = scoredStates(reference, sequence);
    const q = scoredStates(model, sequence);
    try {
      clusters.push(clusterOf(await lossesOfStates(model, q, sequence)));
      for (let from = 0; from < counted(sequence); from += LOGIT_ROWS) {
        await pause();
        const to = Math.min(from + LOGIT_ROWS, counted(sequence));
        const pLogits = await logitsOfRows(reference, p, from, to);
        const qLogits = await logitsOfRows(model, q, from, to);
        for (let row = 0; row < pLogits.length; row += vocabulary) {
          const nats = klOfLogits(pLogits, qLogits, row, vocabulary);
          kl[done++] = nats;
          sum += nats;
          if (best(pLogits, row, vocabulary) === best(qLogits, row, vocabulary)) same++;
        }
      }
    } finally {
      reference.backend.free(p);
      model.backend.free(q);
    }
    job.onProgress?.({ task: "compare", done, total, unit: "tokens", note: `KL ${(sum / done).toFixed(4)}` });
  }
  return { clusters, divergence: { klMean: sum / total, kl99: quantile(kl, 0.99), sameTop1: same / total } };
}

/**
 * KL(P ‖ Q) = Σ p·(ln p − ln q) of the softmax of two rows of logits, in 64 bits; nats.
 *
 * With shifted logits a and b: Σ e^a·(a − b)/Σ e^a − ln Σ e^a + ln Σ e^b.
 * Rounding can make a zero slightly negative: it is cut at 0. A token that P
 * rules out (−∞) adds nothing.
 */
export function klOfLogits(p: Float32Array, q: Float32Array, row: number, vocabulary: number): number {
  const largestP = p[row + best(p, row, vocabulary)];
  const largestQ = q[row + best(q, row, vocabulary)];
  let sumP = 0;
  let sumQ = 0;
  let cross = 0;
  for (let i = row; i < row + vocabulary; i++) {
    const a = p[i] - largestP;
    const b = q[i] - largestQ;
    const weight = Math.exp(a);
    sumP += weight;
    sumQ += Math.exp(b);
    if (weight > 0) cross += weight * (a - b);
  }
  const nats = cross / sumP - Math.log(sumP) + Math.log(sumQ);
  return Math.max(nats, 0);
}
