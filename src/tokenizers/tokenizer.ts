/** Text ↔ ids. */
export interface Tokenizer {
  /** Number of ids: 0 … vocabulary−1. */
  readonly vocabulary: number;
  /** Start and end of a text, where the vocabulary has them. */
  readonly bos?: number;
  readonly eos?: number;
  /** Ids of a text, without start and end tokens. */
  encode(text: string): Int32Array;
  /** The bytes that an id stands for inside a text; a decoder puts them together and never splits a character. */
  bytes(id: number): Uint8Array;
  /** Text of ids, as the vocabulary's own rules join them (a leading space that `encode` put there is taken off). */
  decode(ids: ArrayLike<number>): string;
  /** The id's entry as the vocabulary spells it, for people. */
  piece(id: number): string;
}

/** What `files` reads from a tokenizer's file, before it is a Tokenizer. */
export type TokenizerData =
  /** tokenizer.json, and tokenizer_config.json where there is one. */
  | { readonly kind: "huggingface"; readonly tokenizer: object; readonly config: object }
  /** A SentencePiece model, or a llama2.c tok*.bin, which holds the same without types. */
  | {
      readonly kind: "sentencepiece";
      readonly model: "bpe" | "unigram";
      readonly pieces: readonly Piece[];
      readonly addDummyPrefix: boolean;
      readonly removeExtraWhitespaces: boolean;
      readonly byteFallback: boolean;
      readonly unknown: number;
      readonly bos?: number;
      readonly eos?: number;
    };

export interface Piece {
  readonly text: string;
  readonly score: number;
  readonly type: "normal" | "unknown" | "control" | "user" | "unused" | "byte";
}
