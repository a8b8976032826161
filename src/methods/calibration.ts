import { generator, permutation } from "../tensor/random.ts";
import type { Tokenizer } from "../tokenizers/tokenizer.ts";

// More characters than a token has in any common language and vocabulary, so that a piece gives a whole window.
const CHARACTERS = 8;

/**
 * Token windows for calibration: at most `count` of at most `length` tokens,
 * from places of the text in a seeded random order. Only as much of the text
 * is tokenized as is used.
 */
export function calibrationWindows(
  text: string,
  tokenizer: Tokenizer,
  { length, count, seed }: { readonly length: number; readonly count: number; readonly seed: number },
): Int32Array[] {
  const piece = CHARACTERS * length;
  const windows: Int32Array[] = [];
  for (const p of permutation(generator(seed), Math.ceil(text.length / piece))) {
    const ids = tokenizer.encode(slice(text, p * piece, (p + 1) * piece));
    for (let from = 0; from < ids.length; from += length) {
      windows.push(ids.slice(from, from + length));
      if (windows.length === count) return windows;
    }
  }
  return windows;
}

/** text[from … to−1] without half a character at either end. */
function slice(text: string, from: number, to: number): string {
  const half = (at: number) => (text.charCodeAt(at) & 0xfc00) === 0xdc00;
  return text.slice(half(from) ? from + 1 : from, half(to) ? to + 1 : to);
}
