import { huggingfaceTokenizer } from "./huggingface.ts";
import { sentencePieceTokenizer } from "./sentencepiece.ts";
import type { Tokenizer, TokenizerData } from "./tokenizer.ts";

/** The tokenizer that a file's data describes; an InputError when they describe none. */
export function tokenizerFrom(data: TokenizerData): Tokenizer {
  return data.kind === "huggingface" ? huggingfaceTokenizer(data) : sentencePieceTokenizer(data);
}

export { trainByteLevelBpe } from "./bpe-trainer.ts";
export type { Piece, Tokenizer, TokenizerData } from "./tokenizer.ts";
