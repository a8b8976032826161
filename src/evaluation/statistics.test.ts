import { describe, expect, test } from "vitest";
import { generator, normals } from "../tensor/random.ts";
import { type Cluster, meanOfClusters, pairedDifference, quantile, tQuantile } from "./statistics.ts";

describe("meanOfClusters", () => {
  test("equal clusters of one token give the textbook mean and standard error", () => {
    const clusters = [1, 2, 3, 4].map((sum) => ({ sum, count: 1 }));
    const { mean, standardError } = meanOfClusters(clusters);
    expect(mean).toBe(2.5);
    expect(standardError).toBeCloseTo(Math.sqrt(5 / 3 / 4), 14);
  });

  test("a cluster counts by its tokens", () => {
    expect(
      meanOfClusters([
        { sum: 10, count: 10 },
        { sum: 90, count: 30 },
      ]).mean,
    ).toBe(2.5);
  });

  test("copying every token inside its cluster does not make the mean look surer", () => {
    const once = [
      { sum: 3, count: 2 },
      { sum: 5, count: 2 },
      { sum: 1, count: 1 },
    ];
    const twice = once.map(({ sum, count }) => ({ sum: 2 * sum, count: 2 * count }));
    expect(meanOfClusters(twice).standardError).toBeCloseTo(meanOfClusters(once).standardError!, 14);
  });

  test("one cluster has no standard error; none has no mean", () => {
    expect(meanOfClusters([{ sum: 4, count: 2 }])).toEqual({ mean: 2 });
    expect(() => meanOfClusters([])).toThrow("no tokens");
  });
});

describe("tQuantile", () => {
  test.each([
    [1, 12.706204736],
    [2, 4.3026527297],
    [4, 2.7764451052],
    [10, 2.228138852],
    [30, 2.0422724563],
    [1000, 1.9623390808],
  ])("97.5 %% point for %i degrees of freedom is %f", (freedom, expected) => {
    expect(tQuantile(0.975, freedom)).toBeCloseTo(expected, 8);
  });
});

describe("quantile", () => {
  test("is linear between neighbours", () => {
    expect(quantile(Float64Array.of(4, 1, 3, 2), 0.5)).toBe(2.5);
    expect(
      quantile(
        Float64Array.from({ length: 101 }, (_, i) => 100 - i),
        0.99,
      ),
    ).toBe(99);
    expect(quantile(Float64Array.of(7), 0.99)).toBe(7);
  });
});

/** Clusters of 5 to 40 tokens; tokens share their cluster's difficulty. */
function sample(
  random: () => number,
  noise: Float32Array,
  at: number,
  clusters: number,
  bias: number,
): Cluster[] {
  return Array.from({ length: clusters }, (_, c) => {
    const count = 5 + Math.floor(36 * random());
    return { sum: count * (2 + bias + noise[at + c]), count };
  });
}

describe("coverage by simulation", () => {
  test("the 95 % interval of a paired difference holds the true one in about 95 % of 2000 samples", () => {
    const random = generator(1);
    const clusters = 12;
    let held = 0;
    for (let run = 0; run < 2000; run++) {
      const difficulty = normals(random, clusters, 0.5);
      const effect = normals(random, clusters, 0.05);
      const b = sample(random, difficulty, 0, clusters, 0);
      const a = b.map(({ sum, count }, c) => ({ sum: sum + count * (0.02 + effect[c]), count }));
      const { low, high } = pairedDifference(a, b);
      if (low! <= 0.02 && 0.02 <= high!) held++;
    }
    // Binomial standard deviation of the share: 0.5 %; the ratio estimator's own bias is below 1 %.
    expect(held / 2000).toBeGreaterThan(0.925);
    expect(held / 2000).toBeLessThan(0.965);
  });

  test("pairing takes out what both models find hard", () => {
    const random = generator(2);
    const difficulty = normals(random, 20, 0.5);
    const effect = normals(random, 20, 0.01);
    const b = sample(random, difficulty, 0, 20, 0);
    const a = b.map(({ sum, count }, c) => ({ sum: sum + count * (0.1 + effect[c]), count }));
    const paired = pairedDifference(a, b).standardError!;
    const unpaired = Math.hypot(meanOfClusters(a).standardError!, meanOfClusters(b).standardError!);
    expect(paired).toBeLessThan(unpaired / 10);
  });

  test("models seen on different tokens cannot be paired", () => {
    expect(() => pairedDifference([{ sum: 1, count: 2 }], [{ sum: 1, count: 3 }])).toThrow("same clusters");
  });
});
