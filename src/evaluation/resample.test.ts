import { expect, test } from "vitest";
import { generator, normals } from "../tensor/random.ts";
import { drawWindows, percentiles } from "./resample.ts";

test("whole documents are drawn, as many windows of each as it has", () => {
  const random = generator(1);
  const sizes = [3, 1, 5];
  const mean = new Float64Array(9);
  for (let t = 0; t < 20_000; t++) {
    const times = drawWindows(random, sizes);
    const sum = (from: number, to: number) => times.subarray(from, to).reduce((a, b) => a + b, 0);
    const [a, b, c] = [sum(0, 3), sum(3, 4), sum(4, 9)];
    expect([a % 3, c % 5, a / 3 + b + c / 5]).toEqual([0, 0, 3]);
    for (const [i, n] of times.entries()) mean[i] += n / 20_000;
  }
  for (const n of mean) expect(n).toBeCloseTo(1, 1);
});

test("the spread of a mean over documents that differ is found, though they are few", () => {
  // 8 documents of 20 windows; document and window effects with the variances 1 and 4.
  const documents = 8;
  const windows = 20;
  const truth = 1 / documents + 4 / (documents * windows);
  let held = 0;
  for (let t = 0; t < 200; t++) {
    const effects = normals(generator(2 * t), documents);
    const noise = normals(generator(2 * t + 1), documents * windows, 2);
    const values = noise.map((e, i) => e + effects[Math.floor(i / windows)]);
    const random = generator(t);
    const means = Array.from({ length: 200 }, () => {
      const times = drawWindows(random, Array(documents).fill(windows));
      return times.reduce((sum, n, i) => sum + n * values[i], 0) / (documents * windows);
    });
    const { low, high } = percentiles(means);
    if (low <= 0 && 0 <= high) held++;
    expect(high - low).toBeLessThan(10 * Math.sqrt(truth));
  }
  expect(held / 200).toBeGreaterThan(0.86);
});

test("percentiles of replicates", () => {
  const values = Array.from({ length: 1001 }, (_, i) => (i * 337) % 1001);
  const { low, high } = percentiles(values, 0.9);
  expect(low).toBeCloseTo(50, 10);
  expect(high).toBeCloseTo(950, 10);
  expect(() => percentiles([1, Number.NaN])).toThrow("not a number");
});
