import { existsSync, readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { shared } from "../../test/shared.ts";
import { openTokenizer } from "../files/tokenizer-files.ts";
import { joinBytes, textOf } from "./bytes.ts";
import { type Tokenizer, tokenizerFrom } from "./index.ts";

const cases: readonly [name: string, file: string][] = [
  ["stories260K", shared("stories260k", "tok512.bin")],
  ["Llama, SentencePiece", shared("tokenizer-llama", "tokenizer.model")],
  ["Llama, llama2.c", shared("tokenizer-llama", "tokenizer.bin")],
  ["Llama, Hugging Face", shared("tokenizer-llama", "tokenizer.json")],
  ["NeoX", shared("tokenizer-neox20b", "20B_tokenizer.json")],
];

const odd = [
  "",
  " ",
  "  two  spaces, then three   , and at the end  ",
  "tabs\tand\r\nline\n\n\nbreaks \n",
  "Grüße, naïve café, Ελληνικά, русский, 日本語, עברית",
  "🦊 fox, 👩‍👩‍👧 family, 🇫🇷 flag, e\u0301 combining",
  "\u0000\u0001\u007f zero width \u200b mark \ufeff",
  "1234567890 3.14159 1e-5 'tis don't we'll I'VE",
];

const readText = (...parts: string[]) => readFileSync(shared(...parts), "utf8");

/** Bytes of single ids, put together as a stream is. */
const streamed = (tokenizer: Tokenizer, ids: Int32Array) =>
  textOf(joinBytes(Array.from(ids, (id) => tokenizer.bytes(id))));

for (const [name, file] of cases) {
  test.skipIf(!existsSync(file))(`${name}: decode(encode(text)) is the text`, async () => {
    const tokenizer = tokenizerFrom(await openTokenizer(file));
    // NeoX normalizes to composed characters (NFC) before it encodes.
    const expected = (text: string) => (name === "NeoX" ? text.normalize("NFC") : text);
    for (const text of [...odd, readText("text-classics", "Jack-London-White-Fang.md").slice(0, 20_000)]) {
      const ids = tokenizer.encode(text);
      for (const id of ids) expect(id >= 0 && id < tokenizer.vocabulary).toBe(true);
      expect(tokenizer.decode(ids)).toBe(expected(text));
      // A stream has the same bytes, with the space that encode put in front.
      expect(streamed(tokenizer, ids).endsWith(expected(text))).toBe(true);
    }
  });
}

test.skipIf(!existsSync(shared("tokenizer-llama")))(
  "the three files of Llama's vocabulary give the same ids",
  async () => {
    const [model, bin, json] = await Promise.all(
      ["tokenizer.model", "tokenizer.bin", "tokenizer.json"].map(async (file) =>
        tokenizerFrom(await openTokenizer(shared("tokenizer-llama", file))),
      ),
    );
    expect([model.bos, bin.bos, json.bos, model.eos, bin.eos, json.eos]).toEqual([1, 1, 1, 2, 2, 2]);
    expect([model.vocabulary, bin.vocabulary, json.vocabulary]).toEqual([32000, 32000, 32002]);
    const prose = readText("text-classics", "Lewis-Carroll-Through-the-Looking-Glass.md").slice(0, 15_000);
    for (const text of [...odd, prose]) {
      expect(bin.encode(text)).toEqual(model.encode(text));
      expect(json.encode(text)).toEqual(model.encode(text));
    }
    expect([...model.encode("Hello world")]).toEqual([15043, 3186]);
    expect(model.piece(15043)).toBe("▁Hello");
  },
);

test.skipIf(!existsSync(shared("babyllama-tok105")))(
  "tok105 takes text character by character, its unknowns as one",
  async () => {
    const tokenizer = tokenizerFrom(await openTokenizer(shared("babyllama-tok105", "tok105.model")));
    const vocabulary = readText("babyllama-tok105", "tok105.vocab")
      .trimEnd()
      .split("\n")
      .map((line) => line.split("\t")[0]);
    expect(tokenizer.vocabulary).toBe(105);
    const text = "Once upon a time, there was a little girl.";
    const ids = tokenizer.encode(text);
    expect(Array.from(ids, (id) => vocabulary[id]).join("")).toBe(`▁${text.replaceAll(" ", "▁")}`);
    expect(tokenizer.decode(ids)).toBe(text);
    expect([...tokenizer.encode("a日本b")].filter((id) => id === 0)).toHaveLength(1);
  },
);

test.skipIf(!existsSync(shared("tokenizer-llama")))(
  "long texts take time in proportion: 100,000 letters without a space",
  async () => {
    const tokenizer = tokenizerFrom(await openTokenizer(shared("tokenizer-llama", "tokenizer.model")));
    const text = "abcdefghij".repeat(10_000);
    expect(tokenizer.decode(tokenizer.encode(text))).toBe(text);
  },
);
