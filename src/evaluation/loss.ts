import { kvCache } from "../models/kv-cache.ts";
import { hiddenStates, logits, type Running } from "../models/run.ts";
import { pauses } from "../record/pause.ts";
import type { Job } from "../record/record.ts";
import { hostTensor, InputError, type Tensor } from "../tensor/tensor.ts";
import { counted, type Sequence } from "./sequences.ts";
import type { Cluster } from "./statistics.ts";

/** Logits of this many tokens are held at once. */
export const LOGIT_ROWS = 16;

// Tokens that pass through a cache together, as those of a prompt do.
const CHUNK = 256;

/**
 * Loss of each sequence's counted tokens, nats. Sequences are computed one by
 * one, so that what stands beside a sequence cannot change its result; full
 * logits are never stored.
 */
export async function losses(
  running: Running,
  sequences: readonly Sequence[],
  job: Job = {},
): Promise<Cluster[]> {
  const pause = pauses(job);
  const total = sequences.reduce((sum, sequence) => sum + counted(sequence), 0);
  const clusters: Cluster[] = [];
  let done = 0;
  let nats = 0;
  for (const sequence of sequences) {
    await pause();
    const cluster = clusterOf(await tokenLosses(running, sequence));
    clusters.push(cluster);
    done += cluster.count;
    nats += cluster.sum;
    job.onProgress?.({
      task: "evaluate",
      done,
      total,
      unit: "tokens",
      note: `loss ${(nats / done).toFixed(4)}`,
    });
  }
  return clusters;
}

/** −ln p of each counted token of a sequence: (counted). */
export async function tokenLosses(running: Running, sequence: Sequence): Promise<Float32Array> {
  const states = scoredStates(running, sequence);
  try {
    return await lossesOfStates(running, states, sequence);
  } finally {
    running.backend.free(states);
  }
}

/**
 * Hidden states that predict the counted tokens: (counted, dim). The caller frees them. When `running` names a cache,
 * keys and values pass through it, as when generating.
 */
export function scoredStates(running: Running, sequence: Sequence): Tensor {
  const { backend, model, cache } = running;
  const { ids, first } = sequence;
  checkIds(ids, model.config.vocabulary);
  if (cache !== undefined) return cachedStates(running, sequence);
  return backend.scope(() => {
    const hidden = hiddenStates(running, ids.subarray(0, -1));
    return backend.rows(hidden, first - 1, ids.length - 1);
  });
}

function cachedStates(running: Running, { ids, first }: Sequence): Tensor {
  const { backend, model, cache } = running;
  const end = ids.length - 1;
  const held = kvCache(backend, model.config, end, cache);
  try {
    return backend.scope(() => {
      const states = backend.zeros([end + 1 - first, model.config.dim]);
      for (let from = 0; from < end; from += CHUNK) {
        const to = Math.min(from + CHUNK, end);
        backend.scope(() => {
          const hidden = hiddenStates(running, ids.subarray(from, to), held);
          const scored = Math.max(from, first - 1);
          if (scored < to)
            backend.cacheAppend(states, backend.rows(hidden, scored - from, to - from), scored + 1 - first);
        });
      }
      return states;
    });
  } finally {
    held.free();
  }
}

/** −ln p of each counted token, from the hidden states that predict them. */
export async function lossesOfStates(
  running: Running,
  states: Tensor,
  { ids, first }: Sequence,
): Promise<Float32Array> {
  const { backend, model, weights } = running;
  // The fused kernel multiplies by float32: a head of int8 activations is measured as generation computes it.
  if (weights.get(model.headWeight)!.activations === "int8") {
    return lossesOfLogits(running, states, ids.subarray(first));
  }
  const loss = backend.scope(() => {
    const targets = backend.upload(hostTensor([ids.length - first], ids.slice(first)));
    return backend.crossEntropy(states, weights.get(model.headWeight)!, targets);
  });
  try {
    return (await backend.read(loss)) as Float32Array;
  } finally {
    backend.free(loss);
  }
}

/** −ln p of each target, ln Σ e^s − s of the target's score s, in 64 bits. */
async function lossesOfLogits(running: Running, states: Tensor, targets: Int32Array): Promise<Float32Array> {
  const { vocabulary } = running.model.config;
  const losses = new Float32Array(targets.length);
  for (let from = 0; from < targets.length; from += LOGIT_ROWS) {
    const scores = await logitsOfRows(running, states, from, Math.min(from + LOGIT_ROWS, targets.length));
    for (let row = 0; row < scores.length; row += vocabulary) {
      const largest = scores[row + best(scores, row, vocabulary)];
      let sum = 0;
      for (let i = row; i < row + vocabulary; i++) sum += Math.exp(scores[i] - largest);
      const t = from + row / vocabulary;
      losses[t] = Math.log(sum) - (scores[row + targets[t]] - largest);
    }
  }
  return losses;
}

/** Scores of the next token for rows from … to−1 of hidden states: (to − from, vocabulary). */
export async function logitsOfRows(
  running: Running,
  hidden: Tensor,
  from: number,
  to: number,
): Promise<Float32Array> {
  const { backend } = running;
  const tile = backend.scope(() => logits(running, backend.rows(hidden, from, to)));
  try {
    return (await backend.read(tile)) as Float32Array;
  } finally {
    backend.free(tile);
  }
}

/** Place of the largest score of a row that begins at `row`. */
export function best(scores: Float32Array, row: number, vocabulary: number): number {
  let best = 0;
  for (let i = 1; i < vocabulary; i++) if (scores[row + i] > scores[row + best]) best = i;
  return best;
}

/** The losses of one sequence as one cluster. */
export function clusterOf(losses: Float32Array): Cluster {
  let sum = 0;
  for (const loss of losses) sum += loss;
  return { sum, count: losses.length };
}

/** An InputError for an id that the model does not have: the tokenizer belongs to another model. */
function checkIds(ids: Int32Array, vocabulary: number): void {
  const wrong = ids.find((id) => id < 0 || id >= vocabulary);
  if (wrong !== undefined) {
    throw new InputError(
      `evaluate: token ${wrong} is outside the model's vocabulary of ${vocabulary}; use its own tokenizer`,
    );
  }
}
