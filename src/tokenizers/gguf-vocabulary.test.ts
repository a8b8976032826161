import { existsSync, readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { haveShared, shared } from "../../test/shared.ts";
import { openTokenizer } from "../files/tokenizer-files.ts";
import { UnsupportedError } from "../tensor/tensor.ts";
import { trainByteLevelBpe } from "./bpe-trainer.ts";
import { ggufVocabulary, huggingfaceTokenizerOf, tokenizerFrom } from "./index.ts";
import type { GgufVocabulary, Piece, TokenizerData } from "./tokenizer.ts";

const small = await trainByteLevelBpe(["a small text, a small vocabulary, the same small text again"], 262);
const changed = (tokenizer: object, config: object = small.config): TokenizerData => ({
  kind: "huggingface",
  tokenizer: { ...small.tokenizer, ...tokenizer },
  config,
});
const text = "the same small vocabulary, don't \n\n 12  again";

test("a tokenizer.json of our own trainer is a gpt2 vocabulary with the same ids", () => {
  const vocabulary = ggufVocabulary(small);
  expect(vocabulary).toMatchObject({
    kind: "gguf",
    model: "gpt2",
    pre: "gpt-2",
    bos: 0,
    eos: 0,
    addBos: true,
  });
  expect(vocabulary.tokens).toHaveLength(262);
  expect([...vocabulary.types!.slice(0, 2)]).toEqual([3, 1]); // control, normal
  const [ours, theirs] = [tokenizerFrom(small), tokenizerFrom(vocabulary)];
  expect(theirs.encode(text)).toEqual(ours.encode(text));
  expect([theirs.bos, theirs.eos]).toEqual([ours.bos, ours.eos]);
});

test("gpt2 vocabularies go to tokenizer.json and back, template and ids as they were", () => {
  const vocabulary = { ...ggufVocabulary(small), chatTemplate: "{{ messages }}" };
  const json: TokenizerData = { kind: "huggingface", ...huggingfaceTokenizerOf(vocabulary) };
  expect(tokenizerFrom(json).encode(text)).toEqual(tokenizerFrom(vocabulary).encode(text));
  expect(tokenizerFrom(json).chat).toEqual({
    template: "{{ messages }}",
    bosToken: "<|document|>",
    eosToken: "<|document|>",
  });
  expect(ggufVocabulary(json)).toEqual(vocabulary);
});

test("the pre-tokenizer's name is found by its patterns", () => {
  const llama3 =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
  const split = (Regex: string) => ({
    type: "Split",
    pattern: { Regex },
    behavior: "Isolated",
    invert: false,
  });
  const last = { type: "ByteLevel", add_prefix_space: false, use_regex: false };
  const model = { ...(small.tokenizer as { model: object }).model, ignore_merges: true };
  const pretokenizers = [split(llama3), last];
  expect(ggufVocabulary(changed({ pre_tokenizer: { type: "Sequence", pretokenizers }, model })).pre).toBe(
    "llama-bpe",
  );
  const digits = { type: "Digits", individual_digits: true };
  const starcoder = { type: "Sequence", pretokenizers: [digits, { ...last, use_regex: true }] };
  expect(ggufVocabulary(changed({ pre_tokenizer: starcoder })).pre).toBe("starcoder");
});

test("unigram vocabularies are t5, with the same ids for unknown text too", () => {
  const texts = ["<unk>", "<s>", "</s>", "\u2581", "a", "b", "ab", "\u2581ab"];
  const pieces = texts.map(
    (text, i): Piece => ({
      text,
      score: -i,
      type: i === 0 ? "unknown" : i < 3 ? "control" : "normal",
    }),
  );
  const data: TokenizerData = {
    kind: "sentencepiece",
    model: "unigram",
    pieces,
    addDummyPrefix: true,
    removeExtraWhitespaces: true,
    byteFallback: false,
    unknown: 0,
    bos: 1,
    eos: 2,
  };
  const vocabulary = ggufVocabulary(data);
  expect(vocabulary).toMatchObject({ model: "t5", unknown: 0, bos: 1, eos: 2, removeExtraWhitespaces: true });
  const [ours, stored] = [tokenizerFrom(data), tokenizerFrom(vocabulary)];
  for (const text of ["ab  abba", "xyz ab\n", ""]) expect(stored.encode(text)).toEqual(ours.encode(text));
  expect([stored.bos, stored.eos]).toEqual([1, 2]);
  expect(tokenizerFrom({ ...vocabulary, addBos: false }).bos).toBeUndefined();
  // What llama.cpp takes where a file says nothing.
  expect(tokenizerFrom({ kind: "gguf", model: "t5", tokens: texts })).toMatchObject({
    bos: undefined,
    eos: 1,
  });
});

describe("what GGUF cannot hold is refused with what to do", () => {
  const split = { type: "Split", pattern: { Regex: "[aeiou]" }, behavior: "Isolated", invert: false };
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, use_regex: false };
  const cases: [name: string, data: TokenizerData, message: RegExp][] = [
    [
      "a pre-tokenizer that llama.cpp does not know",
      changed({ pre_tokenizer: { type: "Sequence", pretokenizers: [split, byteLevel] } }),
      /knows no pre-tokenizer/,
    ],
    [
      "text that is changed before",
      changed({ normalizer: { type: "Lowercase" } }),
      /other ids for a test text/,
    ],
    [
      "WordPiece",
      changed({ model: { type: "WordPiece", vocab: { a: 0, "[UNK]": 1 }, unk_token: "[UNK]" } }),
      /of type WordPiece are not written/,
    ],
  ];
  test.each(cases)("%s", (_, data, message) => {
    expect(() => ggufVocabulary(data)).toThrow(UnsupportedError);
    expect(() => ggufVocabulary(data)).toThrow(message);
  });

  test("the way back of pre-tokenizers that are no patterns, and of other models", () => {
    const vocabulary = ggufVocabulary(small);
    expect(() => huggingfaceTokenizerOf({ ...vocabulary, pre: "afmoe" })).toThrow("afmoe cannot be written");
    expect(() => huggingfaceTokenizerOf({ ...vocabulary, model: "llama" })).toThrow(UnsupportedError);
  });
});

