/**
 * Moves logits of tokens that were there before away from them, in place.
 *
 *   logit / repetition where it is above 0, logit·repetition below;
 *   then − presence − frequency·count
 *
 * Repetition: Keskar et al., 2019 (https://arxiv.org/abs/1909.05858), section
 * 4.1, which divides only; below zero that would favour repetition. Presence
 * and frequency: OpenAI's API reference.
 */
export function penalize(
  counts: ReadonlyMap<number, number>,
  { repetition = 1, presence = 0, frequency = 0 },
  logits: Float32Array,
): void {
  for (const [id, count] of counts) {
    const logit = logits[id];
    logits[id] = (logit > 0 ? logit / repetition : logit * repetition) - presence - frequency * count;
  }
}

/** The tokens of a text so far, those of its end counted; the newest can be taken back. */
export class History {
  readonly #ids: number[] = [];
  readonly #counts = new Map<number, number>();
  readonly #window: number;

  /** Counts the last `window` tokens; all for 0. */
  constructor(window: number) {
    this.#window = window === 0 ? Number.POSITIVE_INFINITY : window;
  }

  get ids(): readonly number[] {
    return this.#ids;
  }

  /** How often each of the last tokens is there. */
  get counts(): ReadonlyMap<number, number> {
    return this.#counts;
  }

  push(id: number): void {
    this.#ids.push(id);
    this.#count(id, 1);
    if (this.#ids.length > this.#window) this.#count(this.#ids[this.#ids.length - 1 - this.#window], -1);
  }

  pop(): void {
    if (this.#ids.length > this.#window) this.#count(this.#ids[this.#ids.length - 1 - this.#window], 1);
    const id = this.#ids.pop();
    if (id !== undefined) this.#count(id, -1);
  }

  #count(id: number, by: number): void {
    const count = (this.#counts.get(id) ?? 0) + by;
    if (count === 0) this.#counts.delete(id);
    else this.#counts.set(id, count);
  }
}
