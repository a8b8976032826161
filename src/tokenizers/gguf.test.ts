import { existsSync, readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { haveShared, shared } from "../../test/shared.ts";
import { openTokenizer } from "../files/tokenizer-files.ts";
import { InputError } from "../tensor/tensor.ts";
import { BYTE_CHARACTERS } from "./bytes.ts";
import { ggufTokenizer } from "./gguf.ts";
import { tokenizerFrom } from "./index.ts";
import { preTokenizer, wordsOf } from "./pre-tokenizers.ts";
import { specialCutter } from "./special.ts";
import { encodeLong, type GgufVocabulary } from "./tokenizer.ts";

const file = (name: string) => shared("gguf-vocab", `ggml-vocab-${name}.gguf`);
const open = async (path: string) => tokenizerFrom(await openTokenizer(path));

/** A byte-level vocabulary: the 256 bytes, then these tokens. */
const byteLevel = (merges: string[], change: Partial<GgufVocabulary> = {}): GgufVocabulary => ({
  kind: "gguf",
  model: "gpt2",
  pre: "gpt-2",
  tokens: [...BYTE_CHARACTERS, ...new Set(merges.map((merge) => merge.replace(" ", "")))],
  merges,
  ...change,
});
const scored = (pieces: Record<string, number>, change: Partial<GgufVocabulary> = {}): GgufVocabulary => ({
  kind: "gguf",
  model: "llama",
  tokens: ["<unk>", "<s>", "</s>", ...Object.keys(pieces)],
  scores: Float32Array.from([0, 0, 0, ...Object.values(pieces)]),
  types: Uint8Array.from([2, 3, 3, ...Object.keys(pieces).map(() => 1)]),
  ...change,
});
const pieces = (vocabulary: GgufVocabulary, text: string, special = false) => {
  const tokenizer = ggufTokenizer(vocabulary);
  return Array.from(tokenizer.encode(text, { special }), (id) => tokenizer.piece(id));
};

describe.skipIf(!haveShared)("llama.cpp's test vectors (../shared/data/gguf-vocab)", () => {
  test.each(["llama-spm", "gpt-2", "starcoder", "deepseek-coder"])("%s: every one", async (name) => {
    const tokenizer = await open(file(name));
    const texts = readFileSync(`${file(name)}.inp`, "utf8").split("\n__ggml_vocab_test__\n");
    const lines = readFileSync(`${file(name)}.out`, "utf8").split("\n");
    expect(texts.length).toBe(47);
    for (const [i, text] of texts.entries()) {
      const expected = lines[i].split(" ").filter(Boolean).map(Number);
      expect([...tokenizer.encode(text)], JSON.stringify(text)).toEqual(expected);
      expect(tokenizer.decode(expected)).toBe(text);
    }
  });

  test("gpt-neox, which says no pre-tokenizer, gives every text back", async () => {
    const tokenizer = await open(file("gpt-neox"));
    const texts = readFileSync(`${file("gpt-2")}.inp`, "utf8").split("\n__ggml_vocab_test__\n");
    for (const text of texts) expect(tokenizer.decode(tokenizer.encode(text))).toBe(text);
  });

  test("a file of version 1 is the same Llama vocabulary", async () => {
    const [old, now] = [
      await open(shared("gguf-old-versions", "ggml-vocab-llama.v1.gguf")),
      await open(file("llama-spm")),
    ];
    const text = "Hello  wörld 🦊\n3.14";
    expect(old.encode(text)).toEqual(now.encode(text));
    expect([old.bos, old.eos]).toEqual([1, 2]);
  });

  test("a megabyte of one letter takes less than two seconds", async () => {
    for (const name of ["llama-spm", "gpt-2", "deepseek-coder"]) {
      const tokenizer = await open(file(name));
      for (const [unit, length] of [
        ["a", 1_000_000],
        [" ", 200_000],
        ["\n", 200_000],
        ["日", 200_000],
      ] as const) {
        const text = unit.repeat(length);
        const before = process.threadCpuUsage();
        const ids = tokenizer.encode(text);
        // Of this thread: what else the machine does is not counted.
        const { user, system } = process.threadCpuUsage(before);
        expect((user + system) / 1000, `${name}, ${JSON.stringify(unit)}`).toBeLessThan(2000);
        expect(tokenizer.decode(ids) === text).toBe(true);
      }
    }
  }, 40_000);
});

test("gpt2: merges go by rank, inside the words of the pre-tokenizer", () => {
  const vocabulary = byteLevel(["b c", "a b", "ab c", "Ġ a"]);
  expect(pieces(vocabulary, "abc")).toEqual(["a", "bc"]);
  expect(pieces(vocabulary, "ab ab")).toEqual(["ab", "Ġ", "ab"]);
  expect(pieces(vocabulary, "a1b")).toEqual(["a", "1", "b"]);
});

test("pre-tokenizers that ignore merges take a word that is a token as a whole", () => {
  const tokens = [...BYTE_CHARACTERS, "bc", "abc"];
  expect(pieces(byteLevel(["b c"], { tokens, pre: "llama-bpe" }), "abc abc")).toEqual([
    "abc",
    "Ġ",
    "a",
    "bc",
  ]);
  expect(pieces(byteLevel(["b c"], { tokens, pre: "gpt-2" }), "abc")).toEqual(["a", "bc"]);
});

test("llama: the best-scored piece first, unknown characters as bytes, a space before a text", () => {
  const vocabulary = scored({
    "▁": -3,
    a: -3,
    b: -3,
    c: -3,
    ab: -2,
    bc: -1,
    "▁a": -4,
    "<0xC3>": 0,
    "<0xA9>": 0,
  });
  expect(pieces(vocabulary, "abc")).toEqual(["▁a", "bc"]);
  expect(pieces({ ...vocabulary, addSpacePrefix: false }, "abé")).toEqual(["ab", "<0xC3>", "<0xA9>"]);
});

test("control tokens are read where asked, user-defined ones always, the longest first", () => {
  const text = { "▁": -1, a: -1, "<": -1, s: -1, ">": -1 };
  const vocabulary = scored(text, { addSpacePrefix: false });
  expect(pieces(vocabulary, "a<s>a")).toEqual(["a", "<", "s", ">", "a"]);
  expect(pieces(vocabulary, "a<s>a", true)).toEqual(["a", "<s>", "a"]);
  // A space is put before what follows a special token, as before a text.
  expect(pieces({ ...vocabulary, addSpacePrefix: true }, "<s>a", true)).toEqual(["<s>", "▁", "a"]);
  const user = scored(text, { addSpacePrefix: false });
  const tokens = [...user.tokens, "sa"];
  const scores = Float32Array.from(tokens, () => -1);
  const types = Uint8Array.from([...user.types!, 4]);
  expect(pieces({ ...user, tokens, scores, types }, "asa")).toEqual(["a", "sa"]);
  const cut = specialCutter([
    { id: 1, text: "ab" },
    { id: 2, text: "bcd" },
    { id: 3, text: "aa" },
  ]);
  expect(cut("abcd")).toEqual(["a", 2]);
  expect(cut("aaab-")).toEqual([3, 1, "-"]);
});

test("the start token follows the file, then the model's and the pre-tokenizer's habit", () => {
  expect(ggufTokenizer(scored({ a: 0 }))).toMatchObject({ bos: 1, eos: 2 });
  expect(ggufTokenizer(scored({ a: 0 }, { addBos: false })).bos).toBeUndefined();
  expect(ggufTokenizer(byteLevel(["a b"], { bos: 3, eos: 4 }))).toMatchObject({ bos: undefined, eos: 4 });
  expect(ggufTokenizer(byteLevel(["a b"], { bos: 3, pre: "llama-bpe" })).bos).toBe(3);
  expect(ggufTokenizer(byteLevel(["a b"], { bos: 3, addBos: true })).bos).toBe(3);
});

test("tokens that end a turn are known by type or by name; they stand for no text", () => {
  const base = byteLevel(["a b"]);
  const tokens = [...base.tokens, "<|im_end|>", "</s>"];
  const tokenizer = ggufTokenizer({ ...base, tokens, eos: 4, eot: 5 });
  expect(tokenizer.ends).toEqual([4, 5, 257]); // "</s>" without a mark may be a piece of text
  expect(tokenizer.bytes(257)).toHaveLength(0);
  expect(tokenizer.decode([258])).toBe("</s>");
});

test("pre-tokenizers cut as llama.cpp's do", () => {
  const words = (name: string, text: string) => [...wordsOf(preTokenizer(name))(text)];
  expect(words("gpt-2", "It's  12 o'clock!\n\n ok")).toEqual([
    "It",
    "'s",
    " ",
    " 12",
    " o",
    "'",
    "clock",
    "!",
    "\n\n",
    " ok",
  ]);
  expect(words("llama-bpe", "IT'S 12345...\n\nok")).toEqual(["IT", "'S", " ", "123", "45", "...\n\n", "ok"]);
  expect(words("qwen2", "12\u00a0x")).toEqual(["1", "2", "\u00a0x"]);
  expect(words("starcoder", "a12")).toEqual(["a", "1", "2"]);
  expect(words("falcon", "a1234!")).toEqual(["a", "123", "4", "!"]);
  expect(words("afmoe", "a 1234567 b")).toEqual(["a", " ", "1", "234", "567", " b"]);
  expect(words("tekken", "helloWorld ABCdef")).toEqual(["hello", "World", " ABCdef"]);
  expect(words("deepseek-v3", "x=1234,日本語")).toEqual(["x", "=", "123", "4", ",", "日本語"]);
  expect(words("kimi-k2", "日本abc 12345")).toEqual(["日本", "abc", " ", "123", "45"]);
  expect(words("bloom", "Yes, I do.")).toEqual(["Yes", ",", " I", " do", "."]);
});

describe("vocabularies that cannot be used are refused in one line", () => {
  const many = (n: number) => Array.from({ length: n }, (_, i) => `t${i}`);
  const cases: [name: string, vocabulary: GgufVocabulary, message: RegExp][] = [
    ["empty", byteLevel([], { tokens: [] }), /^tokenizer: the vocabulary is empty$/],
    ["token twice", byteLevel(["a b"], { tokens: ["a", "b", "ab", "a"] }), /tokens 0 and 3 are both "a"/],
    [
      "token of a megabyte",
      byteLevel([], { tokens: ["x".repeat(2 ** 20)] }),
      /token 0 has 1048576 characters/,
    ],
    ["no merges", byteLevel([]), /needs merges/],
    [
      "merge of unknown tokens",
      byteLevel(["a b"], { tokens: ["a", "ab"] }),
      /merge 0, "a b", names or makes/,
    ],
    [
      "merge that makes no token",
      byteLevel(["a b"], { tokens: ["a", "b"] }),
      /merge 0, "a b", names or makes/,
    ],
    [
      "cyclic merge: a token out of itself",
      byteLevel(["a "], { tokens: ["a"] }),
      /merge 0 is "a "; needs two tokens/,
    ],
    [
      "cyclic merge: nothing before it",
      byteLevel([" a"], { tokens: ["a"] }),
      /merge 0 is " a"; needs two tokens/,
    ],
    ["merge of one token", byteLevel(["ab"]), /merge 0 is "ab"; needs two tokens/],
    ["score NaN", scored({ a: Number.NaN }), /score of token 3 is NaN/],
    ["start token 2³¹", scored({ a: 0 }, { bos: 2 ** 31 }), /bos token is 2147483648, the vocabulary has 4/],
    ["end token −1", scored({ a: 0 }, { eos: -1 }), /eos token is -1/],
    ["unknown token half", scored({ a: 0 }, { unknown: 0.5 }), /unknown token is 0.5/],
    ["unknown pre-tokenizer", byteLevel(["a b"], { pre: "my-bpe" }), /pre-tokenizer "my-bpe" is not known/],
    ["pre-tokenizer named as a property", byteLevel(["a b"], { pre: "toString" }), /"toString" is not known/],
    ["unknown model", byteLevel(["a b"], { model: "bert" }), /of model "bert" are not read/],
    [
      "too many merges",
      byteLevel([], { tokens: many(10), merges: Array(2 ** 21 + 1).fill("a b") }),
      /2097153 merges; at most 2097152/,
    ],
  ];
  test.each(cases)("%s", (_, vocabulary, message) => {
    expect(() => ggufTokenizer(vocabulary)).toThrow(InputError);
    expect(() => ggufTokenizer(vocabulary)).toThrow(message);
    expect(() => ggufTokenizer(vocabulary)).not.toThrow("\n");
  });
});

test("infinite scores are an order like any other", () => {
  const vocabulary = scored(
    { a: 0, b: 0, c: 0, ab: Number.NEGATIVE_INFINITY, bc: Number.POSITIVE_INFINITY },
    { addSpacePrefix: false },
  );
  expect(pieces(vocabulary, "abc")).toEqual(["a", "bc"]);
});

test.skipIf(!existsSync(file("gpt-2")))("long texts let other work run, and stop when told", async () => {
  const tokenizer = await open(file("gpt-2"));
  const text = "The quick brown fox, 1234 jumps over!\n".repeat(100_000);
  const stop = new AbortController();
  let waits = 0;
  const timer = setInterval(() => ++waits === 3 && stop.abort(new Error("stopped by a test")), 1);
  await expect(encodeLong(tokenizer, text, { signal: stop.signal })).rejects.toThrow("stopped by a test");
  clearInterval(timer);
  const short = text.slice(0, 5000);
  expect(await encodeLong(tokenizer, short)).toEqual(tokenizer.encode(short));
});
