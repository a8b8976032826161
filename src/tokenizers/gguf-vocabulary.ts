import { UnsupportedError } from "../tensor/tensor.ts";
import { bytePairModel } from "./bpe-trainer.ts";
import { byteOfPiece } from "./bytes.ts";
import { ggufTokenizer } from "./gguf.ts";
import { unigramTokenizer } from "./gguf-sentencepiece.ts";
import { checked, huggingfaceTokenizer, mergesOf, type TokenizerJson } from "./huggingface.ts";
import { namesOf, preTokenizer, stagesOf } from "./pre-tokenizers.ts";
import { sentencePieceTokenizer } from "./sentencepiece.ts";
import {
  type GgufVocabulary,
  type Piece,
  TOKEN_TYPES,
  type Tokenizer,
  type TokenizerData,
} from "./tokenizer.ts";

type SentencePiece = TokenizerData & { kind: "sentencepiece" };
type HuggingFace = TokenizerData & { kind: "huggingface" };

/** What a conversion must keep the ids of: words, numbers, spaces, marks and scripts on which vocabularies differ. */
const SAMPLE = `Once upon a time, there was a little girl named Lily; she didn't know what to do. "We'll SEE!" I'VE said.
    int main(void) { return 0x1F + 3.14159; }  // 1,234,567 and 100000 or 7²\t\ttabs\r\n\n\n  two  spaces   three
Grüße aus Köln, naïve café, Ελληνικά, русский язык, 日本語のテキスト、한국어, עברית, हिन्दी, ไทย. 🦊👩‍👩‍👧 €5 … — “quoted” ''s 'Tis end `;

/**
 * A vocabulary as GGUF keeps it, so that llama.cpp gives the ids that our own tokenizer gives:
 *
 *   llama  SentencePiece BPE with bytes, llama2.c's, and a tokenizer.json with byte fallback (scores are the merges' ranks)
 *   t5     SentencePiece unigram, and single characters without bytes: llama.cpp ends the whole process at the first
 *          unknown character of a `llama` vocabulary that has no bytes
 *   gpt2   a byte-level tokenizer.json whose pre-tokenizer llama.cpp knows
 *
 * llama.cpp normalizes nothing else: in `llama`, SentencePiece's removal of extra spaces, and NFC of tokenizer.json
 * are lost. Throws an UnsupportedError for a vocabulary that GGUF cannot hold, found out by its kind or by other ids
 * for a test text.
 */
export function ggufVocabulary(data: TokenizerData): GgufVocabulary {
  switch (data.kind) {
    case "gguf":
      return data;
    case "sentencepiece": {
      const vocabulary = fromSentencePiece(data);
      const known = new Set(data.pieces.map(({ text }) => text));
      // Without bytes, what llama.cpp does with characters that are no piece is not defined.
      const readable = (c: string) => data.byteFallback || known.has(c === " " ? "▁" : c);
      const text = vocabulary.model === "t5" ? SAMPLE : Array.from(SAMPLE).filter(readable).join("");
      const clean = data.removeExtraWhitespaces ? text.replace(/ {2,}/g, " ").trim() : text;
      return verified(vocabulary, sentencePieceTokenizer(data), clean);
    }
    case "huggingface": {
      const tokenizer = huggingfaceTokenizer(data);
      return verified(fromHuggingFace(data, tokenizer), tokenizer, SAMPLE);
    }
  }
}

function verified(vocabulary: GgufVocabulary, tokenizer: Tokenizer, text: string): GgufVocabulary {
  const ids = tokenizer.encode(text);
  const stored = vocabulary.model === "t5" ? unigramTokenizer(vocabulary) : ggufTokenizer(vocabulary);
  const met = stored.encode(text);
  if (ids.length === met.length && ids.every((id, i) => id === met[i])) return vocabulary;
  throw new UnsupportedError(
    "tokenizer: as a GGUF vocabulary it would give other ids for a test text; keep the model in another container",
  );
}

function fromSentencePiece(model: SentencePiece): GgufVocabulary {
  const isCharacter = ({ text, type }: Piece) => type !== "normal" || Array.from(text).length === 1;
  const unigram = model.model === "unigram" || (!model.byteFallback && model.pieces.every(isCharacter));
  return {
    kind: "gguf",
    ...(unigram ? { model: "t5" } : { model: "llama", pre: "default" }),
    tokens: model.pieces.map(({ text }) => text),
    scores: Float32Array.from(model.pieces, ({ score }) => score),
    types: Uint8Array.from(model.pieces, ({ type }) => TOKEN_TYPES[type]),
    bos: model.bos,
    eos: model.eos,
    unknown: model.unknown,
    addBos: model.bos !== undefined,
    addEos: false,
    addSpacePrefix: model.addDummyPrefix,
    removeExtraWhitespaces: model.removeExtraWhitespaces,
  };
}

