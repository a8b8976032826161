import { expect, it } from "vitest";
import { generator } from "./random.ts";
import { halfAway, halfEven, halfUp, stochastic } from "./rounding.ts";

const halves = [-2.5, -1.5, -0.5, 0.5, 1.5, 2.5];

it.each([
  [halfEven, [-2, -2, 0, 0, 2, 2]],
  [halfAway, [-3, -2, -1, 1, 2, 3]],
  [halfUp, [-2, -1, 0, 1, 2, 3]],
] as const)("%o rounds halves by its name", (round, expected) => {
  expect(halves.map((x) => round(x) + 0)).toEqual(expected);
});

it.each([halfEven, halfAway, halfUp])("%o goes to the nearest integer elsewhere", (round) => {
  for (const x of [-7.51, -7.49, -1e-9, 0, 0.49, 0.51, 3, 2 ** 40 + 0.25]) {
    expect(Math.abs(round(x) - x)).toBeLessThan(0.5);
    expect(Number.isInteger(round(x))).toBe(true);
  }
});

it("stochastic rounding is right on average and never leaves the two neighbours", () => {
  const random = generator(1);
  const n = 20000;
  let sum = 0;
  for (let i = 0; i < n; i++) {
    const y = stochastic(-2.3, random);
    expect(y === -3 || y === -2).toBe(true);
    sum += y;
  }
  expect(Math.abs(sum / n + 2.3)).toBeLessThan((4 * Math.sqrt(0.3 * 0.7)) / Math.sqrt(n));
  expect(stochastic(4, random)).toBe(4);
});
