import { DOCUMENT, WORD } from "./bpe-trainer.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** About 100 MB; a text of more words than this loses its memory now and then. */
const MOST_WORDS = 1_000_000;

/**
 * The same ids as `tokenizer.encode`, word by word with a memory of the words
 * seen: for long texts and tokenizers made by `trainByteLevelBpe`, whose merges
 * never cross a word. A word cut out of its text is one word again, so its ids
 * do not depend on what stood around it.
 */
export function wordCache(tokenizer: Tokenizer): (text: string) => Int32Array {
  const seen = new Map<string, Int32Array>();
  const idsOf = (word: string) => {
    let ids = seen.get(word);
    if (!ids) {
      if (seen.size === MOST_WORDS) seen.clear();
      seen.set(word, (ids = tokenizer.encode(word)));
    }
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
