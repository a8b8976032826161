import { expect, test } from "vitest";
import { BatchOrder, predicted, readBatch, spread, windowCount } from "./batches.ts";
import type { TokenFile } from "./token-file.ts";

const counting: TokenFile = {
  length: 100,
  documents: 1,
  start: (document) => 100 * document,
  slice: async (from, to) => Int32Array.from({ length: to - from }, (_, i) => from + i),
};

test("windows follow one another and targets are the successors", async () => {
  const batch = await readBatch(counting, [2, 0], 4);
  expect([...batch.inputs]).toEqual([8, 9, 10, 11, 0, 1, 2, 3]);
  expect([...batch.targets]).toEqual([9, 10, 11, 12, 1, 2, 3, 4]);
  expect(batch.sequences).toBe(2);
});

test("every token but the first of the text, and a rest at its end, is predicted", () => {
  expect([0, 1, 4, 5, 8, 9, 100].map((tokens) => windowCount(tokens, 4))).toEqual([0, 0, 0, 1, 1, 2, 24]);
});

test("a pass visits every window once; the next one in another order", () => {
  const order = new BatchOrder(7, 24, 4);
  expect(order.stepsPerPass).toBe(6);
  const passes = [0, 1].map((pass) => [0, 1, 2, 3, 4, 5].flatMap((i) => order.at(pass * 6 + i)));
  for (const pass of passes)
    expect([...pass].sort((a, b) => a - b)).toEqual(Array.from({ length: 24 }, (_, i) => i));
  expect(passes[0]).not.toEqual(passes[1]);
});

test("a step's windows depend on seed, windows and batch alone", () => {
  const forwards = new BatchOrder(7, 10, 4);
  const all = [0, 1, 2, 3, 4, 5, 6].map((step) => forwards.at(step));
  for (const step of [5, 1, 6, 0]) expect(new BatchOrder(7, 10, 4).at(step)).toEqual(all[step]);
  expect(new BatchOrder(8, 10, 4).at(0)).not.toEqual(all[0]);
  // Ten windows in batches of four: the third step ends one pass and begins the next.
  expect(new Set([...all[0], ...all[1], ...all[2].slice(0, 2)]).size).toBe(10);
});

test("a text of less than one batch is refused, with the numbers", () => {
  expect(() => new BatchOrder(1, 3, 4)).toThrow(
    "data.text: makes 3 windows of model.context tokens, one batch needs 4",
  );
  expect(new BatchOrder(1, 4, 4).stepsPerPass).toBe(1);
});

test("targets that are ignored are not counted", () => {
  const inputs = new Int32Array(4);
  expect(predicted({ sequences: 1, inputs, targets: Int32Array.of(3, -1, 0, -1) })).toBe(2);
});

test("a spread of windows is even, and all of them when they are few", () => {
  expect(spread(100, 4)).toEqual([12, 37, 62, 87]);
  expect(spread(3, 64)).toEqual([0, 1, 2]);
});
