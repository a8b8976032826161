import { expect, test } from "vitest";
import { generator, normals } from "../tensor/random.ts";
import { type AblationRun, ablationOf, type Cell, fitOf, gapsOf } from "./analysis.ts";
import { type Claim, claimsOf, type Evidence } from "./claims.ts";
import { type Measured, Replicates } from "./replicates.ts";
import { combinations } from "./suite.ts";

const WINDOWS = 60;
const TOKENS = 100;
const cut = { documents: [20, 20, 20], counts: new Array(WINDOWS).fill(TOKENS) };
const SIZES = { a: 1e5, b: 2e5, c: 4e5, d: 8e5, e: 1.6e6, f: 3.2e6 } as const;
type Size = keyof typeof SIZES;
const sizes = Object.keys(SIZES) as Size[];
const OTHERS = 2e5;
const BITS = { float: 16, Q8: 8, Q6: 6, Q4: 4.25, Q3: 3.25, trilm: 1.58, bilm: 1 } as const;
type Family = keyof typeof BITS;
const families = Object.keys(BITS) as Family[];

/** A world in which each family has these losses; windows differ, and each model has noise of its own in each. */
function world(loss: (family: Family, size: Size) => number, noise = 0.01, own = families): Evidence {
  const hard = normals(generator(1), WINDOWS, 0.2);
  const measured: Measured[] = own.flatMap((family, f) =>
    sizes.map((size, s) => {
      const chance = normals(generator(100 * f + s), WINDOWS, noise);
      // Chance without its mean, so that the losses are those of the world.
      const mean = chance.reduce((sum, x) => sum + x, 0) / WINDOWS;
      const hardness = hard.reduce((sum, x) => sum + x, 0) / WINDOWS;
      const sums = Array.from(
        chance,
        (x, w) => TOKENS * (loss(family, size) + x - mean + hard[w] - hardness),
      );
      return { family, size, seed: 1, sums };
    }),
  );
  const replicates = new Replicates(measured, cut, { resamples: 1000, seed: 1 });
  const cells: Cell[] = own.flatMap((family) =>
    sizes.map((size) => ({
      family,
      size,
      N: SIZES[size] + OTHERS,
      linear: SIZES[size],
      bits: 16 * OTHERS + BITS[family] * SIZES[size],
      bytes: 1,
      format: "f16",
      models: 1,
      seeds: 1,
      loss: replicates.estimate((at) => at(family, size)),
    })),
  );
  const fits = ["float", "trilm"].flatMap((family) =>
    [fitOf(cells, family, "total", true, replicates) ?? []].flat(),
  );
  return { cells, replicates, fits };
}

const law = (N: number) => 40 * N ** -0.25 + 1.5;
/** What the paper says, with gaps that are far larger than the noise. */
const ADDED = { float: 0, Q8: 0.001, Q6: 0.002, Q4: 0.04, Q3: 0.4, trilm: 0, bilm: 0 } as const;
const paper = (family: Family, size: Size) => {
  const gap = 0.25 - 0.05 * Math.log(SIZES[size] / 1e5);
  const extra = family === "trilm" ? gap : family === "bilm" ? 2 * gap : ADDED[family];
  return law(SIZES[size] + OTHERS) + extra;
};
const answer = (claims: readonly Claim[], text: string) => {
  const found = claims.filter(({ claim }) => claim.includes(text));
  expect(found, text).toHaveLength(1);
  return found[0];
};

test("in a world as the paper says, its orderings hold", () => {
  const claims = claimsOf(world(paper));
  for (const text of [
    "FloatLM is as good as QuantLM-8",
    "QuantLM-8 and QuantLM-6 are equal",
    "QuantLM-6 is better than QuantLM-4",
    "QuantLM-4 is better than QuantLM-3",
    "QuantLM-4 is better than TriLM (up",
    "TriLM predicts better than QuantLM-3",
    "BiLM is worse than TriLM",
    "difference of BiLM and TriLM falls",
    "falls with N, in nats",
    "falls with N, in percent",
  ]) {
    expect(answer(claims, text), text).toMatchObject({ answer: "holds" });
  }
  expect(answer(claims, "TriLM predicts better than QuantLM-3").evidence).toHaveLength(6);
  for (const text of ["3.9B equals", "0.31 nats at 99M", "Lowering the peak rate and"]) {
    expect(answer(claims, text), text).toMatchObject({ answer: "cannot be told here" });
  }
  for (const { claim, reason } of claims) {
    expect(`${claim}${reason}`).not.toMatch(/NaN|undefined|Infinity/);
  }
});

test("in the opposite world they do not hold, and one size is enough", () => {
  const opposite = (family: Family, size: Size) => {
    const grows = 0.05 + 0.05 * Math.log(SIZES[size] / 1e5);
    const extra = { float: 0.1, Q8: 0, Q6: 0.05, Q4: 0, Q3: -0.1, trilm: grows, bilm: 0.5 * grows }[family];
    return law(SIZES[size] + OTHERS) + extra;
  };
  const claims = claimsOf(world(opposite));
  for (const text of [
    "FloatLM is as good",
    "are equal (within",
    "QuantLM-6 is better",
    "QuantLM-4 is better than QuantLM-3",
    "TriLM predicts better",
    "BiLM is worse",
    "falls with N, in nats",
    "falls with N, in percent",
  ]) {
    expect(answer(claims, text), text).toMatchObject({ answer: "does not hold" });
  }
  const oneSize = claimsOf(
    world((family, size) => paper(family, size) + (family === "Q4" && size === "f" ? 1 : 0)),
  );
  const { answer: told, reason } = answer(oneSize, "QuantLM-4 is better than TriLM (up");
  expect(told).toBe("does not hold");
  expect(reason).toMatch(/not below 0 at f$/);
});

