import { DOCUMENT, WORD } from "./bpe-trainer.ts";
import { ownText } from "./bytes.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** Words of a generation; two are held, about 60 MB. */
const MOST_WORDS = 200_000;
/** Longer words, in UTF-16 units, are rare and not remembered. */
const LONGEST = 64;

/**
 * The same ids as `tokenizer.encode`, word by word with a memory of the words
 * seen: for long texts and tokenizers made by `trainByteLevelBpe`, whose merges
 * never cross a word. A word cut out of its text is one word again, so its ids
 * do not depend on what stood around it.
 *
 * When a generation of words is full, a new one begins; words of the one before
 * come along as they are met, and the others are forgotten with it.
 */
export function wordCache(tokenizer: Tokenizer): (text: string) => Int32Array {
  let seen = new Map<string, readonly number[]>();
  let before = seen;
  const idsOf = (word: string) => {
    const known = seen.get(word);
    if (known) return known;
    const ids = before.get(word) ?? Array.from(tokenizer.encode(word));
    if (word.length > LONGEST) return ids;
    if (seen.size === MOST_WORDS) {
      before = seen;
      seen = new Map();
    }
    seen.set(ownText(word), ids);
    return ids;
  };
  return (text) => {
    const ids: number[] = [];
    for (const [i, part] of text.split(DOCUMENT).entries()) {
      if (i > 0) ids.push(...idsOf(DOCUMENT));
      for (const [word] of part.matchAll(WORD)) for (const id of idsOf(word)) ids.push(id);
    }
    return Int32Array.from(ids);
  };
}
