import { DOCUMENT } from "./bpe-trainer.ts";
import type { Tokenizer } from "./tokenizer.ts";
import { WordTable, wordEnd } from "./words.ts";

/** About 40 MB; a text of more different words loses its memory now and then. */
const MOST_WORDS = 500_000;
/** Longer words, in UTF-16 units, are rare and not remembered. */
const LONGEST = 64;

/**
 * The same ids as `tokenizer.encode`, word by word with a memory of the words
 * seen: for long texts and tokenizers made by `trainByteLevelBpe`, whose merges
 * never cross a word. A word cut out of its text is one word again, so its ids
 * do not depend on what stood around it.
 */
export function wordCache(tokenizer: Tokenizer): (text: string) => Int32Array {
  const words = new WordTable();
  /** Ids of word w: ids[ends[w−1]…ends[w]). */
  let ids = new Int32Array(2 ** 12);
  const ends = new Uint32Array(MOST_WORDS);
  let out = new Int32Array(2 ** 12);
  let length = 0;

  const append = (from: Int32Array, begin: number, end: number) => {
    if (length + end - begin > out.length) out = larger(out, length + end - begin);
    for (let i = begin; i < end; i++) out[length++] = from[i];
  };
  const appendWord = (text: string, from: number, to: number) => {
    if (to - from > LONGEST) {
      const found = tokenizer.encode(text.slice(from, to));
      return append(found, 0, found.length);
    }
    if (words.size === MOST_WORDS) words.clear();
    const known = words.size;
    const word = words.add(text, from, to);
    const begin = word === 0 ? 0 : ends[word - 1];
    if (word === known) {
      const found = tokenizer.encode(text.slice(from, to));
      if (begin + found.length > ids.length) ids = larger(ids, begin + found.length);
      ids.set(found, begin);
      ends[word] = begin + found.length;
    }
    append(ids, begin, ends[word]);
  };
  return (text) => {
    length = 0;
    for (const [i, part] of text.split(DOCUMENT).entries()) {
      if (i > 0) appendWord(DOCUMENT, 0, DOCUMENT.length);
      for (let at = 0; at < part.length; ) {
        const end = wordEnd(part, at);
        appendWord(part, at, end);
        at = end;
      }
    }
    return out.slice(0, length);
  };
}

function larger(old: Int32Array<ArrayBuffer>, least: number): Int32Array<ArrayBuffer> {
  const grown = new Int32Array(2 * Math.max(old.length, least));
  grown.set(old);
  return grown;
}
