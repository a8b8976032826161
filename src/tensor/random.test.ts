import { expect, it } from "vitest";
import { generator, normals, permutation } from "./random.ts";

it("is xoshiro128**: the first words of state 1, 2, 3, 4 by hand", () => {
  // Word 1: rotl(2·5, 7)·9 = 1280·9 = 11520. The state becomes (7, 0, 1026, 12288): s1 = 0, so word 2 is 0.
  // Their upper 27 and 26 bits make the number: (11520 >> 5)·2²⁶ + 0, of 2⁵³.
  expect(generator([1, 2, 3, 4])()).toBe((360 * 2 ** 26) / 2 ** 53);
});

it("goes on from a saved state", () => {
  const random = generator(42);
  for (let i = 0; i < 10; i++) random();
  const saved = random.state();
  const next = Array.from({ length: 5 }, random);
  const again = generator(saved);
  expect(Array.from({ length: 5 }, again)).toEqual(next);
});

it("gives other streams for other seeds, inside [0, 1)", () => {
  const a = Array.from({ length: 1000 }, generator(1));
  const b = Array.from({ length: 1000 }, generator(2));
  expect(a.filter((x, i) => x === b[i])).toEqual([]);
  expect(Math.min(...a)).toBeGreaterThanOrEqual(0);
  expect(Math.max(...a)).toBeLessThan(1);
});

it("normals have the moments of the standard normal distribution", () => {
  const n = 200001;
  const z = normals(generator(3), n, 2);
  const moment = (k: number) => z.reduce((sum, x) => sum + (x / 2) ** k, 0) / n;
  expect(Math.abs(moment(1))).toBeLessThan(4 / Math.sqrt(n));
  expect(Math.abs(moment(2) - 1)).toBeLessThan((4 * Math.sqrt(2)) / Math.sqrt(n));
  expect(Math.abs(moment(3))).toBeLessThan((4 * Math.sqrt(15)) / Math.sqrt(n));
  expect(Math.abs(moment(4) - 3)).toBeLessThan((4 * Math.sqrt(96)) / Math.sqrt(n));
});

it("a permutation holds each number once and is not always the same", () => {
  const order = permutation(generator(4), 100);
  expect([...order].sort((a, b) => a - b)).toEqual(Array.from({ length: 100 }, (_, i) => i));
  expect(permutation(generator(5), 100)).not.toEqual(order);
  expect(permutation(generator(5), 100)).toEqual(permutation(generator(5), 100));
});
