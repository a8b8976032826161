import { InputError } from "../tensor/tensor.ts";
import { sentencePieceTokenizer } from "./sentencepiece.ts";
import {
  type GgufVocabulary,
  type Piece,
  TOKEN_TYPES,
  type Tokenizer,
  type TokenizerData,
} from "./tokenizer.ts";

/** Types of pieces by GGUF's numbers; an undefined one counts as normal. */
const TYPES = (Object.keys(TOKEN_TYPES) as (keyof typeof TOKEN_TYPES)[]).map((type): Piece["type"] =>
  type === "undefined" ? "normal" : type,
);

/** Ids that llama.cpp takes where a file does not say them, by its model. */
const USUAL = { llama: { unknown: 0, bos: 1, eos: 2 }, t5: { unknown: 2, bos: undefined, eos: 1 } } as const;

/**
 * A GGUF vocabulary of model `llama` (BPE by scores) or `t5` (unigram) as the SentencePiece model that it was made
 * from; what the file leaves out has llama.cpp's values.
 */
export function sentencePieceOf(vocabulary: GgufVocabulary): TokenizerData & { kind: "sentencepiece" } {
  const { model, tokens, scores, types } = vocabulary;
  if (model !== "llama" && model !== "t5") {
    throw new InputError(
      `tokenizer: a vocabulary of model ${JSON.stringify(model)} is no SentencePiece model; "llama" and "t5" are`,
    );
  }
  const usual = USUAL[model];
  const id = (word: "bos" | "eos" | "unknown") => {
    const found = vocabulary[word] ?? usual[word];
    return found !== undefined && found < tokens.length ? found : undefined;
  };
  return {
    kind: "sentencepiece",
    model: model === "llama" ? "bpe" : "unigram",
    pieces: tokens.map((text, i) => ({ text, score: scores?.[i] ?? 0, type: TYPES[types?.[i] ?? 1] })),
    addDummyPrefix: vocabulary.addSpacePrefix ?? true,
    removeExtraWhitespaces: vocabulary.removeExtraWhitespaces ?? false,
    byteFallback: types?.includes(TOKEN_TYPES.byte) ?? false,
    unknown: id("unknown") ?? 0,
    bos: id("bos"),
    eos: id("eos"),
  };
}

/** The tokenizer of a vocabulary of model `t5`: SentencePiece unigram. */
export function unigramTokenizer(vocabulary: GgufVocabulary): Tokenizer {
  const tokenizer = sentencePieceTokenizer(sentencePieceOf(vocabulary));
  return vocabulary.addBos ? tokenizer : { ...tokenizer, bos: undefined };
}
