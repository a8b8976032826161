/**
 * How far each optimizer's final loss is from that of 32-bit AdamW: the mean
 * over seeds of the paired difference, with its 95 % interval, beside the bytes
 * of states and the seconds of a step. A seed decides the first weights and the
 * order of the batches, which all optimizers share.
 *
 *   npm run bench:optimizers [-- --out DIR] [--only adamw8,muon] [--seeds 5] [--steps N] [--recipe FILE] [--json]
 *
 * Each run is a folder of `lowbit train` in --out (default: one in the system's temporary folder); what is finished there
 * is not run again, and what was begun goes on. By default the smallest size of recipes/spectra.yaml, a third of a pass.
 */
import { readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { pairedDifference } from "../src/evaluation/statistics.ts";
import { readLog } from "../src/training/log.ts";
import { parseYaml, type RecipeInput } from "../src/training/recipe.ts";
import { type TrainResult, train } from "../src/verbs/train.ts";
import { median, sayErrorsInOneLine } from "./bench.ts";

sayErrorsInOneLine();

const { values: options } = parseArgs({
  options: {
    out: { type: "string", default: join(tmpdir(), "lowbit-bench-optimizers") },
    only: { type: "string" },
    seeds: { type: "string", default: "5" },
    steps: { type: "string" },
    recipe: { type: "string" },
    threads: { type: "string" },
    json: { type: "boolean", default: false },
  },
});

/** Largest upper end of the interval that counts as no worse, nats per token. */
const LIMIT = 0.02;

const COMMON = { beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1, clip: 1 } as const;

/** What is compared with AdamW, all at AdamW's rates: Muon's updates are scaled to the size of AdamW's for that. */
const CANDIDATES: Readonly<Record<string, RecipeInput["optimizer"]>> = {
  adamw8: { name: "adamw8", ...COMMON },
  adamw4: { name: "adamw4", ...COMMON },
  "adamw4-stable": { name: "adamw4", stableEmbedding: true, ...COMMON },
  "collage-light": { name: "collage", variant: "light", ...COMMON },
  "collage-plus": { name: "collage", variant: "plus", ...COMMON },
  muon: { name: "muon", ...COMMON },
};

interface Run {
  readonly loss: number;
  readonly secondsPerStep: number;
  readonly bytes: number;
}

const root = fileURLToPath(new URL("..", import.meta.url));
const base = recipeOf(options.recipe);
const seeds = Array.from({ length: Number(options.seeds) }, (_, i) => i + 1);
const chosen = options.only?.split(",") ?? Object.keys(CANDIDATES);
for (const name of chosen) {
  if (!CANDIDATES[name]) throw new Error(`--only ${name}: use ${Object.keys(CANDIDATES).join(", ")}`);
}

const reference = await runsOf("adamw", { ...COMMON });
const results = [];
for (const name of chosen) {
  const runs = await runsOf(name, CANDIDATES[name]);
  const losses = (of: readonly Run[]) => of.map(({ loss }) => ({ sum: loss, count: 1 }));
  const { mean, low, high } = pairedDifference(losses(runs), losses(reference));
  results.push({
    name,
    difference: mean,
    low,
    high,
    withinLimit: high !== undefined && high <= LIMIT,
    ...summary(runs),
  });
}
if (options.json) {
  console.log(JSON.stringify({ limit: LIMIT, seeds, adamw: summary(reference), optimizers: results }));
} else {
  console.log(describe("adamw", summary(reference)));
  for (const { name, difference, low, high, withinLimit, ...rest } of results) {
    const interval = low === undefined ? "one seed: no interval" : `${signed(low)} … ${signed(high!)}`;
    const verdict = withinLimit ? `at most ${LIMIT}` : `not shown to be at most ${LIMIT}`;
    console.log(`${describe(name, rest)}; difference ${signed(difference)} (${interval}): ${verdict}`);
  }
}

/** The recipe without optimizer and seed: a file's, or the smallest size of the Spectra suite. */
function recipeOf(file: string | undefined): RecipeInput {
  if (file !== undefined) {
    const recipe = parseYaml(readFileSync(file, "utf8"), file) as RecipeInput;
    return { ...recipe, data: { ...recipe.data, text: resolve(file, "..", recipe.data.text as string) } };
  }
  const suite = parseYaml(readFileSync(join(root, "recipes/spectra.yaml"), "utf8"), "spectra.yaml") as {
    base: RecipeInput;
    families: { float: { set: { schedule: object } } };
    sizes: { model: object; rates: { float: object } }[];
    ablation: { steps: number };
  };
  const [smallest] = suite.sizes;
  return {
    ...suite.base,
    family: "float",
    model: { ...suite.base.model, ...smallest.model },
    data: {
      ...suite.base.data,
      text: join(root, "../shared/data/text-classics"),
      tokenizer: { file: join(root, "bundled/float/tokenizer.json") },
    },
    schedule: { ...suite.families.float.set.schedule, ...smallest.rates.float },
    steps: suite.ablation.steps,
  } as RecipeInput;
}

/** The runs of one optimizer, one for each seed: those that are not finished are run or go on. */
async function runsOf(name: string, optimizer: RecipeInput["optimizer"]): Promise<Run[]> {
  const runs: Run[] = [];
  for (const seed of seeds) {
    const steps = options.steps === undefined ? base.steps : Number(options.steps);
    const recipe: RecipeInput = { ...base, optimizer, seed, ...(steps === undefined ? {} : { steps }) };
    const out = join(options.out, `${name}-${seed}${options.steps ? `-of-${steps}` : ""}`);
    const threads = options.threads === undefined ? {} : { threads: Number(options.threads) };
    const start = performance.now();
    const result: TrainResult = await train({ recipe, out, resume: true, ...threads });
    const log = await readLog(join(out, "log.jsonl"));
    runs.push({
      loss: result.validation.trainedLoss,
      secondsPerStep: median(log.map(({ timing }) => timing.seconds)),
      bytes: result.optimizer.stateBytesPerParameter,
    });
    const took = ((performance.now() - start) / 1000).toFixed(0);
    console.error(`${name}, seed ${seed}: ${result.validation.trainedLoss.toFixed(4)} (${took} s)`);
  }
  return runs;
}

function summary(runs: readonly Run[]) {
  return {
    loss: runs.reduce((sum, { loss }) => sum + loss, 0) / runs.length,
    secondsPerStep: median(runs.map(({ secondsPerStep }) => secondsPerStep)),
    stateBytesPerParameter: runs[0].bytes,
  };
}

function describe(
  name: string,
  { loss, secondsPerStep, stateBytesPerParameter }: ReturnType<typeof summary>,
) {
  return `${name}: loss ${loss.toFixed(4)}, ${(1000 * secondsPerStep).toFixed(1)} ms a step, ${stateBytesPerParameter.toFixed(2)} bytes a parameter`;
}

function signed(x: number): string {
  return `${x < 0 ? "−" : "+"}${Math.abs(x).toFixed(4)}`;
}
