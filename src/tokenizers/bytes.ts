/**
 * GPT-2's spelling of bytes as characters: printable Latin-1 characters stand
 * for themselves, every other byte for a character from U+0100 on, in order
 * (Radford et al., 2019, https://github.com/openai/gpt-2, `bytes_to_unicode`).
 */
export const BYTE_CHARACTERS: readonly string[] = (() => {
  const printable = (b: number) => (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
  let next = 0x100;
  return Array.from({ length: 256 }, (_, b) => String.fromCharCode(printable(b) ? b : next++));
})();

const byteOf = new Map(BYTE_CHARACTERS.map((character, byte) => [character, byte]));
const utf8 = new TextEncoder();

/** The bytes that a byte-level piece spells; a character outside the table (an added token's) stands for its UTF-8. */
export function byteLevelBytes(piece: string): Uint8Array {
  const bytes: number[] = [];
  for (const character of piece) {
    const byte = byteOf.get(character);
    if (byte === undefined) bytes.push(...utf8.encode(character));
    else bytes.push(byte);
  }
  return Uint8Array.from(bytes);
}

/** The byte that a piece like `<0x0A>` stands for, undefined for any other piece. */
export function byteOfPiece(piece: string): number | undefined {
  const match = /^<0x([0-9A-Fa-f]{2})>$/.exec(piece);
  return match ? Number.parseInt(match[1], 16) : undefined;
}

/** How SentencePiece vocabularies spell a space: `▁`. */
export const SPACE_MARK = "\u2581";

/** How vocabularies with byte fallback spell a byte: `<0x0A>`. */
export function byteName(byte: number): string {
  return `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`;
}

export function joinBytes(parts: readonly Uint8Array[]): Uint8Array {
  const joined = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return joined;
}

/**
 * The same text with characters of its own. A word cut out of a text is a view of it in V8, so that a memory of words
 * would keep all the texts that they came from.
 */
export function ownText(word: string): string {
  if (word.length < SHORTEST_VIEW) return word;
  let own = "";
  for (let from = 0; from < word.length; from += SHORTEST_VIEW - 1) {
    own += word.slice(from, from + SHORTEST_VIEW - 1);
  }
  return own;
}

/** UTF-16 units; V8 copies what is shorter. */
const SHORTEST_VIEW = 13;

/** UTF-8 to text; bytes that are no character become U+FFFD, a byte order mark stays. */
export function textOf(bytes: Uint8Array): string {
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);
}
