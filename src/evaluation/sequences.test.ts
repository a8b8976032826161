import { describe, expect, test } from "vitest";
import type { Tokenizer } from "../tokenizers/tokenizer.ts";
import { counted, documents, type Sequences, windows } from "./sequences.ts";

/** Every byte is a token; 256 starts a text, unless told otherwise. */
function byteTokenizer(bos?: number): Tokenizer {
  return {
    vocabulary: 257,
    ...(bos === undefined ? {} : { bos }),
    encode: (text) => Int32Array.from(new TextEncoder().encode(text)),
    bytes: (id) => (id < 256 ? Uint8Array.of(id) : new Uint8Array()),
    decode: (ids) => new TextDecoder().decode(Uint8Array.from(Array.from(ids))),
    piece: (id) => String(id),
  };
}

/** The tokens counted, in order. */
const countedIds = ({ all }: Sequences) => all.flatMap(({ ids, first }) => [...ids.slice(first)]);
const bytesOf = (text: string) => [...new TextEncoder().encode(text)];
const text = "The quick brown fox jumps.";

describe("windows", () => {
  test.each([
    [8, 8],
    [8, 3],
    [8, 1],
    [1, 1],
    [100, 100],
    [25, 25],
    [26, 26],
  ])("context %i, stride %i: each token is counted once, in order", async (context, stride) => {
    const cut = await windows(text, byteTokenizer(256), context, stride);
    expect(countedIds(cut)).toEqual(bytesOf(text));
    expect(cut.tokens).toBe(26);
    expect(cut.bytes).toBe(26);
    for (const { ids, first } of cut.all) {
      expect(ids.length - 1).toBeLessThanOrEqual(context);
      expect(first).toBeGreaterThanOrEqual(1);
      expect(counted({ ids, first })).toBeGreaterThan(0);
    }
  });

  test("later windows see at least context − stride tokens before the first counted one", async () => {
    const [first, ...later] = (await windows(text, byteTokenizer(256), 8, 3)).all;
    expect([...first.ids.slice(0, 2)]).toEqual([256, bytesOf(text)[0]]);
    for (const { first } of later) expect(first).toBeGreaterThan(8 - 3);
  });

  test("without a start token the first token is not predicted and its bytes not counted", async () => {
    const cut = await windows("héllo", byteTokenizer(), 4);
    expect(countedIds(cut)).toEqual(bytesOf("héllo").slice(1));
    expect(cut).toMatchObject({ tokens: 5, bytes: 5 });
  });

  test.each([0, 9, 1.5])("a stride of %f is refused", async (stride) => {
    await expect(windows(text, byteTokenizer(256), 8, stride)).rejects.toThrow(
      "stride: needs a whole number from 1",
    );
  });
});

describe("documents", () => {
  test("are stripped and start with the start token; empty ones are left out", async () => {
    const cut = await documents(" one \n|\n|two|", byteTokenizer(256), 10, "|");
    expect(cut.all.map(({ ids }) => [...ids])).toEqual([
      [256, ...bytesOf("one")],
      [256, ...bytesOf("two")],
    ]);
    expect(cut).toMatchObject({ tokens: 6, bytes: 6 });
  });

  test("are cut to the context, the start token included, and so are their bytes", async () => {
    const cut = await documents("abcdef|gh", byteTokenizer(256), 4, "|");
    expect(countedIds(cut)).toEqual(bytesOf("abcgh"));
    expect(cut.bytes).toBe(5);
  });

  test("a limit counts documents that are not empty", async () => {
    expect((await documents("a||b|c", byteTokenizer(256), 4, "|", 2)).all.length).toBe(2);
  });

  test("a text of separators only has nothing to predict", async () => {
    await expect(documents("||", byteTokenizer(256), 4, "|")).rejects.toThrow("no token to predict");
  });
});
