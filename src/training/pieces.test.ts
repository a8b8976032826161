import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { haveShared, shared } from "../../test/shared.ts";
import { openTokenizer } from "../files/tokenizer-files.ts";
import { cutsOf, trainerCuts } from "../tokenizers/cuts.ts";
import { tokenizerFrom, trainByteLevelBpe } from "../tokenizers/index.ts";
import { wordCache } from "../tokenizers/word-cache.ts";
import type { Part } from "./documents.ts";
import { type Piece, pieces } from "./pieces.ts";
import { sample } from "./sample.ts";

async function collected<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
}

async function* inParts(texts: readonly string[], length: number): AsyncGenerator<Part> {
  for (const [file, text] of texts.entries()) {
    for (let from = 0; from === 0 || from < text.length; from += length) {
      yield { file, text: text.slice(from, from + length), last: from + length >= text.length, read: 0 };
    }
  }
}

const prose = haveShared
  ? readFileSync(shared("text-classics", "Jack-London-White-Fang.md"), "utf8").slice(0, 150_000)
  : Array.from({ length: 4000 }, (_, i) => `Sentence ${i % 97} of many,\nwith  a line.\n\n`).join("");

test("pieces of every length have the ids of the whole text", async () => {
  const data = await trainByteLevelBpe([prose.slice(0, 30_000)], 500);
  const encode = wordCache(tokenizerFrom(data));
  const whole = encode(prose);
  for (const [partLength, length] of [
    [1000, 100],
    [7000, 2500],
    [200_000, 3000],
    [333, 40_000],
  ]) {
    const found = await collected(pieces(inParts([prose], partLength), trainerCuts(), length));
    expect(found.length).toBeGreaterThan(prose.length / (2 * length + 2 * partLength));
    expect(found.map(({ text }) => text).join("")).toBe(prose);
    expect(found.flatMap(({ text }) => [...encode(text)])).toEqual([...whole]);
  }
});

test.skipIf(!haveShared)("with Llama's vocabulary too, which puts a space before each text", async () => {
  const data = await openTokenizer(shared("tokenizer-llama", "tokenizer.model"));
  const tokenizer = tokenizerFrom(data);
  const text = prose.slice(0, 40_000);
  const found = await collected(pieces(inParts([text], 900), cutsOf(data), 1000));
  expect(found.length).toBeGreaterThan(15);
  expect(found.flatMap((piece) => [...tokenizer.encode(piece.text)])).toEqual([...tokenizer.encode(text)]);
});

test("the last piece of a document has its place; documents of white space are empty", async () => {
  const texts = ["one 🦊", " \n\t", "", "three"];
  const found = await collected(pieces(inParts(texts, 2), trainerCuts()));
  expect(found.map(({ text, end }) => [text, end?.empty])).toEqual([
    ["one 🦊", false],
    ["", true],
    ["", true],
    ["three", false],
  ]);
  for (const [i, { end }] of found.entries()) {
    const digest = createHash("sha256").update(texts[i]).digest();
    expect(end!.place).toBe(Number(digest.readBigUInt64BE()) / 2 ** 64);
  }
});

test("without cuts a document is one piece", async () => {
  expect(await collected(pieces(inParts([prose], 999), undefined, 10))).toHaveLength(1);
});

test("a sample of all is all; of less, stretches that are evenly spread and together that share", async () => {
  const whole = async function* (): AsyncGenerator<Piece> {
    for (let i = 0; i < 100; i++)
      yield { file: i, text: "x".repeat(1000), read: 0, end: { place: i / 100, empty: false } };
  };
  expect((await collected(sample(whole(), 1))).length).toBe(100);
  expect((await collected(sample(whole(), 0.25))).length).toBe(25);
  const long = async function* (): AsyncGenerator<Piece> {
    yield { file: 0, text: prose.repeat(20), read: 0, end: { place: 0, empty: false } };
  };
  const stretches = await collected(sample(long(), 0.1));
  const characters = stretches.join("").length;
  expect(Math.abs(characters - 2 * prose.length)).toBeLessThan(70_000);
  expect(stretches.length).toBeGreaterThan(2);
});

test("a sample has nothing of documents that are held out", async () => {
  const texts = Array.from({ length: 50 }, (_, i) => `document ${i}`);
  const found = await collected(sample(pieces(inParts(texts, 5), trainerCuts()), 1, (file) => file % 3 > 0));
  expect(found).toEqual(texts.filter((_, i) => i % 3 > 0));
});
