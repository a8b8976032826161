import type { Tokenizer } from "../tokenizers/tokenizer.ts";

/** Texts behind which a repetition starts anew, as in the original: the marks of lists and dialogues. */
export const BREAKERS: readonly string[] = ["\n", ":", '"', "*"];

/**
 * For every token that would go on with a repetition: how many tokens before it
 * are repeated, the longest where there are several. A repetition is at most
 * `most` tokens long and of the last `window` tokens (all for 0).
 *
 * Z-algorithm on the text read backwards, O(window).
 */
export function repetitions(history: readonly number[], window: number, most: number): Map<number, number> {
  const size = window === 0 ? history.length : Math.min(window, history.length);
  const back = (i: number) => history[history.length - 1 - i];
  const longest = new Map<number, number>();
  // same[k]: how many tokens from the end equal those that end k earlier.
  const same = new Int32Array(size);
  let left = 0; // the known stretch that reaches furthest: tokens left … right−1 equal tokens 0 … right−left−1
  let right = 0;
  for (let k = 1; k < size; k++) {
    let n = k < right ? Math.min(same[k - left], right - k) : 0;
    while (k + n < size && back(n) === back(k + n)) n++;
    same[k] = n;
    if (k + n > right) [left, right] = [k, k + n];
    const next = back(k - 1); // what followed there
    const length = Math.min(n, most);
    if (length > (longest.get(next) ?? 0)) longest.set(next, length);
  }
  return longest;
}

/** multiplier·base^(length − allowed), never infinite: a token is made improbable, not banned. */
export function dryPenalty(length: number, multiplier: number, base: number, allowed: number): number {
  return Math.min(multiplier * base ** (length - allowed), 1e30);
}

/**
 * Where a text breaks: behind a token in which one of the breakers ends, however
 * it is cut into tokens. Texts are compared byte by byte.
 */
export class Breaks {
  readonly #tokenizer: Tokenizer;
  readonly #breakers: readonly string[];
  readonly #longest: number;
  /** Tokens up to the last break, for every length of the text. */
  readonly #last: number[] = [0];

  constructor(tokenizer: Tokenizer, breakers: readonly string[]) {
    this.#tokenizer = tokenizer;
    this.#breakers = breakers.map((breaker) => latin1(new TextEncoder().encode(breaker)));
    this.#longest = this.#breakers.reduce((most, { length }) => Math.max(most, length), 0);
  }

  /** Takes the newest token of a text into account. */
  push(history: readonly number[]): void {
    const own = this.#text(history[history.length - 1]);
    let before = "";
    for (let at = history.length - 2; at >= 0 && before.length < this.#longest - 1; at--) {
      before = this.#text(history[at]) + before;
    }
    const text = before + own;
    // The last place where it stands ends in the newest token, if one does.
    const ends = this.#breakers.some((breaker) => {
      const from = text.lastIndexOf(breaker);
      return from >= 0 && from + breaker.length > before.length;
    });
    this.#last.push(ends ? history.length : this.#last[this.#last.length - 1]);
  }

  pop(): void {
    this.#last.pop();
  }

  /** Tokens since the last break, all where there is none. */
  get since(): number {
    return this.#last.length - 1 - this.#last[this.#last.length - 1];
  }

  /** A breaker is inside of this token. */
  within(id: number): boolean {
    return this.#breakers.some((breaker) => this.#text(id).includes(breaker));
  }

  #text(id: number): string {
    return latin1(this.#tokenizer.bytes(id));
  }
}

function latin1(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
}
