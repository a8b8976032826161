import { kvCache } from "../models/kv-cache.ts";
import type { KvCache } from "../models/model.ts";
import { hiddenStates, logits, type Running } from "../models/run.ts";
import { pauses } from "../record/pause.ts";
import type { Job } from "../record/record.ts";
import { InputError } from "../tensor/tensor.ts";

// Tokens of a prompt that are computed at a time: enough to fill the matrix
// kernels, few enough to stay interruptible and to bound the activations.
const CHUNK = 256;

/**
 * One sequence that grows on a running model: the tokens fed so far, with
 * their keys and values. Free it when done.
 */
export class Session {
  readonly running: Running;
  /** Most tokens that it can hold. */
  readonly capacity: number;
  readonly #cache: KvCache;
  readonly #held: number[] = [];

  constructor(running: Running, capacity = running.model.config.context) {
    this.running = running;
    this.capacity = Math.min(capacity, running.model.config.context);
    this.#cache = kvCache(running.backend, running.model.config, this.capacity);
  }

  /**
   * Makes these tokens the sequence, computing only what follows the beginning
   * that they share with the one held; gives the logits after the last: (vocabulary).
   */
  async start(ids: Int32Array, job: Job = {}): Promise<Float32Array> {
    if (ids.length === 0) throw new InputError("generate: needs at least one token to start from, got none");
    if (ids.length > this.capacity) {
      throw new InputError(
        `generate: a prompt of ${ids.length} tokens does not fit into a context of ${this.capacity}`,
      );
    }
    let shared = 0;
    while (shared < ids.length - 1 && ids[shared] === this.#held[shared]) shared++;
    this.#cache.truncate(shared);
    this.#held.length = Math.min(shared, this.#held.length);

    const pause = pauses(job);
    const last = Math.floor((ids.length - 1 - shared) / CHUNK) * CHUNK + shared;
    for (let from = shared; from < last; from += CHUNK) {
      await pause();
      this.#run(ids.subarray(from, from + CHUNK));
    }
    await pause();
    return this.next(ids.subarray(last));
  }

  /** Feeds tokens behind those held; gives the logits after the last: (vocabulary). */
  async next(ids: Int32Array): Promise<Float32Array> {
    const { backend } = this.running;
    this.#check(ids);
    const scores = backend.scope(() => {
      const hidden = hiddenStates(this.running, ids, this.#cache);
      return logits(this.running, backend.rows(hidden, ids.length - 1, ids.length));
    });
    this.#held.push(...ids);
    try {
      return (await backend.read(scores)) as Float32Array;
    } finally {
      backend.free(scores);
    }
  }

  free(): void {
    this.#cache.free();
  }

  #run(ids: Int32Array): void {
    this.#check(ids);
    this.running.backend.free(hiddenStates(this.running, ids, this.#cache));
    this.#held.push(...ids);
  }

  #check(ids: Int32Array): void {
    const { vocabulary } = this.running.model.config;
    const wrong = ids.find((id) => id < 0 || id >= vocabulary);
    if (wrong !== undefined) {
      throw new InputError(
        `generate: token ${wrong} is outside the model's vocabulary of ${vocabulary}; use its own tokenizer`,
      );
    }
  }
}