test("where the noise is larger than the difference nothing can be told", () => {
  const equal = (_: Family, size: Size) => law(SIZES[size] + OTHERS);
  const claims = claimsOf(world(equal, 0.5));
  for (const text of [
    "QuantLM-6 is better",
    "are equal (within",
    "TriLM predicts",
    "falls with N, in nats",
  ]) {
    expect(answer(claims, text), text).toMatchObject({ answer: "cannot be told here" });
  }
  const few = claimsOf(world(paper, 0.01, ["float", "trilm"]));
  expect(answer(few, "BiLM is worse")).toMatchObject({ answer: "cannot be told here", evidence: [] });
});

test("at equal bits a TriLM is compared with what others would have there, and only within their sizes", () => {
  // Losses that are a straight line in ln bits: then the line between two sizes is exact.
  const bits = (family: Family, size: Size) => 16 * OTHERS + BITS[family] * SIZES[size];
  const line = (family: Family, size: Size) =>
    6 - 0.1 * Math.log(bits(family, size)) - (family === "trilm" ? 0.02 : 0);
  const claim = answer(claimsOf(world(line, 0.001)), "and all QuantLMs;");
  expect(claim.answer).toBe("holds");
  for (const { value } of claim.evidence) expect(value).toBeCloseTo(-0.02, 6);
  // The smallest TriLM has fewer bits than any float; the largest lies between float's a and f.
  const places = claim.evidence.map(({ at }) => at);
  expect(places).not.toContain("a against float");
  expect(places).toContain("f against float");
});

test("the law of each family, its limits compared where they are known", () => {
  const evidence = world(
    (family, size) => law(SIZES[size] + OTHERS) + (family === "trilm" ? 0.3 : 0),
    0.0005,
  );
  const [float, trilm] = evidence.fits;
  expect(float).toMatchObject({ family: "float", identified: true, sizes: 6 });
  for (const [fit, E] of [
    [float, 1.5],
    [trilm, 1.8],
  ] as const) {
    expect(fit.E.low).toBeLessThan(E);
    expect(fit.E.high).toBeGreaterThan(E);
    expect(fit.alpha.low).toBeLessThan(0.25);
    expect(fit.alpha.high).toBeGreaterThan(0.25);
  }
  const claims = claimsOf(evidence);
  expect(answer(claims, "higher limit")).toMatchObject({ answer: "holds" });
  expect(answer(claims, "fall with one exponent")).toMatchObject({ answer: "holds" });
});

test("an offset that the sizes do not show is not identified", () => {
  // A straight line in ln N, noisy: E may be anything from 0 on.
  const evidence = world((_, size) => 6 - 0.2 * Math.log(SIZES[size] + OTHERS), 0.3);
  expect(evidence.fits[0].identified).toBe(false);
  expect(answer(claimsOf(evidence), "higher limit").reason).toContain("not identified");
});

test("gaps are where both families are", () => {
  const { cells, replicates } = world(paper);
  const gaps = gapsOf(cells, "trilm", "float", replicates);
  expect(gaps.map(({ size }) => size)).toEqual(sizes);
  for (const [i, { value, low, high }] of gaps.entries()) {
    expect(value).toBeCloseTo(paper("trilm", sizes[i]) - paper("float", sizes[i]), 6);
    expect(low).toBeLessThan(value);
    expect(high).toBeGreaterThan(value);
  }
  expect(gapsOf(cells, "trilm", "other", replicates)).toEqual([]);
});

test("the ablation's differences are those of a paired t test", () => {
  const runs: AblationRun[] = [1, 2, 3, 4, 5].flatMap((seed) =>
    combinations.map((combination) => ({
      combination,
      seed,
      // Seeds differ by far more than schedules do.
      loss: 4 + seed - (combination.drop ? 0.02 : 0) - (combination.removal ? 0.01 + 0.002 * seed : 0),
    })),
  );
  const ablation = ablationOf(runs)!;
  const removal = ablation.differences.find(({ of, against }) => of === "removal" && against === "neither")!;
  expect(removal.mean).toBeCloseTo(-0.016, 12);
  // s = 0.002·√2.5, t(0.975, 4) = 2.7764451
  expect(removal.high! - removal.mean).toBeCloseTo((2.7764451 * 0.002 * Math.sqrt(2.5)) / Math.sqrt(5), 8);
  const claims = claimsOf({ ...world(paper, 0.01, ["float"]), ablation });
  expect(answer(claims, "(drop+removal against neither)")).toMatchObject({ answer: "holds" });

  // A seed that lacks one schedule is left out; with fewer than two there is no answer.
  expect(ablationOf(runs.slice(0, -1))!.seeds).toEqual([1, 2, 3, 4]);
  expect(ablationOf(runs.slice(0, 5))).toBeUndefined();
});
