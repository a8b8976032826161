import { InputError } from "../tensor/tensor.ts";
import type { Cuts } from "../tokenizers/cuts.ts";
import type { Part } from "./documents.ts";

/** A piece of a document that can be encoded by itself: the ids of its pieces are the ids of the document. */
export interface Piece {
  readonly file: number;
  readonly text: string;
  /** Bytes of all files that have been read. */
  readonly read: number;
  /** Given with the last piece of a document. */
  readonly end?: {
    /** First 8 bytes of the SHA-256 of the document's UTF-8, big-endian, divided by 2⁶⁴: in [0, 1). */
    readonly place: number;
    /** Nothing but white space: a document to be skipped. Its piece is empty. */
    readonly empty: boolean;
  };
}

/** UTF-16 units from which on a piece is cut off. */
const LENGTH = 2 ** 18;
/** A text of more that can be cut nowhere is refused: V8's strings end at twice that. */
const LONGEST = 2 ** 28;

/**
 * Documents in pieces of about a quarter of a million characters, cut where
 * `cuts` allows it; whole, whatever their length, where it allows none.
 */
export async function* pieces(
  parts: AsyncIterable<Part>,
  cuts: Cuts | undefined,
  length = LENGTH,
): AsyncGenerator<Piece> {
  const { createHash } = process.getBuiltinModule("node:crypto");
  let hash = createHash("sha256");
  let pending = "";
  let searched = 0;
  let empty = true;
  for await (const { file, text, last, read } of parts) {
    hash.update(text);
    pending += text;
    empty &&= text.trim() === "";
    let at = 0;
    while (cuts && !empty && pending.length - at > length) {
      const to = Math.min(pending.length, at + searched + length);
      const cut = cuts(pending.slice(at, to), searched);
      if (cut) {
        yield { file, text: pending.slice(at, at + cut.end), read };
        at += cut.next;
        searched = 0;
      } else {
        searched = Math.max(0, to - at - 3); // the last characters may be a cut when more stand behind them
        if (to === pending.length) break;
      }
    }
    if (at > 0) pending = pending.slice(at);
    if (pending.length > LONGEST) {
      throw new InputError(
        `data.text: ${LONGEST} characters of a document stand together where this tokenizer cannot be cut; set data.separator, or split the file`,
      );
    }
    if (last) {
      const digest = hash.digest();
      yield { file, text: empty ? "" : pending, read, end: { place: placeOf(digest), empty } };
      hash = createHash("sha256");
      pending = "";
      searched = 0;
      empty = true;
    }
  }
}

/** A hash's first 8 bytes, big-endian, as a fraction of 2⁶⁴. */
export function placeOf(digest: Uint8Array): number {
  const { buffer, byteOffset } = digest;
  const view = new DataView(buffer, byteOffset, 8);
  return (view.getUint32(0) + view.getUint32(4) / 2 ** 32) / 2 ** 32;
}
