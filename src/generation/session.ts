import { kvCache } from "../models/kv-cache.ts";
import type { KvCache } from "../models/model.ts";
import { ropeTable } from "../models/rope-table.ts";
import { hiddenStates, logits, type Running } from "../models/run.ts";
import { pauses } from "../record/pause.ts";
import type { Job } from "../record/record.ts";
import { hostTensor, InputError, type Tensor } from "../tensor/tensor.ts";

// Tokens of a prompt that are computed at a time: enough to fill the matrix
// kernels, few enough to stay interruptible and to bound the activations.
const CHUNK = 256;

/**
 * One sequence that grows on a running model: the tokens fed so far, with
 * their keys and values, kept as `running.cache` says. Free it when done.
 */
export class Session {
  readonly running: Running;
  /** Most tokens that it can hold. */
  readonly capacity: number;
  readonly #cache: KvCache;
  readonly #held: number[] = [];
  /** The running model, with a rotary table of this session's own once the sequence outgrows the model's. */
  #at: Running;

  constructor(running: Running, capacity = running.model.config.context) {
    this.running = running;
    this.#at = running;
    this.capacity = Math.min(capacity, running.model.config.context);
    this.#cache = kvCache(running.backend, running.model.config, this.capacity, running.cache);
  }

  /** Tokens held. */
  get length(): number {
    return this.#held.length;
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
    this.truncate(shared);

    const pause = pauses(job);
    for (let from = shared; ; from += CHUNK) {
      if (from > shared) {
        const [done, total] = [from - shared, ids.length - shared];
        job.onProgress?.({ task: "read", done, total, unit: "tokens" });
      }
      const hidden = await this.#hiddenPausing(ids.subarray(from, from + CHUNK), pause);
      try {
        if (from + CHUNK >= ids.length) return (await this.#scores(hidden, hidden.shape[0] - 1))[0];
      } finally {
        this.running.backend.free(hidden);
      }
    }
  }

  /** Feeds tokens behind those held; gives the logits after the last: (vocabulary). */
  async next(ids: Int32Array): Promise<Float32Array> {
    return (await this.#feed(ids, ids.length - 1))[0];
  }

  /** Feeds tokens behind those held; gives the logits after each: (vocabulary) as often. */
  each(ids: Int32Array): Promise<Float32Array[]> {
    return this.#feed(ids, 0);
  }

  /** Forgets all but the first `length` tokens. */
  truncate(length: number): void {
    this.#cache.truncate(length);
    this.#held.length = Math.min(length, this.#held.length);
  }

  free(): void {
    this.#cache.free();
    if (this.#at !== this.running) this.running.backend.free(this.#at.rope);
  }

  /** Feeds tokens at once; gives the logits after the tokens from … on. */
  async #feed(ids: Int32Array, from: number): Promise<Float32Array[]> {
    this.#prepare(ids);
    const hidden = hiddenStates(this.#at, ids, this.#cache);
    try {
      this.#hold(ids);
      return await this.#scores(hidden, from);
    } finally {
      this.running.backend.free(hidden);
    }
  }

  /** Feeds tokens with a pause between blocks, as many rows take long: hidden states, which the caller frees. */
  async #hiddenPausing(ids: Int32Array, pause: () => Promise<void>): Promise<Tensor> {
    this.#prepare(ids);
    const { model, backend, weights, rope } = this.#at;
    const at = { batch: 1, time: ids.length, from: this.#cache.length };
    await pause();
    let x = backend.scope(() => model.embed(backend, backend.upload(hostTensor([ids.length], ids)), weights));
    try {
      for (let i = 0; i < model.config.layers; i++) {
        const next = backend.scope(() => model.block(backend, i, x, weights, at, rope, this.#cache));
        backend.free(x);
        x = next;
        await pause();
      }
      const hidden = backend.scope(() => model.finalNorm(backend, x, weights));
      this.#cache.advance(ids.length);
      this.#hold(ids);
      return hidden;
    } finally {
      backend.free(x);
    }
  }

  /** Logits of rows from … on of hidden states. */
  async #scores(hidden: Tensor, from: number): Promise<Float32Array[]> {
    const { backend, model } = this.running;
    const rows = hidden.shape[0];
    const scores = backend.scope(() => logits(this.running, backend.rows(hidden, from, rows)));
    try {
      const all = (await backend.read(scores)) as Float32Array;
      const { vocabulary } = model.config;
      return Array.from({ length: rows - from }, (_, n) =>
        all.subarray(n * vocabulary, (n + 1) * vocabulary),
      );
    } finally {
      backend.free(scores);
    }
  }

  #hold(ids: Int32Array): void {
    for (const id of ids) this.#held.push(id);
  }

  /** Checks ids and sees to rotary positions for them. */
  #prepare(ids: Int32Array): void {
    this.#check(ids);
    this.#reach(this.#held.length + ids.length);
  }

  /**
   * Sees to rotary positions for so many tokens: those of the model, or a table
   * that grows by doubling, as a context of 131,072 is rarely used whole.
   */
  #reach(positions: number): void {
    const { backend, model } = this.running;
    const { rope } = this.#at;
    if (rope.shape[0] >= positions) return;
    const wanted = Math.min(Math.max(positions, 2 * rope.shape[0]), model.config.context);
    this.#at = { ...this.#at, rope: backend.keep(backend.upload(ropeTable(model.config, wanted))) };
    if (rope !== this.running.rope) backend.free(rope);
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
