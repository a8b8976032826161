import { generator, permutation } from "../tensor/random.ts";
import { InputError } from "../tensor/tensor.ts";
import type { TokenFile } from "./token-file.ts";

/**
 * Sequences of context + 1 tokens: window i has ids i·context … (i+1)·context,
 * so that every token but the first is predicted once. Documents follow one
 * another; a window may hold the end of one and the start of the next.
 */
export interface Batch {
  readonly sequences: number;
  /** Tokens that are read, (sequences·context). */
  readonly inputs: Int32Array;
  /** Tokens that are predicted, each the successor of the input beside it. */
  readonly targets: Int32Array;
}

/** Windows in a text of so many tokens. */
export function windowCount(tokens: number, context: number): number {
  return Math.max(0, Math.floor((tokens - 1) / context));
}

/** Targets of a batch that count: all but those that are −1, which the loss ignores. */
export function predicted({ targets }: Batch): number {
  return targets.reduce((count, target) => (target < 0 ? count : count + 1), 0);
}

/** The batch made of these windows, in this order. */
export async function readBatch(
  file: TokenFile,
  windows: readonly number[],
  context: number,
): Promise<Batch> {
  const inputs = new Int32Array(windows.length * context);
  const targets = new Int32Array(windows.length * context);
  for (const [i, window] of windows.entries()) {
    const ids = await file.slice(window * context, (window + 1) * context + 1);
    inputs.set(ids.subarray(0, context), i * context);
    targets.set(ids.subarray(1), i * context);
  }
  return { sequences: windows.length, inputs, targets };
}

/**
 * Which windows each step sees: pass after pass over all of them, each pass in
 * an order of its own. A pure function of seed, number of windows and batch
 * size, so that all families see the same and a resumed run sees the rest.
 */
export class BatchOrder {
  readonly #seed: number;
  readonly #windows: number;
  readonly #batch: number;
  #pass = -1;
  #order: Uint32Array = new Uint32Array(0);

  constructor(seed: number, windows: number, batch: number) {
    if (windows < batch) {
      throw new InputError(
        `data.text: makes ${windows} windows of model.context tokens, one batch needs ${batch}; needs more text, a smaller batch or a smaller context`,
      );
    }
    this.#seed = seed;
    this.#windows = windows;
    this.#batch = batch;
  }

  /** Whole steps in one pass. */
  get stepsPerPass(): number {
    return Math.floor(this.#windows / this.#batch);
  }

  /** Windows of a step, counted from 0. */
  at(step: number): number[] {
    return Array.from({ length: this.#batch }, (_, i) => {
      const position = step * this.#batch + i;
      const pass = Math.floor(position / this.#windows);
      if (pass !== this.#pass) {
        this.#order = permutation(generator(this.#seed + pass), this.#windows);
        this.#pass = pass;
      }
      return this.#order[position % this.#windows];
    });
  }
}

/** At most `most` of the windows, evenly spread. */
export function spread(windows: number, most: number): number[] {
  const chosen = Math.min(windows, most);
  return Array.from({ length: chosen }, (_, i) => Math.floor(((i + 0.5) * windows) / chosen));
}
