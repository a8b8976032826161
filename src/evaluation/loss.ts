import { kvCache } from "../models/kv-cache.ts";
import { hiddenStates, type Running } from "../models/run.ts";
import { pauses } from "../record/pause.ts";
import type { Job } from "../record/record.ts";
import { hostTensor, InputError, type Tensor } from "../tensor/tensor.ts";
import { counted, type Sequence } from "./sequences.ts";
import type { Cluster } from "./statistics.ts";

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
  { backend, model, weights }: Running,
  states: Tensor,
  { ids, first }: Sequence,
): Promise<Float32Array> {
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
