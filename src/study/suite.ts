import { z } from "zod";
import { isObject } from "../files/json.ts";
import { paths } from "../files/node.ts";
import { checkedBy } from "../tensor/schema-words.ts";
import { InputError } from "../tensor/tensor.ts";
import type { RecipeInput } from "../training/recipe.ts";
import { merged } from "../training/recipe-file.ts";
import type { GridRun } from "./grid.ts";

const count = z.int().min(1);
const keys = z.record(z.string(), z.unknown());
const seeds = z
  .array(z.int())
  .min(1)
  .refine((all) => new Set(all).size === all.length, "names a seed twice");
const name = z.string().regex(/^[A-Za-z0-9._]+$/, "needs letters, digits, points and underscores only");

const schema = z.strictObject({
  study: z.literal("spectra"),
  /** What all runs share: keys of a recipe of `train`. */
  base: keys,
  families: z.record(
    name,
    z.strictObject({
      /** Bits of a weight of a linear layer in Spectra's accounting. */
      bits: z.number().positive(),
      /** Its keys of the recipe: schedule, options, formats; `family` where it is not the name itself. */
      set: keys.default({}),
    }),
  ),
  sizes: z
    .array(
      z.strictObject({
        name,
        model: keys,
        seeds,
        /** Learning rates of each family: keys of its schedule. */
        rates: z.record(name, keys),
        /** Other keys of the recipe of this size alone. */
        set: keys.default({}),
      }),
    )
    .min(1),
  /** Models that are made from the trained ones of one family. */
  quantized: z
    .strictObject({
      of: name,
      widths: z
        .array(
          z.strictObject({
            name,
            /** In Spectra's accounting. */
            bits: z.number().positive(),
            /** The first whose groups fill the rows of the model. */
            formats: z.array(z.string()).min(1),
          }),
        )
        .min(1),
      calibration: z.strictObject({ samples: count.default(128), seeds }),
      /** As of `lowbit compress`. */
      options: z
        .strictObject({
          damping: z.number().positive().optional(),
          actOrder: z.boolean().optional(),
          clip: z.boolean().optional(),
          trueSequential: z.boolean().optional(),
        })
        .default({}),
    })
    .optional(),
  /** The schedule of one family with and without its two interventions. */
  ablation: z
    .strictObject({
      family: name,
      size: name,
      seeds: seeds.refine((all) => all.length >= 2, "needs at least two seeds"),
      /** Of each run, less than a pass. */
      steps: count,
    })
    .optional(),
  bootstrap: z
    .strictObject({ resamples: z.int().min(1000).default(4000), seed: z.int().default(1) })
    .prefault({}),
});

/** A study as its YAML file says it. */
export type Suite = z.output<typeof schema>;

/** A run of the suite: what it is of. */
export interface SuiteRun extends GridRun {
  readonly family: string;
  readonly size: string;
  readonly seed: number;
  /** Of the ablation alone: which of the schedule's interventions it has. */
  readonly ablation?: Combination;
}

/** The two interventions of TriLM's schedule. */
export interface Combination {
  /** The peak learning rate is lowered at half of the run. */
  readonly drop: boolean;
  /** Weight decay ends at two thirds. */
  readonly removal: boolean;
}

export const combinations: readonly Combination[] = [
  { drop: true, removal: true },
  { drop: true, removal: false },
  { drop: false, removal: true },
  { drop: false, removal: false },
];

/** `drop+removal`, `drop`, `removal`, `neither`. */
export function combinationName({ drop, removal }: Combination): string {
  return [...(drop ? ["drop"] : []), ...(removal ? ["removal"] : [])].join("+") || "neither";
}

