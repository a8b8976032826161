import { expect, test } from "vitest";
import { readRecipe } from "../training/recipe.ts";
import { combinationName, combinations, readSuite, suiteRuns } from "./suite.ts";

const minimal = {
  study: "spectra",
  base: {
    model: { context: 16 },
    data: { text: "../text", heldOut: ["held.txt"], tokenizer: { train: 280 } },
    batch: 4,
    optimizer: { weightDecay: 0.2 },
    checkpointEvery: 3,
    validateEvery: 4,
  },
  families: {
    float: { bits: 16, set: { schedule: { kind: "cosine", warmup: 2 } } },
    trilm: { bits: 1.58, set: { schedule: { kind: "trilm", warmup: 2 }, formats: { linear: "int2" } } },
  },
  sizes: [
    {
      name: "small",
      model: { dim: 16, layers: 1, heads: 2, ffn: 32 },
      seeds: [1, 2],
      rates: { float: { peak: 0.01 }, trilm: { p1: 0.02, p2: 0.012 } },
    },
    {
      name: "large",
      model: { dim: 32, layers: 2, heads: 2, ffn: 64 },
      seeds: [7],
      rates: { float: { peak: 0.005 }, trilm: { p1: 0.01, p2: 0.006 } },
      set: { optimizer: { clip: 2 }, microBatch: 2 },
    },
  ],
};
const ablation = { family: "trilm", size: "small", seeds: [3, 4], steps: 9 };
const refusal = (change: object) => {
  try {
    readSuite({ ...minimal, ...change }, "study.yaml");
  } catch (error) {
    return (error as Error).message;
  }
  return "was not refused";
};

test("every family at every size with its seeds, as recipes of train", () => {
  const runs = suiteRuns(readSuite(minimal, "study.yaml"), "/work/recipes");
  expect(runs.map(({ name }) => name)).toEqual([
    "float-small-s1",
    "trilm-small-s1",
    "float-small-s2",
    "trilm-small-s2",
    "float-large-s7",
    "trilm-large-s7",
  ]);
  const full = runs.map(({ recipe, name }) => readRecipe(recipe, name));
  expect(full[1]).toMatchObject({
    family: "trilm",
    seed: 1,
    model: { dim: 16, layers: 1, heads: 2, ffn: 32, context: 16 },
    schedule: { kind: "trilm", p1: 0.02, p2: 0.012, warmup: 2, removesDecay: true },
    formats: { linear: "int2" },
    data: { text: "/work/text", heldOut: ["held.txt"], tokenizer: { train: 280 } },
    optimizer: { weightDecay: 0.2, clip: 1 },
  });
  expect(full[4]).toMatchObject({
    family: "float",
    seed: 7,
    microBatch: 2,
    schedule: { kind: "cosine", peak: 0.005 },
    optimizer: { weightDecay: 0.2, clip: 2 },
  });
});

test("the ablation is the same schedule with and without each intervention", () => {
  const runs = suiteRuns(readSuite({ ...minimal, ablation }, "study.yaml"), ".").slice(6);
  expect(combinations.map(combinationName)).toEqual(["drop+removal", "drop", "removal", "neither"]);
  expect(runs).toHaveLength(8);
  const schedule = (name: string) => runs.find((run) => run.name === name)!.recipe.schedule;
  expect(schedule("ablation-drop+removal-s3")).toMatchObject({ p1: 0.02, p2: 0.012, removesDecay: true });
  expect(schedule("ablation-drop-s3")).toMatchObject({ p1: 0.02, p2: 0.012, removesDecay: false });
  expect(schedule("ablation-removal-s4")).toMatchObject({ p1: 0.02, p2: 0.02, removesDecay: true });
  expect(schedule("ablation-neither-s4")).toMatchObject({ p1: 0.02, p2: 0.02, removesDecay: false });
  expect(runs.every(({ recipe }) => recipe.steps === 9 && recipe.family === "trilm")).toBe(true);
});

test("an error is one line that names the key", () => {
  expect(refusal({ familys: {} })).toBe("study.yaml: unknown key familys; did you mean families?");
  expect(refusal({ base: undefined })).toBe("study.yaml: base is missing; it needs keys of its own");
  const [small, large] = minimal.sizes;
  expect(refusal({ sizes: [{ ...small, rates: { float: { peak: 1 } } }] })).toBe(
    "study.yaml: sizes.small.rates.trilm is missing; it needs the rates of trilm's schedule",
  );
  expect(refusal({ sizes: [{ ...small, seeds: [1, 1] }] })).toBe(
    "study.yaml: sizes.0.seeds: names a seed twice",
  );
  expect(refusal({ sizes: [small, { ...large, name: "small" }] })).toContain("two have one name");
  expect(refusal({ sizes: [{ ...small, name: "a/b" }] })).toContain("sizes.0.name: needs letters");
  expect(refusal({ ablation: { ...ablation, size: "tiny" } })).toContain(
    "ablation.size: no size is called tiny",
  );
  expect(refusal({ ablation: { ...ablation, family: "float" } })).toContain("need p1 and another p2");
  expect(refusal({ ablation: { ...ablation, seeds: [1] } })).toContain("needs at least two seeds");
  expect(refusal({ bootstrap: { resamples: 10 } })).toMatch(/^study\.yaml: bootstrap\.resamples: /);
  expect(
    refusal({
      quantized: {
        of: "bilm",
        widths: [{ name: "Q8", bits: 8, formats: ["int8"] }],
        calibration: { seeds: [1] },
      },
    }),
  ).toContain("quantized.of: no family is called bilm");
});
