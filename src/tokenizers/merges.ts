import { InputError } from "../tensor/tensor.ts";
import { MinHeap } from "./heap.ts";

/** Which neighbours may become one symbol. Symbols are whole numbers from 0 to 2²⁶−1; −1 is one that never merges. */
export interface Merges {
  /** Index of the merge of two neighbours, −1 for none. */
  find(left: number, right: number): number;
  /** Merges of lower rank go first: 0 … 2²¹−1. */
  rank(merge: number): number;
  /** The symbol that takes the place of both. */
  product(merge: number): number;
}

/** Ranks and places share a double's 53 bits in the heap. */
export const MOST_RANKS = 2 ** 21;
const PLACES = 2 ** 32;
const SYMBOLS = 2 ** 26;

/** A generator pauses after this many merges: well under a millisecond. */
const BETWEEN_PAUSES = 2048;

/**
 * Byte-pair merging: of all neighbours that may be merged those of lowest rank
 * go first, the leftmost among equals, until none are left (Sennrich et al.,
 * 2016, https://arxiv.org/abs/1508.07909, section 3.2). Writes what is left to
 * the front of `symbols` and gives its length.
 *
 * O(n log n): symbols are a linked list, candidates a heap. A candidate is
 * stale, and skipped, when the merge at its place has another rank by now.
 */
export function* mergeNeighbours(symbols: Int32Array, merges: Merges): Generator<void, number> {
  const { length } = symbols;
  const next = new Int32Array(length);
  const previous = new Int32Array(length);
  const merge = new Int32Array(length).fill(-1); // of a symbol with its right neighbour
  const heap = new MinHeap();
  const consider = (left: number) => {
    if (left < 0) return;
    const right = next[left];
    const found =
      right < 0 || symbols[left] < 0 || symbols[right] < 0 ? -1 : merges.find(symbols[left], symbols[right]);
    merge[left] = found;
    if (found >= 0) heap.push(merges.rank(found) * PLACES + left);
  };
  for (let i = 0; i < length; i++) {
    next[i] = i + 1 < length ? i + 1 : -1;
    previous[i] = i - 1;
  }
  let work = 0;
  for (let i = 0; i < length; i++) {
    if (++work % BETWEEN_PAUSES === 0) yield;
    consider(i);
  }
  for (let key = heap.pop(); key !== undefined; key = heap.pop()) {
    if (++work % BETWEEN_PAUSES === 0) yield;
    const left = key % PLACES;
    const found = merge[left];
    if (found < 0 || merges.rank(found) !== (key - left) / PLACES) continue;
    const right = next[left];
    symbols[left] = merges.product(found);
    merge[right] = -1;
    next[left] = next[right];
    if (next[right] >= 0) previous[next[right]] = left;
    consider(previous[left]);
    consider(left);
  }
  let count = 0;
  for (let i = length > 0 ? 0 : -1; i >= 0; i = next[i]) symbols[count++] = symbols[i];
  return count;
}

/** Throws an InputError unless every score can be compared with every other, and there are not too many. */
export function checkScores(scores: ArrayLike<number>): void {
  const different = new Set<number>();
  for (let id = 0; id < scores.length; id++) {
    if (Number.isNaN(scores[id]))
      throw new InputError(`tokenizer: the score of token ${id} is NaN; damaged?`);
    different.add(scores[id]);
  }
  if (different.size > MOST_RANKS) {
    throw new InputError(`tokenizer: ${different.size} different scores; at most ${MOST_RANKS} are read`);
  }
}

/** One number for two symbols. */
export function pairKey(left: number, right: number): number {
  return left * SYMBOLS + right;
}

/** Characters of a part of a text: about a millisecond of merging. */
const PART = 4096;

/**
 * Cuts texts where no merge can cross, so that a long one takes no more memory
 * than a short one: before a space that follows something else, when no piece
 * has such a place inside. Otherwise a text is one part.
 */
export function partsBetween(pieces: Iterable<string>, space: string): (text: string) => Iterable<string> {
  const crossing = new RegExp(`[^${space}]${space}`);
  for (const piece of pieces) if (crossing.test(piece)) return (text) => [text];
  return function* (text) {
    let from = 0;
    for (let at = text.indexOf(space, PART); at > 0; ) {
      const cut = text[at - 1] !== space;
      if (cut) {
        yield text.slice(from, at);
        from = at;
      }
      at = text.indexOf(space, cut ? at + PART : at + 1);
    }
    yield text.slice(from);
  };
}

/** Pairs that are remembered, about 50 MB; a text with more loses its memory now and then. */
const MOST_PAIRS = 2 ** 20;

/**
 * SentencePiece's byte-pair merging: neighbours whose concatenation is a piece
 * become that piece, the best-scored first. Symbols are ids of pieces, and from
 * `ids` on characters that are no piece but may be the beginning of one.
 */
export class ScoredPieces implements Merges {
  readonly #idOf: ReadonlyMap<string, number>;
  readonly #texts: string[];
  readonly #ranks: Int32Array;
  readonly #others = new Map<string, number>();
  readonly #pairs = new Map<number, number>();
  readonly #longest: number;
  readonly ids: number;

  /** `idOf`: the pieces that merging may make; `scores`: of all ids, as `checkScores` wants them. */
  constructor(idOf: ReadonlyMap<string, number>, scores: ArrayLike<number>) {
    this.#idOf = idOf;
    this.ids = scores.length;
    this.#texts = new Array(scores.length).fill("");
    this.#longest = 0;
    for (const [text, id] of idOf) {
      this.#texts[id] = text;
      this.#longest = Math.max(this.#longest, text.length);
    }
    const order = [...new Set(Float64Array.from(scores))].sort((a, b) => b - a);
    const rankOf = new Map(order.map((score, rank) => [score, rank]));
    this.#ranks = Int32Array.from(scores, (score) => rankOf.get(score)!);
  }

  /** The symbols of a text, one for each of its characters. */
  symbols(text: string): Int32Array {
    const symbols = new Int32Array(text.length);
    let count = 0;
    for (const character of text) symbols[count++] = this.#idOf.get(character) ?? this.#other(character);
    return symbols.subarray(0, count);
  }

  /** What a symbol stands for. */
  text(symbol: number): string {
    return this.#texts[symbol];
  }

  find(left: number, right: number): number {
    const key = pairKey(left, right);
    let id = this.#pairs.get(key);
    if (id === undefined) {
      const [a, b] = [this.#texts[left], this.#texts[right]];
      id = a.length + b.length > this.#longest ? -1 : (this.#idOf.get(a + b) ?? -1);
      if (this.#pairs.size === MOST_PAIRS) this.#pairs.clear();
      this.#pairs.set(key, id);
    }
    return id;
  }

  rank(merge: number): number {
    return this.#ranks[merge];
  }

  product(merge: number): number {
    return merge;
  }

  #other(character: string): number {
    let symbol = this.#others.get(character);
    if (symbol === undefined) {
      symbol = this.#texts.push(character) - 1;
      this.#others.set(character, symbol);
    }
    return symbol;
  }
}
