import type { Backend } from "../backends/backend.ts";
import { hostTensor, type Tensor } from "../tensor/tensor.ts";
import type { CacheName } from "./kv-cache.ts";
import type { KvCache, Model, Weights } from "./model.ts";

/** A model with its weights on a backend, ready to compute. */
export interface Running {
  readonly model: Model;
  readonly backend: Backend;
  readonly weights: Weights;
  /** Table of rotary positions, for `model.config.context` tokens. */
  readonly rope: Tensor;
  /** Set to measure the model as it is with keys and values kept so (evaluation/loss.ts). */
  readonly cache?: CacheName;
}

/**
 * Hidden states after the last norm of one sequence: ids (tokens) -> (tokens, dim).
 * With a cache the ids continue what it holds, and it holds them afterwards.
 * The caller frees the result; everything between is freed here.
 */
export function hiddenStates(
  { model, backend, weights, rope }: Running,
  ids: Int32Array,
  cache?: KvCache,
): Tensor {
  const at = { batch: 1, time: ids.length, from: cache?.length ?? 0 };
  return backend.scope(() => {
    let x = model.embed(backend, backend.upload(hostTensor([ids.length], ids)), weights);
    for (let i = 0; i < model.config.layers; i++) {
      const next = backend.scope(() => model.block(backend, i, x, weights, at, rope, cache));
      backend.free(x);
      x = next;
    }
    cache?.advance(ids.length);
    return model.finalNorm(backend, x, weights);
  });
}

/** Scores of the next token for rows of hidden states: (rows, dim) -> logits (rows, vocabulary). */
export function logits({ model, backend, weights }: Running, hidden: Tensor): Tensor {
  return backend.linear(hidden, weights.get(model.headWeight)!);
}
