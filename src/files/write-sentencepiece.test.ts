import { existsSync, readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { shared } from "../../test/shared.ts";
import { ggufVocabulary, sentencePieceOf } from "../tokenizers/index.ts";
import type { Piece } from "../tokenizers/tokenizer.ts";
import { readSentencePiece, readTokBin } from "./sentencepiece.ts";
import { sentencePieceBytes, tokBinBytes } from "./write-sentencepiece.ts";

const stories = shared("stories260k/tok512.bin");
test.skipIf(!existsSync(stories))(
  "llama2.c's tokenizer comes back byte for byte, through GGUF's words too",
  () => {
    const bytes = new Uint8Array(readFileSync(stories));
    const model = readTokBin(bytes, "tok512.bin");
    if (model.kind !== "sentencepiece") throw new Error("not a SentencePiece model");
    expect(tokBinBytes(model)).toEqual(bytes);
    expect(tokBinBytes(sentencePieceOf(ggufVocabulary(model)))).toEqual(bytes);
    expect(readSentencePiece(sentencePieceBytes(model), "written")).toEqual(model);
  },
);

const llama = shared("tokenizer-llama/tokenizer.model");
test.skipIf(!existsSync(llama))("Llama's model, written and read again, is the same", () => {
  const model = readSentencePiece(new Uint8Array(readFileSync(llama)), "tokenizer.model");
  if (model.kind !== "sentencepiece") throw new Error("not a SentencePiece model");
  expect(readSentencePiece(sentencePieceBytes(model), "written")).toEqual(model);
});

const piece = (text: string, type: Piece["type"] = "normal"): Piece => ({ text, score: 0, type });
const small = {
  kind: "sentencepiece",
  model: "bpe",
  pieces: [piece("<unk>", "unknown"), piece("<s>", "control"), piece("</s>", "control"), piece("\u2581a")],
  addDummyPrefix: true,
  removeExtraWhitespaces: false,
  byteFallback: false,
  unknown: 0,
  bos: 1,
  eos: 2,
} as const;

test("no start token is written as such", () => {
  const model = { ...small, bos: undefined };
  expect(readSentencePiece(sentencePieceBytes(model), "written")).toEqual(model);
});

test("what tok.bin cannot say is refused by name", () => {
  expect(() => tokBinBytes({ ...small, model: "unigram" })).toThrow(/its pieces are not merged by score/);
  expect(() => tokBinBytes({ ...small, bos: undefined })).toThrow(/ids 0, 1 and 2, are 0, none and 2/);
  expect(() => tokBinBytes({ ...small, addDummyPrefix: false })).toThrow(/puts no space in front/);
  const special = [...small.pieces, piece("<|x|>", "control")];
  expect(() => tokBinBytes({ ...small, pieces: special })).toThrow(/piece 4 \(<\|x\|>\) is a control piece/);
  expect(() => sentencePieceOf({ kind: "gguf", model: "gpt2", tokens: ["a"] })).toThrow(
    /model "gpt2" is no SentencePiece/,
  );
});

test("a unigram vocabulary in GGUF's words, and one of single characters as tok.bin", () => {
  const tokens = ["<unk>", "<s>", "</s>", "\u2581", "ab"];
  const vocabulary = { kind: "gguf", model: "t5", tokens, types: Uint8Array.of(2, 3, 3, 1, 1) } as const;
  expect(sentencePieceOf(vocabulary)).toMatchObject({ model: "unigram", unknown: 2, bos: undefined, eos: 1 });
  const given = sentencePieceOf({ ...vocabulary, unknown: 0, bos: 1, eos: 2 });
  expect(() => tokBinBytes(given)).toThrow(/not merged by score/);
  const characters = { ...given, pieces: given.pieces.slice(0, 4) };
  expect(readTokBin(tokBinBytes(characters), "written")).toMatchObject({ pieces: characters.pieces });
});
