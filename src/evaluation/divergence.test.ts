import { expect, test } from "vitest";
import { generator, normals } from "../tensor/random.ts";
import { klOfLogits } from "./divergence.ts";

const ln = (...p: number[]) => Float32Array.from(p, Math.log);

test("KL of two distributions by hand", () => {
  // ½·ln(½/¼) + ½·ln(½/¾)
  expect(klOfLogits(ln(0.5, 0.5), ln(0.25, 0.75), 0, 2)).toBeCloseTo(0.14384103622589045, 7);
});

test("a distribution diverges from itself by exactly 0, and a shift of all logits changes nothing", () => {
  const logits = normals(generator(1), 500, 3);
  expect(klOfLogits(logits, logits, 0, 500)).toBe(0);
  expect(
    klOfLogits(
      logits,
      logits.map((x) => x + 8),
      0,
      500,
    ),
  ).toBeLessThan(1e-6);
});

test("it is not symmetric and never negative", () => {
  const random = generator(2);
  for (let n = 0; n < 100; n++) {
    const p = normals(random, 40);
    const q = normals(random, 40);
    expect(klOfLogits(p, q, 0, 40)).toBeGreaterThan(0);
    expect(klOfLogits(p, q, 0, 40)).not.toBe(klOfLogits(q, p, 0, 40));
  }
});

test("a token that the reference rules out adds nothing; one that only the model rules out is infinite", () => {
  expect(klOfLogits(ln(0, 1), ln(0.5, 0.5), 0, 2)).toBeCloseTo(Math.LN2, 7);
  expect(klOfLogits(ln(0.5, 0.5), ln(0, 1), 0, 2)).toBe(Infinity);
});

test("rows are told apart", () => {
  const p = Float32Array.of(9, 9, ...ln(0.5, 0.5));
  const q = Float32Array.of(1, 9, ...ln(0.25, 0.75));
  expect(klOfLogits(p, q, 2, 2)).toBeCloseTo(0.14384103622589045, 7);
});
