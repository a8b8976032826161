import { expect, test } from "vitest";
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
});
