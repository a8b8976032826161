import { expect, test } from "vitest";
import { generator, normals } from "../tensor/random.ts";
import { InputError } from "../tensor/tensor.ts";
import { EXPONENTS, powerLawOf, slope } from "./power-law.ts";
import { percentiles } from "./resample.ts";

const fitPowerLaw = (N: readonly number[], L: readonly number[], options: { offset: boolean }) =>
  powerLawOf(N, options)(L);
const SIZES = [0.37e6, 0.61e6, 0.92e6, 1.36e6, 2.6e6, 4.4e6];
const law = (A: number, alpha: number, E: number) => SIZES.map((N) => A * N ** -alpha + E);
const noisy = (values: readonly number[], seed: number, sd: number) => {
  const noise = normals(generator(seed), values.length, sd);
  return values.map((value, i) => value + noise[i]);
};

test("finds the law that the losses follow", () => {
  for (const [A, alpha, E] of [
    [185, 0.26, 1.76],
    [18.13, 0.093, 0.5],
    [4000, 0.6, 2.2],
    [1e6, 1.1, 3],
  ]) {
    const fit = fitPowerLaw(SIZES, law(A, alpha, E), { offset: true });
    expect(fit.alpha).toBeCloseTo(alpha, 5);
    expect(fit.E).toBeCloseTo(E, 4);
    expect(fit.A / A).toBeCloseTo(1, 4);
    expect(fit.rms).toBeLessThan(1e-7);
    expect(fit.atBound).toBe(false);
  }
});

test("without offset, and of two sizes", () => {
  const fit = fitPowerLaw(SIZES, law(13.82, 0.085, 0), { offset: false });
  expect(fit).toMatchObject({ E: 0, atBound: false });
  expect(fit.alpha).toBeCloseTo(0.085, 6);
  const two = fitPowerLaw([1e5, 1e6], [5, 4], { offset: false });
  expect(two.alpha).toBeCloseTo(Math.log10(5 / 4), 6);
  expect(two.rms).toBeLessThan(1e-8);
});

test("no other law near the one found has less squares", () => {
  const losses = noisy(law(185, 0.26, 1.76), 5, 0.02);
  const fit = fitPowerLaw(SIZES, losses, { offset: true });
  const squares = (A: number, alpha: number, E: number) =>
    SIZES.reduce((sum, N, i) => sum + (A * N ** -alpha + E - losses[i]) ** 2, 0);
  const least = squares(fit.A, fit.alpha, fit.E);
  for (const a of [0.99, 0.999, 1.001, 1.01]) {
    expect(squares(fit.A * a, fit.alpha, fit.E)).toBeGreaterThanOrEqual(least);
    expect(squares(fit.A, fit.alpha * a, fit.E)).toBeGreaterThanOrEqual(least);
    expect(squares(fit.A, fit.alpha, fit.E * a)).toBeGreaterThanOrEqual(least - 1e-12);
  }
});

test("an offset that would be negative is 0, and said to be at its bound", () => {
  // Convex in the other way: the line in ln N itself, which falls forever.
  const losses = SIZES.map((N) => 30 - 2 * Math.log(N));
  const fit = fitPowerLaw(SIZES, losses, { offset: true });
  expect(fit).toMatchObject({ E: 0, atBound: true });
});

test("losses that are constant or rise are at a bound", () => {
  expect(fitPowerLaw(SIZES, law(0, 1, 3), { offset: true }).atBound).toBe(true);
  const rising = fitPowerLaw(SIZES, [...law(185, 0.26, 1)].reverse(), { offset: true });
  expect(rising.atBound).toBe(true);
  expect(rising.A * SIZES[0] ** -rising.alpha).toBeLessThan(1e-6);
  // A step: all of the fall is between the first two sizes.
  const step = fitPowerLaw(SIZES, [9, 1, 1, 1, 1, 1], { offset: true });
  expect(step.alpha).toBeCloseTo(EXPONENTS.high, 1);
  expect(step.atBound).toBe(true);
});

test("what cannot be fitted is refused", () => {
  const refused = (N: number[], L: number[], offset = true) => expect(() => fitPowerLaw(N, L, { offset }));
  refused([1e5, 1e6], [5, 4]).toThrow("needs 3 sizes at least, or a fit without offset, got 2");
  refused([1e5, 1e5, 1e6], [5, 5, 4]).toThrow(InputError);
  refused([1e5], [5], false).toThrow("needs 2 sizes");
  refused([1e5, 1e6, 0], [5, 4, 3]).toThrow("positive sizes");
  refused([1e5, 1e6, 1e7], [5, 4]).toThrow("2 losses of 3 sizes");
  refused([1e5, 1e6, 1e7], [5, Number.NaN, 3]).toThrow("L(1000000) = NaN");
});

test("the interval of resampled fits holds the true values about as often as it says", () => {
  const truth = law(185, 0.26, 1.76);
  const sd = 0.002;
  const fitted = powerLawOf(SIZES, { offset: true });
  const held = { alpha: 0, E: 0 };
  const times = 100;
  for (let t = 0; t < times; t++) {
    const seen = noisy(truth, 1000 + t, sd);
    const alphas: number[] = [];
    const offsets: number[] = [];
    for (let r = 0; r < 60; r++) {
      const fit = fitted(noisy(seen, 1e6 + 1000 * t + r, sd));
      alphas.push(fit.alpha);
      offsets.push(fit.E);
    }
    const a = percentiles(alphas);
    const e = percentiles(offsets);
    if (a.low <= 0.26 && 0.26 <= a.high) held.alpha++;
    if (e.low <= 1.76 && 1.76 <= e.high) held.E++;
  }
  for (const times of [held.alpha, held.E]) {
    expect(times).toBeGreaterThanOrEqual(85);
    expect(times).toBeLessThanOrEqual(100);
  }
});

test("the slope of a line", () => {
  expect(slope([1, 2, 4], [5, 3, -1])).toBeCloseTo(-2, 12);
  expect(slope([0, 1, 2], [0, 1, 0])).toBeCloseTo(0, 12);
  expect(() => slope([1, 1], [2, 3])).toThrow("needs two places");
});
