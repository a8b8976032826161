import { readFileSync } from "node:fs";
import { Tokenizer as Library } from "@huggingface/tokenizers";
import { expect, test } from "vitest";
import { haveShared, shared } from "../../test/shared.ts";
import { InputError } from "../tensor/tensor.ts";
import { trainByteLevelBpe } from "./bpe-trainer.ts";
import { tokenizerFrom } from "./index.ts";

const small = await trainByteLevelBpe(["a small text, a small vocabulary, the same small text again"], 262);
const changed = (tokenizer: object, config: object = {}) =>
  tokenizerFrom({ kind: "huggingface", tokenizer: { ...small.tokenizer, ...tokenizer }, config });

test("start and end come from the config, else from usual spellings; null means none", () => {
  const token = (id: number, content: string) => ({
    id,
    content,
    special: true,
    single_word: false,
    normalized: false,
  });
  const llama = { added_tokens: [token(262, "<s>"), token(263, "</s>")] };
  expect(changed(llama)).toMatchObject({ vocabulary: 264, bos: 262, eos: 263 });
  expect(changed(llama, { bos_token: null, eos_token: { content: "<s>" } })).toMatchObject({
    bos: undefined,
    eos: 262,
  });
  expect(changed({ added_tokens: [] })).toMatchObject({ vocabulary: 262, bos: undefined, eos: undefined });
});

test("special tokens are read from text and stand for no bytes; other added ones stand for themselves", () => {
  const added = [
    { id: 262, content: "<end>", special: true, normalized: false },
    { id: 263, content: "🦊fox", special: false, normalized: false },
  ];
  const tokenizer = changed({ added_tokens: added });
  const ids = [...tokenizer.encode("a<end>🦊fox")];
  expect(ids.slice(-2)).toEqual([262, 263]);
  expect(tokenizer.decode(ids)).toBe("a🦊fox");
  expect(tokenizer.piece(262)).toBe("<end>");
});

test("a file that the library cannot use is bad input, in one line", () => {
  expect(() => changed({ model: null })).toThrow(InputError);
  expect(() => changed({ model: null })).toThrow("tokenizer.json: needs a model with a vocab");
  expect(() => changed({ decoder: { type: "Telepathy" } })).toThrow(InputError);
  expect(() => changed({ decoder: { type: "Telepathy" } })).toThrow("tokenizer.json: cannot be used: ");
  const empty = { type: "BPE", vocab: {}, merges: [] };
  expect(() => changed({ model: empty, added_tokens: [] })).toThrow("the vocabulary is empty");
  const far = { id: 2 ** 24 - 1, content: "<far>", special: true };
  expect(() => changed({ added_tokens: [far] })).toThrow("needs pieces and added tokens with ids from 0 to");
});

const odd = [
  "",
  " ",
  "  two  spaces, then three   , and at the end  ",
  "tabs\tand\r\nline\n\n\nbreaks \n",
  "Grüße, naïve café, Ελληνικά, русский, 日本語, עברית e\u0301",
  "🦊 fox, 👩‍👩‍👧 family, 🇫🇷 flag \u0000\u0001\u007f zero width \u200b mark \ufeff",
  " 1234567890 3.14159 1e-5 'tis don't we'll I'VE",
  "a</s>b <s> c<|endoftext|>   x<unk><|document|> ",
];
const real = ["tokenizer-llama/tokenizer.json", "tokenizer-neox20b/20B_tokenizer.json"];

test.each(["small", ...(haveShared ? real : [])])("%s: our own code gives the library's ids", (name) => {
  const json = name === "small" ? small.tokenizer : JSON.parse(readFileSync(shared(name), "utf8"));
  const library = new Library(json, {});
  const tokenizer = tokenizerFrom({ kind: "huggingface", tokenizer: json, config: {} });
  expect(tokenizer.steps).toBeDefined();
  const prose = haveShared ? readFileSync(shared("text-classics", "Jack-London-White-Fang.md"), "utf8") : "";
  for (const text of [...odd, prose.slice(0, 15_000)]) {
    const { ids } = library.encode(text, { add_special_tokens: false });
    expect([...tokenizer.encode(text)], JSON.stringify(text.slice(0, 60))).toEqual(ids);
  }
});

test("what our code does not know goes to the library", () => {
  const added = { id: 262, content: "<end>", special: true, normalized: false };
  for (const change of [
    { added_tokens: [{ ...added, lstrip: true }] },
    { normalizer: { type: "Lowercase" } },
    { pre_tokenizer: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true } },
  ]) {
    expect(changed(change).steps).toBeUndefined();
    expect(changed(change).encode("A small  TEXT").length).toBeGreaterThan(0);
  }
});
