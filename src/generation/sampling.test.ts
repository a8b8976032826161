import { describe, expect, test } from "vitest";
import { generator } from "../tensor/random.ts";
import { candidates, checkSampling, greedy, sample } from "./sampling.ts";

const ids = (logits: number[], options: Parameters<typeof candidates>[1]) =>
  candidates(Float32Array.from(logits), options).map(({ id }) => id);

// Probabilities 0.1, 0.4, 0.2, 0.3.
const four = [0.1, 0.4, 0.2, 0.3].map(Math.log);

describe("candidates", () => {
  test("top-k keeps the k best, the lower id where they are equal", () => {
    expect(ids(four, { topK: 1 })).toEqual([1]);
    expect(ids(four, { topK: 2 })).toEqual([1, 3]);
    expect(ids(four, { topK: 9 })).toEqual([0, 1, 2, 3]);
    expect(ids([1, 2, 2, 2, 0], { topK: 2 })).toEqual([1, 2]);
    expect(ids([2, 5, 2, 2], { topK: 3 })).toEqual([0, 1, 2]);
  });

  test("top-p keeps the fewest whose probabilities reach p", () => {
    expect(ids(four, { topP: 0.39 })).toEqual([1]);
    expect(ids(four, { topP: 0.41 })).toEqual([1, 3]);
    expect(ids(four, { topP: 0.69 })).toEqual([1, 3]);
    expect(ids(four, { topP: 0.71 })).toEqual([1, 2, 3]);
    expect(ids(four, { topP: 1 })).toEqual([0, 1, 2, 3]);
  });

  test("top-p counts within what top-k left", () => {
    // Of the two best, 0.4/0.7 = 0.571 and 0.3/0.7.
    expect(ids(four, { topK: 2, topP: 0.55 })).toEqual([1]);
    expect(ids(four, { topK: 2, topP: 0.58 })).toEqual([1, 3]);
  });

  test("min-p is relative to the best", () => {
    expect(ids(four, { minP: 0.74 })).toEqual([1, 3]);
    expect(ids(four, { minP: 0.76 })).toEqual([1]);
    expect(ids(four, { minP: 0.49 })).toEqual([1, 2, 3]);
  });

  test("temperature sharpens before the filters", () => {
    // At temperature 0.5: weights 1, 16, 4, 9 of 30.
    expect(ids(four, { temperature: 0.5, topP: 0.53 })).toEqual([1]);
    expect(candidates(Float32Array.from(four), { temperature: 0.5 })[1].probability).toBeCloseTo(16 / 30, 6);
  });

  test("probabilities of those kept sum to 1", () => {
    const kept = candidates(Float32Array.from(four), { topK: 3 });
    expect(kept.reduce((sum, { probability }) => sum + probability, 0)).toBeCloseTo(1, 14);
  });

  test("a token of probability zero is never kept by top-p", () => {
    expect(ids([0, -Infinity, 0], { topP: 0.999 })).toEqual([0, 2]);
  });
});

describe("sample", () => {
  test("temperature 0 is greedy, the lowest id of equals", () => {
    expect(sample(Float32Array.of(1, 3, 3), { temperature: 0 }, generator(1))).toBe(1);
    expect(greedy(Float32Array.of(2, 2))).toBe(0);
  });

  test("100,000 draws follow the distribution (chi-square, 3 degrees of freedom, fixed seed)", () => {
    const random = generator(7);
    const counts = [0, 0, 0, 0];
    const logits = Float32Array.from(four);
    for (let n = 0; n < 100_000; n++) counts[sample(logits, {}, random)]++;
    const expected = [10_000, 40_000, 20_000, 30_000];
    const chi = counts.reduce((sum, count, i) => sum + (count - expected[i]) ** 2 / expected[i], 0);
    expect(chi).toBeLessThan(16.27); // exceeded once in a thousand
  });

  test("draws never leave what the filters kept", () => {
    const random = generator(8);
    const logits = Float32Array.from(four);
    for (let n = 0; n < 2000; n++) expect([1, 3]).toContain(sample(logits, { topK: 2 }, random));
  });

  test("logits that are not numbers are an error, not a token", () => {
    expect(() => greedy(Float32Array.of(NaN, NaN))).toThrow("logit of token 0 is NaN");
    expect(() => greedy(Float32Array.of(1, NaN, 2))).toThrow("logit of token 1 is NaN");
  });
});

test.each([
  [{ temperature: -1 }, "temperature must be 0 or more, got -1"],
  [{ temperature: Infinity }, "temperature"],
  [{ topK: 1.5 }, "top-k must be a whole number from 0, got 1.5"],
  [{ topP: 0 }, "top-p must be above 0 and at most 1, got 0"],
  [{ minP: 2 }, "min-p must be from 0 to 1, got 2"],
])("%j is refused", (options, message) => {
  expect(() => checkSampling(options)).toThrow(message);
});
