import { ggufTokenizer } from "./gguf.ts";
import { unigramTokenizer } from "./gguf-sentencepiece.ts";
import { huggingfaceTokenizer } from "./huggingface.ts";
import { sentencePieceTokenizer } from "./sentencepiece.ts";
import type { Tokenizer, TokenizerData } from "./tokenizer.ts";

/** The tokenizer that a file's data describes; an InputError when they describe none. */
export function tokenizerFrom(data: TokenizerData): Tokenizer {
  switch (data.kind) {
    case "huggingface":
      return huggingfaceTokenizer(data);
    case "sentencepiece":
      return sentencePieceTokenizer(data);
    case "gguf":
      return data.model === "t5" ? unigramTokenizer(data) : ggufTokenizer(data);
  }
}

export { trainByteLevelBpe } from "./bpe-trainer.ts";
export { sentencePieceOf } from "./gguf-sentencepiece.ts";
export { ggufVocabulary, huggingfaceTokenizerOf } from "./gguf-vocabulary.ts";
export type {
  ChatFormat,
  EncodeOptions,
  GgufVocabulary,
  Piece,
  Tokenizer,
  TokenizerData,
} from "./tokenizer.ts";
export { encodeLong } from "./tokenizer.ts";
