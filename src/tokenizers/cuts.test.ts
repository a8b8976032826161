import { existsSync, readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { haveShared, shared } from "../../test/shared.ts";
import { openTokenizer } from "../files/tokenizer-files.ts";
import { generator } from "../tensor/random.ts";
import { trainByteLevelBpe } from "./bpe-trainer.ts";
import { BYTE_CHARACTERS } from "./bytes.ts";
import { type Cuts, cutsOf } from "./cuts.ts";
import { tokenizerFrom } from "./index.ts";
import { preTokenizer, preTokenizerNames, wordsOf } from "./pre-tokenizers.ts";
import type { GgufVocabulary, Piece, TokenizerData } from "./tokenizer.ts";

/** Every cut of a text, from the last to the first. */
function allCuts(cuts: Cuts, text: string): { left: string; right: string }[] {
  const found: { left: string; right: string }[] = [];
  for (let length = text.length; ; ) {
    const cut = cuts(text.slice(0, length));
    if (cut === undefined) return found;
    found.push({ left: text.slice(0, cut.end), right: text.slice(cut.next) });
    expect(cut.end).toBeLessThan(length);
    length = cut.end + 1; // what made this one a cut is no longer seen
  }
}

const SAMPLES = [
  ..."abZ  .,!'/1207\n\n\r\t-(",
  "'s",
  "e\u0301",
  "中",
  "文",
  "。",
  "\u00a0",
  "\u0085",
  "\ufeff",
  "<x>",
  "\u2581",
  " and",
  "\nThe",
];

function randomText(random: () => number, length: number): string {
  return Array.from({ length }, () => SAMPLES[Math.floor(random() * SAMPLES.length)]).join("");
}

const byteLevel = (change: Partial<GgufVocabulary> = {}): GgufVocabulary => ({
  kind: "gguf",
  model: "gpt2",
  tokens: [...BYTE_CHARACTERS, "th"],
  merges: ["t h"],
  ...change,
});

test("words of every pre-tokenizer are the same when a text is cut", () => {
  const random = generator(7);
  let cutCount = 0;
  for (const pre of preTokenizerNames) {
    const cuts = cutsOf(byteLevel({ pre }));
    const words = wordsOf(preTokenizer(pre));
    for (let i = 0; cuts && i < 30; i++) {
      const text = randomText(random, 60);
      const whole = [...words(text)];
      for (const { left, right } of allCuts(cuts, text)) {
        cutCount++;
        expect([...words(left), ...words(right)], `${pre}: ${JSON.stringify([left, right])}`).toEqual(whole);
      }
    }
  }
  expect(cutCount).toBeGreaterThan(5000);
  expect(preTokenizerNames.filter((pre) => cutsOf(byteLevel({ pre })) === undefined)).toEqual([]);
});

test("where a pre-tokenizer has words with spaces in them, only lines are cut", () => {
  const cuts = cutsOf(byteLevel({ pre: "exaone-moe" }))!;
  expect(cuts("one two three")).toBeUndefined();
  expect(cuts("one two\nthree")).toEqual({ end: 8, next: 8 });
});

const files: readonly (readonly [name: string, path: string])[] = [
  ["stories260K", shared("stories260k", "tok512.bin")],
  ["babyllama", shared("babyllama-tok105", "tok105.model")],
  ["Llama, SentencePiece", shared("tokenizer-llama", "tokenizer.model")],
  ["Llama, Hugging Face", shared("tokenizer-llama", "tokenizer.json")],
  ["Llama, GGUF", shared("gguf-vocab", "ggml-vocab-llama-spm.gguf")],
  ["NeoX", shared("tokenizer-neox20b", "20B_tokenizer.json")],
  ["GPT-2, GGUF", shared("gguf-vocab", "ggml-vocab-gpt-2.gguf")],
  ["Starcoder, GGUF", shared("gguf-vocab", "ggml-vocab-starcoder.gguf")],
  ["DeepSeek, GGUF", shared("gguf-vocab", "ggml-vocab-deepseek-coder.gguf")],
];

for (const [name, path] of files) {
  test.skipIf(!existsSync(path))(`${name}: ids are the same when a text is cut`, async () => {
    await sameIds(await openTokenizer(path));
  });
}

test("a trained tokenizer: ids are the same when a text is cut", async () => {
  await sameIds(await trainByteLevelBpe(["the cat and the other cat\nThe end of the cat and a"], 290));
});

async function sameIds(data: TokenizerData): Promise<void> {
  const tokenizer = tokenizerFrom(data);
  const cuts = cutsOf(data)!;
  const prose = haveShared
    ? readFileSync(shared("text-classics", "Jack-London-White-Fang.md"), "utf8").slice(5000, 6500)
    : "One sentence.\nAnother sentence  with spaces and \n\n lines of text";
  const random = generator(3);
  let count = 0;
  for (const text of [prose, ...Array.from({ length: 60 }, () => randomText(random, 50))]) {
    const whole = tokenizer.encode(text);
    for (const { left, right } of allCuts(cuts, text)) {
      count++;
      const [a, b] = [tokenizer.encode(left), tokenizer.encode(right)];
      expect([...a, ...b], JSON.stringify([left, right])).toEqual([...whole]);
    }
  }
  expect(count).toBeGreaterThan(200);
}

test("vocabularies whose ids depend on more than the neighbourhood are not cut", () => {
  const piece = (text: string, type: Piece["type"] = "normal"): Piece => ({ text, score: -1, type });
  const sentencePiece = (change: object): TokenizerData => ({
    kind: "sentencepiece",
    model: "bpe",
    pieces: [piece("<unk>", "unknown"), piece("\u2581"), piece("a")],
    addDummyPrefix: true,
    removeExtraWhitespaces: true,
    byteFallback: false,
    unknown: 0,
    ...change,
  });
  expect(cutsOf(sentencePiece({}))).toBeDefined();
  expect(cutsOf(sentencePiece({ model: "unigram" }))).toBeUndefined();
  expect(cutsOf(sentencePiece({ addDummyPrefix: false }))).toBeUndefined(); // it would take the space off
  expect(cutsOf(sentencePiece({ pieces: [piece("<unk>", "unknown"), piece("a")] }))).toBeUndefined();
  expect(cutsOf(sentencePiece({ pieces: [piece("\u2581"), piece("of\u2581the")] }))).toBeUndefined();
  const spacedUser = {
    tokens: [...BYTE_CHARACTERS, "th", "the end", "a\nb"],
    types: new Uint8Array(259).fill(1),
  };
  spacedUser.types[257] = 4;
  expect(cutsOf(byteLevel(spacedUser))!("see the end")).toBeUndefined();
  expect(cutsOf(byteLevel(spacedUser))!("a\nbc")).toBeDefined();
  spacedUser.types[258] = 4;
  expect(cutsOf(byteLevel(spacedUser))).toBeUndefined();
});
