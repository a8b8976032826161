import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { haveShared, shared } from "../../test/shared.ts";
import { DOCUMENT, trainByteLevelBpe } from "./bpe-trainer.ts";
import { BYTE_CHARACTERS } from "./bytes.ts";
import { tokenizerFrom } from "./index.ts";
import { wordCache } from "./word-cache.ts";

const merges = async (texts: string[], vocabulary: number) => {
  const { tokenizer } = await trainByteLevelBpe(texts, vocabulary);
  return (tokenizer as { model: { merges: string[] } }).model.merges;
};

test("ids are the document token, the bytes, then one for each merge", async () => {
  const tokenizer = tokenizerFrom(await trainByteLevelBpe(["low low low lower"], 259));
  expect(tokenizer.vocabulary).toBe(259);
  expect([tokenizer.bos, tokenizer.eos]).toEqual([0, 0]);
  expect(tokenizer.piece(0)).toBe(DOCUMENT);
  for (let byte = 0; byte < 256; byte++) {
    expect(tokenizer.piece(1 + byte)).toBe(BYTE_CHARACTERS[byte]);
    expect([...tokenizer.bytes(1 + byte)]).toEqual([byte]);
  }
  expect(tokenizer.bytes(0)).toHaveLength(0);
});

test("the commonest pair is merged first; among equals the lowest ids", async () => {
  // Words: "low", then " low" twice, " lower": lo and ow occur 4 times each, and l is below o.
  expect(await merges(["low low low lower"], 260)).toEqual(["l o", "lo w", "Ġ low"]);
  expect(await merges(["zb ya zb ya"], 258)).toEqual(["Ġ y"]); // a space is byte 32
});

test("no merge crosses a word, and merging stops when nothing occurs twice", async () => {
  expect(await merges(["a b a b a b"], 300)).toEqual(["Ġ b", "Ġ a"]);
  expect(await merges(["aaaa aaaa"], 300)).toEqual(["a a", "aa aa"]);
  expect(await merges([`x${DOCUMENT}x${DOCUMENT}`], 300)).toEqual([]);
});

test("a run of one letter is counted as often as it can be merged", async () => {
  // In "aaa" the pair (a, a) stands at two places; the merge takes the first.
  expect(await merges(["aaa aaa"], 300)).toEqual(["a a", "aa a"]);
});

test("of too many different words the rarest are forgotten", async () => {
  const merges = async (text: string, mostWords?: number) => {
    const { tokenizer } = await trainByteLevelBpe([text], 300, {}, mostWords);
    return (tokenizer as { model: { merges: string[] } }).model.merges;
  };
  const words = "ab ab ab ab zza zzb zzc zzd zze zzf";
  expect((await merges(words))[0]).toBe("Ġ z");
  expect(await merges(words, 3)).toEqual(["Ġ a", "Ġa b"]); // " ab" outlives all words that occur once
});

test("an impossible vocabulary is refused", async () => {
  await expect(trainByteLevelBpe(["a"], 256)).rejects.toThrow("bpe: a vocabulary needs 257");
  await expect(trainByteLevelBpe(["a"], 70_000)).rejects.toThrow("bpe: a vocabulary needs 257");
});

test("the word cache gives the library's ids, and decoding gives the text back", async () => {
  const texts = [
    "Don't panic: it's 3.14159… I'll say \"grüße\" to 日本 🦊!\n\n\n  Indented,   with \t tabs  ",
    `One document.${DOCUMENT}Another one, ${DOCUMENT}`,
    "",
    " ",
    "\n \n",
  ];
  if (haveShared)
    texts.push(readFileSync(shared("text-classics", "Anonymous-Aladdin-and-the-Magic-Lamp.md"), "utf8"));
  const tokenizer = tokenizerFrom(await trainByteLevelBpe(texts, 600));
  const encode = wordCache(tokenizer);
  for (const text of texts) {
    const ids = tokenizer.encode(text);
    expect(encode(text)).toEqual(ids);
    expect(tokenizer.decode(ids)).toBe(text.replaceAll(DOCUMENT, ""));
  }
});

test("an aborted signal ends the work", async () => {
  const stopped = AbortSignal.abort(new Error("stopped by a test"));
  await expect(trainByteLevelBpe(["a a a"], 300, { signal: stopped })).rejects.toThrow("stopped by a test");
});
