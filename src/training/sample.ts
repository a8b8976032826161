import type { Piece } from "./pieces.ts";

/** UTF-16 units of a stretch, where not all of a text is taken. */
const STRETCH = 2 ** 16;

/**
 * Texts that a vocabulary is trained on: all pieces where `share` is 1, else
 * stretches of 64 Ki characters, evenly spread, which together are that share
 * of the text; no randomness is in it. Documents that `holds` refuses, asked at
 * their end, are left out; without it nothing waits for a document's end.
 */
export async function* sample(
  pieces: AsyncIterable<Piece>,
  share: number,
  holds?: (file: number, place: number) => boolean,
): AsyncGenerator<string> {
  let credit = 0;
  let kept: string[] = [];
  for await (const { file, text, end } of pieces) {
    for (const stretch of share < 1 ? stretches(text) : [text]) {
      credit += stretch.length * share;
      if (credit < stretch.length / 2) continue;
      credit -= stretch.length;
      if (holds) kept.push(stretch);
      else yield stretch;
    }
    if (!end) continue;
    if (holds?.(file, end.place)) yield* kept;
    kept = [];
  }
}

function* stretches(text: string): Generator<string> {
  for (let from = 0; from < text.length; ) {
    const space = text.indexOf(" ", from + STRETCH); // no word is cut
    const to = space < 0 ? text.length : space;
    yield text.slice(from, to);
    from = to;
  }
}
