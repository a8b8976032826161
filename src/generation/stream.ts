/**
 * Turns the bytes of tokens into text as they come: `push` gives the characters
 * that are complete and keeps the rest, so that no character is ever split;
 * `end` gives what is left. Bytes that are not UTF-8 become U+FFFD.
 */
export class TextStream {
  readonly #decoder = new TextDecoder("utf-8", { ignoreBOM: true });

  push(bytes: Uint8Array): string {
    return this.#decoder.decode(bytes, { stream: true });
  }

  end(): string {
    return this.#decoder.decode();
  }
}