describe.skipIf(!haveShared)("real vocabularies (../shared/data)", () => {
  const prose = () =>
    readFileSync(shared("text-classics", "Jack-London-White-Fang.md"), "utf8").slice(0, 20_000);
  const files: [name: string, path: string, model: string][] = [
    ["stories260K", shared("stories260k", "tok512.bin"), "llama"],
    ["Llama, SentencePiece", shared("tokenizer-llama", "tokenizer.model"), "llama"],
    ["Llama, llama2.c", shared("tokenizer-llama", "tokenizer.bin"), "llama"],
    ["Llama, Hugging Face", shared("tokenizer-llama", "tokenizer.json"), "llama"],
    ["NeoX", shared("tokenizer-neox20b", "20B_tokenizer.json"), "gpt2"],
  ];
  test.each(files)(
    "%s as GGUF gives the same ids",
    async (_, path, model) => {
      const data = await openTokenizer(path);
      const vocabulary = ggufVocabulary(data);
      expect(vocabulary.model).toBe(model);
      expect(tokenizerFrom(vocabulary).encode(prose())).toEqual(tokenizerFrom(data).encode(prose()));
    },
    20_000,
  );

  test("tok105 has characters and no bytes: the same ids, also of those that it does not know", async () => {
    const data = await openTokenizer(shared("babyllama-tok105", "tok105.model"));
    const vocabulary = ggufVocabulary(data);
    expect(vocabulary.model).toBe("t5");
    const story = "Once upon a time,\nthere was 漢字  a little girl.";
    expect(tokenizerFrom(vocabulary).encode(story)).toEqual(tokenizerFrom(data).encode(story));
  });

  test.each(["gpt-2", "starcoder", "deepseek-coder", "gpt-neox"])("%s as tokenizer.json", async (name) => {
    const path = shared("gguf-vocab", `ggml-vocab-${name}.gguf`);
    const vocabulary = (await openTokenizer(path)) as GgufVocabulary;
    const json: TokenizerData = { kind: "huggingface", ...huggingfaceTokenizerOf(vocabulary) };
    const [ours, theirs] = [tokenizerFrom(vocabulary), tokenizerFrom(json)];
    expect([theirs.vocabulary, theirs.bos, theirs.eos]).toEqual([ours.vocabulary, ours.bos, ours.eos]);
    const inputs = shared("gguf-vocab", "ggml-vocab-gpt-2.gguf.inp");
    const texts = existsSync(inputs) ? readFileSync(inputs, "utf8").split("\n__ggml_vocab_test__\n") : [];
    for (const text of [...texts, prose()]) expect(theirs.encode(text)).toEqual(ours.encode(text));
  });
});
