import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { tinyRecipe, writeTinyText } from "../../test/tiny-training.ts";
import { openBackend } from "../backends/index.ts";
import { losses } from "../evaluation/loss.ts";
import { meanOfClusters } from "../evaluation/statistics.ts";
import { openModel } from "../files/index.ts";
import { decodeWeight, encodeWeight, formatByName } from "../formats/index.ts";
import { hostTensor } from "../tensor/tensor.ts";
import { load } from "../verbs/load.ts";
import { planTraining } from "../verbs/plan-training.ts";
import { train } from "../verbs/train.ts";
import { spread, windowCount } from "./batches.ts";
import { readEvents } from "./log.ts";
import { type RecipeInput, readRecipe } from "./recipe.ts";
import { findSources, openText } from "./text.ts";

const folder = mkdtempSync(join(tmpdir(), "lowbit-sensitive-"));
const at = (name: string) => join(folder, name);
const text = writeTinyText(folder);
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const backend = "reference";
await train({ recipe: { ...tinyRecipe(text, "float"), steps: 30 }, out: at("start"), backend });
const data = { text, heldOut: ["held.txt"], tokenizer: { file: at("start/tokenizer.json") } };

const recipeOf = (more: Partial<RecipeInput>): RecipeInput => ({
  ...tinyRecipe(text, "float"),
  from: at("start"),
  data,
  formats: { linear: "f32", other: "f32" },
  steps: 5,
  ...more,
});
const weightsOf = async (spec: string) => {
  const file = await openModel(spec);
  try {
    const read = async (name: string) => [name, decodeWeight(await file.source.read(name)).data] as const;
    return new Map(await Promise.all(file.source.names.map(read)));
  } finally {
    await file.close();
  }
};

/** What rounding a layer alone to a format adds to the loss on some windows, of every layer. */
async function byBruteForce(format: string, count: number): Promise<[name: string, damage: number][]> {
  const on = await openBackend("reference");
  const recipe = readRecipe(recipeOf({}), "r");
  const tokens = await openText(recipe, await findSources(recipe, "."), at("tokens"), {});
  const model = await load(at("start"), on);
  try {
    const sequences: { ids: Int32Array; first: number }[] = [];
    for (const w of spread(windowCount(tokens.training.length, 16), count))
      sequences.push({ ids: await tokens.training.slice(16 * w, 16 * w + 17), first: 1 });
    const lossWith = async (name?: string) => {
      const weights = new Map(model.weights);
      if (name !== undefined) {
        const { data: W } = decodeWeight(await model.file.source.read(name));
        const shape = model.file.source.shape(name);
        const { data: Ŵ } = decodeWeight(encodeWeight(formatByName(format), shape, Float32Array.from(W)));
        weights.set(name, on.upload(hostTensor(shape, Float32Array.from(Ŵ))));
      }
      return meanOfClusters(await losses({ ...model, weights }, sequences, {})).mean;
    };
    const whole = await lossWith();
    const found: [string, number][] = [];
    for (const { name, role } of model.model.tensors)
      if (role === "linear") found.push([name, (await lossWith(name)) - whole]);
    return found.sort(([, a], [, b]) => b - a);
  } finally {
    await model.free();
    await tokens.close();
    on.dispose();
  }
}

test("the layers that rounding alone hurts most are found, and nothing else moves", async () => {
  const only = { sensitive: 3, windows: 10, format: "int2" };
  const { chosen } = await train({ recipe: recipeOf({ only }), out: at("three"), backend });
  const expected = await byBruteForce("int2", 10);
  expect(chosen!.map(({ name }) => name)).toEqual(expected.slice(0, 3).map(([name]) => name));
  for (const [i, { damage }] of chosen!.entries()) expect(damage).toBeCloseTo(expected[i][1], 5);
  expect(expected[2][1]).toBeGreaterThan(expected[3][1] + 1e-4); // no tie that rounding could turn

  const [before, after] = [await weightsOf(at("start")), await weightsOf(at("three"))];
  const moved = [...before.keys()].filter((name) =>
    before.get(name)!.some((w, i) => w !== after.get(name)![i]),
  );
  expect(moved.sort()).toEqual(chosen!.map(({ name }) => name).sort());
  expect(await readEvents(join(at("three"), "log.jsonl"))).toEqual([{ event: "chosen", layers: chosen }]);
  expect(readFileSync(join(at("three"), "report.html"), "utf8")).toContain(
    "only what rounding hurts most learns",
  );
});

test("a family's own rounding measures, at its end; an interrupted run chooses the same", async () => {
  const only = { sensitive: 2 };
  const family = { only, family: "continual", options: { from: 2 }, formats: { linear: "int2" } } as const;
  const whole = await train({ recipe: recipeOf(family), out: at("whole"), backend });
  for (const { damage } of whole.chosen!) expect(damage).not.toBe(0); // though it begins in float
  const stop = new AbortController();
  const stopped = train(
    { recipe: recipeOf(family), out: at("stopped"), backend },
    {
      signal: stop.signal,
      onProgress: ({ task, done }) => task === "train" && done === 2 && stop.abort(new Error("now")),
    },
  );
  await expect(stopped).rejects.toThrow("now");
  const tasks = new Set<string>();
  const onProgress = ({ task }: { task: string }) => tasks.add(task);
  const resumed = await train(
    { recipe: recipeOf(family), out: at("stopped"), backend, resume: true },
    { onProgress },
  );
  expect(tasks).not.toContain("measure");
  expect(resumed.chosen).toEqual(whole.chosen);
  expect(resumed.validation).toEqual(whole.validation);
  expect(await readEvents(join(at("stopped"), "log.jsonl"))).toHaveLength(1);
  // A dry run counts as many of the largest layers.
  const plan = await planTraining({ recipe: recipeOf(family), trial: false, backend });
  expect(plan.memory.gradients).toBe(2 * 4 * 16 * 32);
});

test("what cannot be measured is one line", () => {
  const failure = (more: Partial<RecipeInput>) => () => readRecipe(recipeOf(more), "r");
  expect(failure({ only: { sensitive: 15, format: "int4" } })).toThrow(
    "r: only.sensitive 15 is more than the 14 linear layers",
  );
  expect(failure({ only: { sensitive: 2 }, from: undefined })).toThrow("r: only.sensitive: needs from");
  expect(failure({ only: { sensitive: 2 } })).toThrow("r: only.sensitive: family float rounds nothing");
  expect(failure({ only: { sensitive: 2, format: "int4-g64" } })).toThrow(
    "r: only.format int4-g64 cannot hold rows of 16",
  );
  expect(failure({ only: { sensitive: 2, format: "int44" } })).toThrow(/did you mean int4/);
  expect(failure({ only: 3 as never })).toThrow(
    "r: only: needs a list of names, or { sensitive: a number of layers }",
  );
});
