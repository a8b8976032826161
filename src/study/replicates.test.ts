import { expect, test } from "vitest";
import { generator, normals } from "../tensor/random.ts";
import { type Measured, Replicates } from "./replicates.ts";

const WINDOWS = 40;
const cut = { documents: [10, 10, 10, 10], counts: new Array(WINDOWS).fill(10) };
const options = { resamples: 2000, seed: 1 };
const drawn = normals(generator(1), WINDOWS, 0.3);
const mean = drawn.reduce((sum, x) => sum + x, 0) / WINDOWS;
/** Windows differ, documents do not. */
const hard = drawn.map((x, w) => {
  const from = 10 * Math.floor(w / 10);
  return x - drawn.subarray(from, from + 10).reduce((sum, y) => sum + y, 0) / 10 + mean;
});

/** A model whose loss is `loss` nats a token, harder in some windows than in others as for all models. */
const model = (family: string, size: string, seed: number, loss: number, repeat?: number): Measured => ({
  family,
  size,
  seed,
  repeat,
  sums: Array.from({ length: WINDOWS }, (_, w) => 10 * (loss + hard[w])),
});

test("a loss is the mean of its seeds, and its interval is that of the text", () => {
  const replicates = new Replicates([model("float", "s", 1, 3), model("float", "s", 2, 3)], cut, options);
  const { value, low, high } = replicates.estimate((loss) => loss("float", "s"));
  expect(value).toBeCloseTo(3 + mean, 7); // the numbers of `normals` are 32-bit
  const error = Math.sqrt(hard.reduce((sum, x) => sum + (x - mean) ** 2, 0)) / WINDOWS;
  expect((high - low) / (2 * 1.96 * error)).toBeGreaterThan(0.8);
  expect((high - low) / (2 * 1.96 * error)).toBeLessThan(1.2);
});

test("what all models find hard cancels in a difference", () => {
  const replicates = new Replicates([model("a", "s", 1, 3), model("b", "s", 1, 3.2)], cut, options);
  const { value, low, high } = replicates.estimate((loss) => loss("b", "s") - loss("a", "s"));
  for (const x of [value, low, high]) expect(x).toBeCloseTo(0.2, 10);
  expect(replicates.hasSeeds).toBe(false);
});

test("chance among seeds has the right size, also where there is one seed", () => {
  const seeds = normals(generator(7), 6, 0.05);
  const models = [1, 2, 3, 4, 5, 6].flatMap((seed) => [
    model("a", "small", seed, 3),
    model("b", "small", seed, 3 + seeds[seed - 1]),
  ]);
  models.push(model("a", "large", 1, 2), model("b", "large", 1, 2.1));
  const replicates = new Replicates(models, cut, options);
  expect(replicates.hasSeeds).toBe(true);
  const average = seeds.reduce((sum, x) => sum + x, 0) / 6;
  const sd = Math.sqrt(seeds.reduce((sum, x) => sum + (x - average) ** 2, 0) / 5);
  const spread = (size: string) => {
    const { resampled } = replicates.apply((loss) => loss("b", size) - loss("a", size));
    const m = resampled.reduce((sum, x) => sum + x, 0) / resampled.length;
    return Math.sqrt(resampled.reduce((sum, x) => sum + (x - m) ** 2, 0) / resampled.length);
  };
  expect(spread("large") / sd).toBeCloseTo(1, 1);
  expect(spread("small") / (sd / Math.sqrt(6))).toBeCloseTo(1, 1);
});

test("seeds that two families share move them together", () => {
  const models = [1, 2, 3].flatMap((seed) => [
    model("a", "s", seed, 3 + seed / 10),
    model("b", "s", seed, 3.5 + seed / 10),
  ]);
  const { low, high } = new Replicates(models, cut, options).estimate((l) => l("b", "s") - l("a", "s"));
  expect(low).toBeCloseTo(0.5, 10);
  expect(high).toBeCloseTo(0.5, 10);
});

test("calibration sets are averaged, and their chance is in the interval", () => {
  const models = [model("float", "s", 1, 3)];
  for (const [i, loss] of [3.1, 3.2, 3.3].entries()) models.push(model("Q3", "s", 1, loss, i + 1));
  const { value, low, high } = new Replicates(models, cut, options).estimate(
    (l) => l("Q3", "s") - l("float", "s"),
  );
  expect(value).toBeCloseTo(0.2, 10);
  expect(low).toBeLessThan(0.15);
  expect(high).toBeGreaterThan(0.25);
});

test("the same seed gives the same numbers; what was not measured is named", () => {
  const models = [model("a", "s", 1, 3)];
  const run = () => new Replicates(models, cut, options).estimate((loss) => loss("a", "s"));
  expect(run()).toEqual(run());
  const replicates = new Replicates(models, cut, options);
  expect(replicates.has("a", "s")).toBe(true);
  expect(replicates.has("b", "s")).toBe(false);
  expect(() => replicates.estimate((loss) => loss("b", "s"))).toThrow("b at s has not been measured");
});
