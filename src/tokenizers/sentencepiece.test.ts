import { expect, test } from "vitest";
import { sentencePieceTokenizer } from "./sentencepiece.ts";
import type { Piece, TokenizerData } from "./tokenizer.ts";

type Model = TokenizerData & { kind: "sentencepiece" };

const special: Piece[] = [
  { text: "<unk>", score: 0, type: "unknown" },
  { text: "<s>", score: 0, type: "control" },
  { text: "</s>", score: 0, type: "control" },
];
const normal = (scores: Record<string, number>): Piece[] =>
  Object.entries(scores).map(([text, score]) => ({ text, score, type: "normal" }));
const model = (pieces: Piece[], change: Partial<Model> = {}): Model => ({
  kind: "sentencepiece",
  model: "bpe",
  pieces: [...special, ...pieces],
  addDummyPrefix: false,
  removeExtraWhitespaces: false,
  byteFallback: false,
  unknown: 0,
  bos: 1,
  eos: 2,
  ...change,
});
const pieces = (m: Model, text: string) => {
  const tokenizer = sentencePieceTokenizer(m);
  return Array.from(tokenizer.encode(text), (id) => tokenizer.piece(id));
};

test("bpe merges the best-scored pair first, and the leftmost among equals", () => {
  const m = model(normal({ a: -9, b: -9, c: -9, ab: -2, bc: -1, abc: -3 }));
  expect(pieces(m, "abc")).toEqual(["abc"]);
  expect(pieces(m, "abcab")).toEqual(["abc", "ab"]);
  // bc goes first, so ab cannot be made of the same b; without abc it stays apart.
  expect(pieces(model(normal({ a: -9, b: -9, c: -9, ab: -2, bc: -1 })), "abc")).toEqual(["a", "bc"]);
  expect(pieces(model(normal({ a: -9, aa: -1 })), "aaa")).toEqual(["aa", "a"]);
});

test("unigram takes the segmentation of highest total score", () => {
  const m = model(normal({ a: -1, b: -1, c: -1, ab: -1.5, bc: -1.2, abc: -4 }), { model: "unigram" });
  expect(pieces(m, "abc")).toEqual(["a", "bc"]); // −2.2 against −2.5 (ab c), −3 (a b c) and −4 (abc)
  expect(pieces(m, "ab")).toEqual(["ab"]);
  expect(pieces(m, "")).toEqual([]);
});

test("neighbours that are no piece become one unknown, or their bytes", () => {
  const known = normal({ a: -1 });
  for (const kind of ["bpe", "unigram"] as const) {
    expect(pieces(model(known, { model: kind }), "a日😀a")).toEqual(["a", "<unk>", "a"]);
    const bytes: Piece[] = Array.from({ length: 256 }, (_, b) => ({
      text: `<0x${b.toString(16).toUpperCase().padStart(2, "0")}>`,
      score: 0,
      type: "byte",
    }));
    const withBytes = model([...known, ...bytes], { model: kind, byteFallback: true });
    expect(pieces(withBytes, "aé")).toEqual(["a", "<0xC3>", "<0xA9>"]);
    const tokenizer = sentencePieceTokenizer(withBytes);
    expect(tokenizer.decode(tokenizer.encode("a日😀\na"))).toBe("a日😀\na");
    const damaged = model([...known, ...bytes.slice(0, 0xa9)], { model: kind, byteFallback: true });
    expect(pieces(damaged, "é")).toEqual(["<unk>", "<unk>"]);
  }
});

test("user pieces of any characters are found, the longest first, among any number of them", () => {
  const users = ["x-y", "-", "(", "(?:"].map((text): Piece => ({ text, score: 0, type: "user" }));
  const many = Array.from({ length: 20_000 }, (_, i): Piece => ({ text: `b${i};`, score: 0, type: "user" }));
  const m = model([...normal({ a: -1, b: -1 }), ...users, ...many]);
  expect(pieces(m, "ax-yb-(?:((b77;b")).toEqual(["a", "x-y", "b", "-", "(?:", "(", "(", "b77;", "b"]);
});

test("control pieces are never found in text, user pieces always", () => {
  const user: Piece = { text: "ab", score: 0, type: "user" };
  const m = model([...normal({ a: -1, b: -1, c: -1, bc: -1, "<": -1, s: -1, ">": -1 }), user]);
  expect(pieces(m, "<s>")).toEqual(["<", "s", ">"]);
  expect(pieces(m, "abc")).toEqual(["ab", "c"]); // bc cannot take the b
});

test("spaces: a dummy prefix is put in front and taken off; extra ones go where the model says so", () => {
  const letters = normal({ "▁": -3, a: -3, b: -3, "▁a": -1 });
  const plain = model(letters, { addDummyPrefix: true });
  expect(pieces(plain, "a b")).toEqual(["▁a", "▁", "b"]);
  expect(sentencePieceTokenizer(plain).decode([6, 3, 5])).toBe("a b");
  expect(pieces(plain, " a")).toEqual(["▁", "▁a"]);
  expect(pieces(model(letters, { removeExtraWhitespaces: true }), "  a   b ")).toEqual(["a", "▁", "b"]);
  expect([...sentencePieceTokenizer(plain).encode("")]).toEqual([]);
});
