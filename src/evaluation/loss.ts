import { hiddenStates, type Running } from "../models/run.ts";
import { pauses } from "../record/pause.ts";
import type { Job } from "../record/record.ts";
import { hostTensor, InputError, type Tensor } from "../tensor/tensor.ts";
import { counted, type Sequence } from "./sequences.ts";
import type { Cluster } from "./statistics.ts";

/**
 * Loss of each sequence's counted tokens, nats. Sequences are computed one by
 * one, so that what stands beside a sequence cannot change its result; full
 * logits are never stored.
 */
export async function losses(running: Running, sequences: readonly Sequence[], job: Job = {}): Promise<Cluster[]> {
  const pause = pauses(job);
  const total = sequences.reduce((sum, sequence) => sum + counted(sequence), 0);
  const clusters: Cluster[] = [];
  let done = 0;
  let nats = 0;
  for (const sequence of sequences) {
    await pause();
    const cluster = { sum: 0, count: counted(sequence) };
    for (const loss of await tokenLosses(running, sequence)) cluster.sum += loss;
    clusters.push(cluster);
    done += cluster.count;
    nats += cluster.sum;
    job.onProgress?.({ task: "evaluate", done, total, unit: "tokens", note: `loss ${(nats / done).toFixed(4)}` });
  }
  return clusters;
}

/** −ln p of each counted token of a sequence: (counted). */
export async function tokenLosses(running: Running, { ids, first }: Sequence): Promise<Float32Array> {
  const { backend, model, weights } = running;
  checkIds(ids, model.config.vocabulary);
  const loss = backend.scope(() => {
    const hidden = scoredStates(running, { ids, first });
    const targets = backend.upload(hostTensor([ids.length - first], ids.slice(first)));
    return backend.crossEntropy(hidden, weights.get(model.headWeight)!, targets);
  });
  try {
    return (await backend.read(loss)) as Float32Array;
  } finally {
    backend.free(loss);
  }
}

/** Hidden states that predict the counted tokens: (counted, dim). Call it in a scope. */
export function scoredStates(running: Running, { ids, first }: Sequence): Tensor {
  const hidden = hiddenStates(running, ids.subarray(0, -1));
  return running.backend.rows(hidden, first - 1, ids.length - 1);
}

/** An InputError for an id that the model does not have: the tokenizer belongs to another model. */
function checkIds(ids: Int32Array, vocabulary: number): void {
  const wrong = ids.find((id) => id < 0 || id >= vocabulary);
  if (wrong !== undefined) {
    throw new InputError(`evaluate: token ${wrong} is outside the model's vocabulary of ${vocabulary}; use its own tokenizer`);
  }
}