function fromHuggingFace(data: HuggingFace, { bos, eos, chat, vocabulary }: Tokenizer): GgufVocabulary {
  const json = checked(data.tokenizer);
  const { model } = json;
  const merges = mergesOf(json);
  if ((model.type !== undefined && model.type !== "BPE") || merges === undefined) {
    throw new UnsupportedError(
      `tokenizer.json: vocabularies of type ${model.type} are not written to GGUF, only BPE; keep the model in another container`,
    );
  }
  const tokens: string[] = Array.from({ length: vocabulary }, (_, id) => `[PAD${id}]`);
  const types = new Uint8Array(vocabulary).fill(TOKEN_TYPES.unused);
  const byteLevel = stagesOf(json.pre_tokenizer) !== undefined;
  for (const [piece, id] of Object.entries(model.vocab)) {
    tokens[id] = piece;
    const byte = !byteLevel && byteOfPiece(piece) !== undefined;
    types[id] = byte
      ? TOKEN_TYPES.byte
      : piece === model.unk_token
        ? TOKEN_TYPES.unknown
        : TOKEN_TYPES.normal;
  }
  for (const { id, content, special } of json.added_tokens) {
    tokens[id] = content;
    if (types[id] !== TOKEN_TYPES.unknown) types[id] = special ? TOKEN_TYPES.control : TOKEN_TYPES.user;
  }
  const unknown = tokens.findIndex((_, id) => types[id] === TOKEN_TYPES.unknown);
  const common = {
    kind: "gguf",
    tokens,
    types,
    bos,
    eos,
    ...(unknown < 0 ? {} : { unknown }),
    addBos: bos !== undefined,
    addEos: false,
    chatTemplate: chat?.template,
  } as const;
  return byteLevel
    ? { ...common, model: "gpt2", pre: preOf(json), merges }
    : { ...common, model: "llama", pre: "default", ...scoresOf(json, tokens, merges) };
}

/** The name under which llama.cpp knows a byte-level tokenizer's way of cutting text. */
function preOf(json: TokenizerJson): string {
  const [name] = namesOf(stagesOf(json.pre_tokenizer)!, json.model.ignore_merges === true);
  if (name !== undefined) return name;
  throw new UnsupportedError(
    "tokenizer.json: llama.cpp knows no pre-tokenizer that cuts text as this one does; keep the model in another container",
  );
}

/** Scores that merge in the order of the ranks: what an earlier merge makes has the higher score. */
function scoresOf(json: TokenizerJson, tokens: readonly string[], merges: readonly string[]) {
  const scores = new Float32Array(tokens.length).fill(-merges.length);
  const idOf = new Map(tokens.map((token, id) => [token, id]));
  for (let rank = merges.length - 1; rank >= 0; rank--) {
    const id = idOf.get(merges[rank].replace(" ", ""));
    if (id !== undefined) scores[id] = -rank;
  }
  const steps = JSON.stringify([json.normalizer, json.pre_tokenizer]) ?? "";
  return { scores, addSpacePrefix: /"Prepend"|"prepend_scheme":"(?:always|first)"/.test(steps) };
}

/**
 * The way back for `gpt2` vocabularies: tokenizer.json and
 * tokenizer_config.json that give the same ids in Hugging Face's library.
 * Throws an UnsupportedError for other models and for pre-tokenizers that no regular expression says.
 */
export function huggingfaceTokenizerOf(vocabulary: GgufVocabulary): { tokenizer: object; config: object } {
  const { model, tokens, merges = [], types, eos, chatTemplate } = vocabulary;
  const name = vocabulary.pre ?? "default";
  if (model !== "gpt2") {
    throw new UnsupportedError(
      `tokenizer: a GGUF vocabulary of model ${JSON.stringify(model.slice(0, 60))} is not written as tokenizer.json`,
    );
  }
  const { vocabulary: size, bos: start } = ggufTokenizer(vocabulary); // refuses what contradicts itself
  const { stages, ignoreMerges = false } = preTokenizer(name);
  const splits = stages.map((stage) => {
    if (typeof stage !== "string") {
      throw new UnsupportedError(`tokenizer: the pre-tokenizer ${name} cannot be written as tokenizer.json`);
    }
    return { type: "Split", pattern: { Regex: stage }, behavior: "Isolated", invert: false };
  });
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false };
  const isAdded = (id: number) =>
    types !== undefined && [TOKEN_TYPES.control, TOKEN_TYPES.unknown, TOKEN_TYPES.user].includes(types[id]);
  const spelling = (id: number | undefined) => (id === undefined ? null : tokens[id]);
  const ids = Array.from({ length: size }, (_, id) => id).filter((id) => tokens[id] !== "");
  return {
    tokenizer: {
      version: "1.0",
      truncation: null,
      padding: null,
      added_tokens: ids.filter(isAdded).map((id) => ({
        id,
        content: tokens[id],
        single_word: false,
        lstrip: false,
        rstrip: false,
        normalized: false,
        special: types?.[id] !== TOKEN_TYPES.user,
      })),
      normalizer: null,
      pre_tokenizer: { type: "Sequence", pretokenizers: [...splits, byteLevel] },
      post_processor: null,
      decoder: byteLevel,
      model: {
        ...bytePairModel(
          Object.fromEntries(ids.filter((id) => !isAdded(id)).map((id) => [tokens[id], id])),
          merges,
        ),
        ignore_merges: ignoreMerges,
      },
    },
    config: {
      tokenizer_class: "PreTrainedTokenizerFast",
      // Without a start token in the config none is put before a text.
      bos_token: spelling(start),
      eos_token: spelling(eos),
      ...(chatTemplate === undefined ? {} : { chat_template: chatTemplate }),
    },
  };
}
