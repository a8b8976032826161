import type { Drafter } from "./drafter.ts";

/** Longest end of a text that is looked for. */
const LONGEST = 3;

/**
 * Guesses that what followed the last tokens when they came before follows
 * again: looks for the last three tokens, then two, then one, and takes what
 * came after them.
 *
 * Saxena, 2023 (https://github.com/apoorvumang/prompt-lookup-decoding), which
 * takes the first place where they stand; here it is the last, the topic at hand.
 */
export function promptLookup(): Drafter {
  return {
    draft: async (sequence, most) => lookUp(sequence, most),
    free: () => {},
  };
}

function lookUp(sequence: readonly number[], most: number): readonly number[] {
  const size = sequence.length;
  for (let length = Math.min(LONGEST, size - 1); length > 0; length--) {
    for (let end = size - 1; end >= length; end--) {
      let same = 0;
      while (same < length && sequence[end - 1 - same] === sequence[size - 1 - same]) same++;
      if (same === length) return sequence.slice(end, end + most);
    }
  }
  return [];
}
