import { existsSync, readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { shared } from "../../test/shared.ts";
import type { TokenizerData } from "../tokenizers/tokenizer.ts";
import { readSentencePiece, readTokBin } from "./sentencepiece.ts";

type SentencePiece = TokenizerData & { kind: "sentencepiece" };

/** A protobuf field of bytes. */
const field = (number: number, bytes: number[]) => [
  ...varint(number * 8 + 2),
  ...varint(bytes.length),
  ...bytes,
];
/** A protobuf field of a number. */
const number = (n: number, value: number) => [...varint(n * 8), ...varint(value)];

function varint(value: number): number[] {
  // −1 is written as 64 bits of ones.
  const bytes: number[] = [];
  for (let rest = BigInt.asUintN(64, BigInt(value)); ; rest >>= 7n) {
    bytes.push(Number(rest & 0x7fn) | (rest > 0x7fn ? 0x80 : 0));
    if (rest <= 0x7fn) return bytes;
  }
}

function piece(text: string, score: number, type?: number): number[] {
  const bits = new Uint8Array(Float32Array.of(score).buffer);
  return field(1, [
    ...field(1, [...new TextEncoder().encode(text)]),
    0x15,
    ...bits,
    ...(type ? number(3, type) : []),
  ]);
}

test("pieces, types and flags of a model made by hand", () => {
  const bytes = [
    ...piece("<unk>", 0, 2),
    ...piece("<s>", 0, 3),
    ...piece("<0x41>", 0, 6),
    ...piece("\u2581a", -1.5),
    ...piece("user", 0, 4),
    ...piece("gone", 0, 5),
    ...field(2, [...number(3, 1), ...number(35, 1), ...number(41, 1), ...number(42, -1)]),
    ...field(3, [...field(1, [0x6e]), ...number(3, 0), ...number(4, 0)]),
    ...field(9, [1, 2, 3]), // of a later version
  ];
  expect(readSentencePiece(Uint8Array.from(bytes), "hand.model")).toEqual({
    kind: "sentencepiece",
    model: "unigram",
    pieces: [
      { text: "<unk>", score: 0, type: "unknown" },
      { text: "<s>", score: 0, type: "control" },
      { text: "<0x41>", score: 0, type: "byte" },
      { text: "\u2581a", score: -1.5, type: "normal" },
      { text: "user", score: 0, type: "user" },
      { text: "gone", score: 0, type: "unused" },
    ],
    addDummyPrefix: false,
    removeExtraWhitespaces: false,
    byteFallback: true,
    unknown: 0,
    bos: 1,
    eos: undefined,
  });
});

test("a model cut anywhere gives one clear line or a shorter vocabulary, never anything else", () => {
  const bytes = Uint8Array.from([...piece("<unk>", 0, 2), ...piece("a", -1), ...field(2, number(3, 2))]);
  for (let length = 0; length < bytes.length; length++) {
    try {
      const read = readSentencePiece(bytes.subarray(0, length), "cut.model") as SentencePiece;
      expect(read.pieces.length).toBeLessThanOrEqual(2);
    } catch (error) {
      expect((error as Error).name).toBe("InputError");
      expect((error as Error).message).toMatch(/^cut\.model: /);
    }
  }
});

test("bytes at random are refused or read as few pieces, never a crash", () => {
  let state = 12345;
  const random = () => (state = (Math.imul(state, 1103515245) + 12345) >>> 0) >>> 16;
  for (let trial = 0; trial < 2000; trial++) {
    const bytes = Uint8Array.from({ length: 1 + (random() % 40) }, random);
    for (const read of [readSentencePiece, readTokBin]) {
      try {
        read(bytes, "random");
      } catch (error) {
        expect((error as Error).name).toBe("InputError");
      }
    }
  }
});

const have = existsSync(shared("tokenizer-llama")) && existsSync(shared("babyllama-tok105"));
test.skipIf(!have)("Llama's vocabulary is the same as SentencePiece model and as tokenizer.bin", () => {
  const model = readSentencePiece(
    readFileSync(shared("tokenizer-llama/tokenizer.model")),
    "tokenizer.model",
  ) as SentencePiece;
  const bin = readTokBin(
    readFileSync(shared("tokenizer-llama/tokenizer.bin")),
    "tokenizer.bin",
  ) as SentencePiece;
  expect(model.pieces).toHaveLength(32000);
  expect(bin.pieces.map((p) => [p.text.trim(), p.type])).toEqual(
    model.pieces.map((p) => [p.text.trim(), p.type]),
  );
  const { pieces: _, ...flags } = model;
  const { pieces: __, ...flagsOfBin } = bin;
  expect(flagsOfBin).toEqual(flags);
});

test.skipIf(!have)("BabyLlama's model equals the .vocab beside it", () => {
  const model = readSentencePiece(
    readFileSync(shared("babyllama-tok105/tok105.model")),
    "tok105.model",
  ) as SentencePiece;
  const lines = readFileSync(shared("babyllama-tok105/tok105.vocab"), "utf8").trimEnd().split("\n");
  expect(model.pieces.map((p) => `${p.text}\t${p.score + 0}`)).toEqual(
    lines.map((line) => line.replace("\t-0", "\t0")),
  );
  expect(model.model).toBe("bpe");
});
