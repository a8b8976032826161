import { expect, it } from "vitest";
import { generator } from "../tensor/random.ts";
import { allocate, type Choice } from "./allocate.ts";

/** Least error of all combinations that fit. */
function bruteForce(parts: readonly (readonly Choice[])[], budget: number): number {
  const [first, ...rest] = parts;
  if (!first) return budget >= 0 ? 0 : Infinity;
  return Math.min(...first.map(({ bytes, error }) => error + bruteForce(rest, budget - bytes)));
}

const sum = (parts: readonly (readonly Choice[])[], picked: number[], of: "bytes" | "error") =>
  parts.reduce((total, choices, p) => total + choices[picked[p]][of], 0);

it.each([1, 2, 3, 4, 5, 6])("is the best of all combinations, seed %i", async (seed) => {
  const random = generator(seed);
  const parts = Array.from({ length: 6 }, () =>
    Array.from({ length: 5 }, () => ({
      bytes: 16 * Math.floor(1 + 4000 * random()),
      error: 10 ** (12 * random() - 9), // of sizes as far apart as those of early and late layers
    })),
  );
  const least = parts.reduce((total, choices) => total + Math.min(...choices.map(({ bytes }) => bytes)), 0);
  for (const budget of [least, Math.floor(1.3 * least), 2 * least, 1e9]) {
    const picked = await allocate(parts, budget);
    expect(sum(parts, picked, "bytes")).toBeLessThanOrEqual(budget);
    const best = bruteForce(parts, budget);
    expect(Math.abs(sum(parts, picked, "error") - best)).toBeLessThanOrEqual(1e-9 * best);
  }
});

it("takes the better of two choices of one size, and is done with one choice a part", async () => {
  const parts = [
    [
      { bytes: 5, error: 3 },
      { bytes: 5, error: 2 },
      { bytes: 7, error: 2 },
    ],
    [{ bytes: 1, error: 0 }],
  ];
  expect(await allocate(parts, 100)).toEqual([1, 0]);
});

it("holds a budget of billions of bytes to the byte", async () => {
  const parts = Array.from({ length: 3 }, () => [
    { bytes: 1_000_000_000, error: 2 },
    { bytes: 1_000_000_001, error: 1 },
  ]);
  expect(sum(parts, await allocate(parts, 3_000_000_002), "error")).toBe(4);
});

it("names the smallest budget where none fits", async () => {
  const parts = [
    [{ bytes: 10, error: 1 }],
    [
      { bytes: 7, error: 1 },
      { bytes: 9, error: 0 },
    ],
  ];
  await expect(allocate(parts, 16)).rejects.toThrow(
    "allocate: nothing fits 16 bytes; the smallest choices together take 17",
  );
});