/** Checks a study; an InputError names the first key that is wrong, and of an unknown one the nearest that there is. */
export function readSuite(input: unknown, where: string): Suite {
  if (
    isObject(input as never) &&
    Object.hasOwn(input as object, "family") &&
    !Object.hasOwn(input as object, "study")
  )
    throw new InputError(`${where}: is the recipe of one run; run it with lowbit train`);
  const suite = checkedBy(schema, input, { where, whole: "study" });
  const needs = (fits: boolean, what: string) => {
    if (!fits) throw new InputError(`${where}: ${what}`);
  };
  const families = Object.keys(suite.families);
  const sizes = suite.sizes.map((size) => size.name);
  needs(families.length > 0, "families: needs at least one");
  needs(new Set(sizes).size === sizes.length, "sizes: two have one name");
  for (const size of suite.sizes) {
    for (const family of families) {
      needs(
        size.rates[family] !== undefined,
        `sizes.${size.name}.rates.${family} is missing; it needs the rates of ${family}'s schedule`,
      );
    }
  }
  const { quantized, ablation } = suite;
  if (quantized) needs(families.includes(quantized.of), `quantized.of: no family is called ${quantized.of}`);
  if (ablation) {
    needs(families.includes(ablation.family), `ablation.family: no family is called ${ablation.family}`);
    needs(sizes.includes(ablation.size), `ablation.size: no size is called ${ablation.size}`);
    const { p1, p2 } = suite.sizes.find(({ name }) => name === ablation.size)!.rates[ablation.family];
    needs(
      typeof p1 === "number" && typeof p2 === "number" && p1 !== p2,
      `ablation: the rates of ${ablation.family} at ${ablation.size} need p1 and another p2, which is what it takes away`,
    );
  }
  return suite;
}

/**
 * The runs of a suite: every family at every size with its seeds,
 * `FAMILY-SIZE-sSEED`, then those of the ablation, `ablation-COMBINATION-sSEED`.
 * Families of one size and seed start from the same weights and see the same
 * batches. Paths start from `base`.
 */
export function suiteRuns(suite: Suite, base: string): SuiteRun[] {
  const runs: SuiteRun[] = [];
  for (const { name: size, seeds } of suite.sizes) {
    for (const seed of seeds) {
      for (const family of Object.keys(suite.families)) {
        const name = `${family}-${size}-s${seed}`;
        runs.push({ name, family, size, seed, recipe: recipeOf(suite, base, family, size, { seed }) });
      }
    }
  }
  const { ablation } = suite;
  if (!ablation) return runs;
  const { family, size, steps } = ablation;
  const { p1 } = suite.sizes.find(({ name }) => name === size)!.rates[family];
  for (const seed of ablation.seeds) {
    for (const combination of combinations) {
      const schedule = {
        ...(combination.drop ? {} : { p2: p1 }),
        removesDecay: combination.removal,
      };
      runs.push({
        name: `ablation-${combinationName(combination)}-s${seed}`,
        family,
        size,
        seed,
        ablation: combination,
        recipe: recipeOf(suite, base, family, size, { seed, steps, schedule }),
      });
    }
  }
  return runs;
}

/** The recipe of a run: what all share, then the family's keys, the size's and the run's own, each over the one before. */
function recipeOf(suite: Suite, base: string, family: string, size: string, own: object): RecipeInput {
  const { model, rates, set } = suite.sizes.find(({ name }) => name === size)!;
  const recipe = [
    suite.base,
    { family, ...suite.families[family].set },
    { model, schedule: rates[family] },
    set,
    own,
  ].reduce<unknown>(merged, {}) as RecipeInput;
  const { text, tokenizer, cache } = (recipe.data ?? {}) as Partial<RecipeInput["data"]>;
  const absolute = (path: string) => (path.startsWith("hf:") ? path : paths().resolve(base, path));
  const data = {
    ...recipe.data,
    ...(typeof text === "string" ? { text: absolute(text) } : {}),
    ...(typeof cache === "string" ? { cache: absolute(cache) } : {}),
    ...(typeof tokenizer?.file === "string"
      ? { tokenizer: { ...tokenizer, file: absolute(tokenizer.file) } }
      : {}),
  };
  return { ...recipe, data } as RecipeInput;
}
