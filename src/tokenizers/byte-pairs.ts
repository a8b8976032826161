import { InputError } from "../tensor/tensor.ts";
import { BYTE_CHARACTERS, byteName, ownText, SPACE_MARK } from "./bytes.ts";
import { type Merges, MOST_RANKS, mergeNeighbours, pairKey, partsBetween } from "./merges.ts";
import { type PreTokenizer, wordsOf } from "./pre-tokenizers.ts";

/** Appends the ids of a text in which no special token is looked for; pauses now and then. */
export type Encoder = (text: string, ids: number[]) => Generator<void, void>;

/** Texts up to this length are remembered with their ids. */
const REMEMBERED_LENGTH = 32;
/** About 20 MB. */
const MOST_REMEMBERED = 2 ** 16;
/** Characters between pauses: about a millisecond. */
const BETWEEN_PAUSES = 8192;

const utf8 = new TextEncoder();

/**
 * Byte-level byte-pair encoding (GPT-2's): text is cut into words, the bytes
 * of a word are merged by rank. Bytes that the vocabulary lacks are left out,
 * as llama.cpp does. Throws an InputError for merges that name no tokens.
 */
export function byteLevelEncoder(
  idOf: ReadonlyMap<string, number>,
  merges: readonly string[],
  pre: PreTokenizer,
): Encoder {
  const ranked = new RankedMerges(merges, idOf);
  const idOfByte = BYTE_CHARACTERS.map((character) => idOf.get(character) ?? -1);
  let work = 0;

  const ofWord = remembered(function* (word) {
    const bytes = utf8.encode(word);
    if (pre.ignoreMerges) {
      const whole = idOf.get(Array.from(bytes, (byte) => BYTE_CHARACTERS[byte]).join(""));
      if (whole !== undefined) return [whole];
    }
    const symbols = Int32Array.from(bytes, (byte) => idOfByte[byte]);
    const count = yield* mergeNeighbours(symbols, ranked);
    return Array.from(symbols.subarray(0, count)).filter((id) => id >= 0);
  });
  const each = (words: (text: string) => Iterable<string>, idsOf: Remembered): Encoder =>
    function* (text, ids) {
      for (const word of words(text)) {
        if ((work += word.length + 4) > BETWEEN_PAUSES) {
          work = 0;
          yield;
        }
        for (const id of idsOf.known(word) ?? (yield* idsOf.find(word))) ids.push(id);
      }
    };
  if (pre.stages.length < 2) return each(wordsOf(pre), ofWord);
  // What the first stage leaves often repeats, and then the others need not look at it.
  const inPart = each(wordsOf(pre, 1), ofWord);
  const ofPart = remembered(function* (part) {
    const ids: number[] = [];
    yield* inPart(part, ids);
    return ids;
  });
  return each(wordsOf(pre, 0, 1), ofPart);
}

/**
 * Byte-pair encoding of a whole text by rank, spaces as `▁`, characters that
 * are no piece as their bytes `<0xHH>`: Llama's vocabulary as tokenizer.json has it.
 */
export function spacedEncoder(idOf: ReadonlyMap<string, number>, merges: readonly string[]): Encoder {
  const ranked = new RankedMerges(merges, idOf);
  const partsOf = partsBetween(idOf.keys(), SPACE_MARK);
  return function* (text, ids) {
    for (const part of partsOf(text.replaceAll(" ", SPACE_MARK))) {
      yield;
      const symbols: number[] = [];
      for (const character of part) {
        const id = idOf.get(character);
        if (id !== undefined) symbols.push(id);
        else for (const byte of utf8.encode(character)) symbols.push(idOf.get(byteName(byte)) ?? -1);
      }
      const list = Int32Array.from(symbols);
      const count = yield* mergeNeighbours(list, ranked);
      for (const id of list.subarray(0, count)) if (id >= 0) ids.push(id);
    }
  };
}

interface Remembered {
  known(text: string): readonly number[] | undefined;
  find(text: string): Generator<void, readonly number[]>;
}

function remembered(find: (text: string) => Generator<void, readonly number[]>): Remembered {
  const seen = new Map<string, readonly number[]>();
  return {
    known: (text) => (text.length > REMEMBERED_LENGTH ? undefined : seen.get(text)),
    *find(text) {
      const ids = yield* find(text);
      if (text.length <= REMEMBERED_LENGTH) {
        if (seen.size === MOST_REMEMBERED) seen.clear();
        seen.set(ownText(text), ids);
      }
      return ids;
    },
  };
}

/** Merges of a list of `left right`, the first of lowest rank. Symbols are ids. */
class RankedMerges implements Merges {
  readonly #rankOf = new Map<number, number>();
  readonly #products: Int32Array;

  constructor(merges: readonly string[], idOf: ReadonlyMap<string, number>) {
    if (merges.length === 0)
      throw new InputError("tokenizer: a byte-level vocabulary needs merges, the file has none");
    if (merges.length > MOST_RANKS)
      throw new InputError(`tokenizer: ${merges.length} merges; at most ${MOST_RANKS} are read`);
    this.#products = new Int32Array(merges.length);
    for (const [rank, merge] of merges.entries()) {
      const space = merge.indexOf(" ", 1);
      const [left, right] = [merge.slice(0, space), merge.slice(space + 1)];
      const shown = JSON.stringify(merge.slice(0, 60));
      if (space < 0 || right === "") {
        throw new InputError(`tokenizer: merge ${rank} is ${shown}; needs two tokens with a space between`);
      }
      const [a, b, product] = [left, right, left + right].map((token) => idOf.get(token));
      if (a === undefined || b === undefined || product === undefined) {
        throw new InputError(
          `tokenizer: merge ${rank}, ${shown}, names or makes a token that the vocabulary lacks`,
        );
      }
      const key = pairKey(a, b);
      if (!this.#rankOf.has(key)) this.#rankOf.set(key, rank);
      this.#products[rank] = product;
    }
  }

  find(left: number, right: number): number {
    return this.#rankOf.get(pairKey(left, right)) ?? -1;
  }

  rank(merge: number): number {
    return merge;
  }

  product(merge: number): number {
    return this.#products[merge];
  }
}
