import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { refusal } from "../../test/refusal.ts";
import { bitsOf } from "../../test/tiny-training.ts";
import { openModel } from "../files/index.ts";
import { llama } from "../models/llama.ts";
import { describeWeight, onlyPart, type Weight } from "../tensor/weight.ts";
import type { RecipeInput } from "../training/recipe.ts";
import { compress } from "./compress.ts";
import { evaluate } from "./evaluate.ts";
import { model as larger, text as longer, writeTinyModel } from "./tiny-model.suite.ts";
import { type TuneOptions, train, tune } from "./train.ts";

const backend = "reference";
const model = llama({ ...larger.config, dim: 32, ffn: 32, headDim: 8, context: 16 });
const text = longer.slice(0, 800);
let folder: string;
const at = (name: string) => join(folder, name);
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "lowbit-tune-"));
  writeFileSync(at("text.txt"), text);
  await writeTinyModel(at("float"), () => {}, model);
  await compress({ model: at("float"), output: at("int4"), method: "rtn", format: "int4-g32", backend });
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Sizes, context and tokenizer are the model's. */
const recipe = (change: object = {}): RecipeInput =>
  ({
    family: "qlora",
    options: { rank: 2 },
    data: { text: at("text.txt"), heldOut: { text: at("text.txt") } },
    batch: 2,
    steps: 6,
    schedule: { kind: "cosine", peak: 1, warmup: 1 },
    checkpointEvery: 2,
    validateEvery: 3,
    ...change,
  }) as unknown as RecipeInput;

const run = (name: string, change: object = {}, options: Partial<TuneOptions> = {}) =>
  tune({ model: at("int4"), recipe: recipe(change), out: at(name), backend, ...options });

async function weightsOf(name: string): Promise<Map<string, Weight>> {
  const file = await openModel(at(name));
  const weights = new Map<string, Weight>();
  for (const { name: tensor } of model.tensors) weights.set(tensor, await file.source.read(tensor));
  await file.close();
  return weights;
}

const linears = model.tensors.filter(({ role }) => role === "linear").map(({ name }) => name);

test("only adapters move: base, embedding and norms are stored as they were, and it learns", async () => {
  const record = await run("adapters");
  expect(record).toMatchObject({ verb: "tune", steps: 6 });
  expect(record.models.map(({ name }) => name)).toEqual(["int4"]);
  expect(record.tuned?.parameters).toBe(
    linears.reduce((sum, name) => {
      const [rows, cols] = model.tensors.find((one) => one.name === name)!.shape;
      return sum + 2 * (rows + cols);
    }, 0),
  );
  const [before, after] = [await weightsOf("int4"), await weightsOf("adapters")];
  for (const [name, weight] of after) {
    if (!linears.includes(name)) {
      expect(onlyPart(weight)).toEqual(onlyPart(before.get(name)!));
      continue;
    }
    expect(describeWeight(weight)).toBe("sum(int4-g32, lowRank(f16, f16))");
    if (weight.expression.kind !== "sum") throw new Error("no sum");
    expect(onlyPart(weight.expression.terms[0])).toEqual(onlyPart(before.get(name)!));
  }
  const { models } = await evaluate({
    models: [at("int4"), at("adapters")],
    text: { name: "text", text },
    backend,
  });
  expect(models[1].text.loss).toBeLessThan(models[0].text.loss - 0.02);
});

test("what is stored is what was trained", async () => {
  for (const [name, change] of [
    ["same-adapters", { options: { rank: 2, factors: "int8", magnitudes: true } }],
    ["same-scales", { options: { parts: ["scales"] }, recompute: true }],
    ["same-sqft", { family: "sqft", options: { rank: 2 } }],
  ] as const) {
    const { validation } = await run(name, change);
    expect(Math.abs(validation.loss - validation.trainedLoss)).toBeLessThan(1e-6);
  }
});

test("adapters fold into the base's format, and the record says what each matrix loses", async () => {
  const { layers } = await compress({ model: at("adapters"), output: at("folded"), method: "sqft", backend });
  expect(layers.map(({ name }) => name)).toEqual(linears);
  for (const layer of layers) expect(layer.relativeError).toBeGreaterThan(0);
  for (const [name, weight] of await weightsOf("folded"))
    if (linears.includes(name)) expect(onlyPart(weight).format).toBe("int4-g32");
});

test("sqft leaves format, size and scales as they were", async () => {
  await run("sqft", { family: "sqft", options: { rank: 2 } });
  const [before, after] = [await weightsOf("int4"), await weightsOf("sqft")];
  let moved = 0;
  for (const name of linears) {
    const [was, is] = [onlyPart(before.get(name)!), onlyPart(after.get(name)!)];
    expect(is.format).toBe("int4-g32");
    expect(is.parts.scales).toEqual(was.parts.scales);
    if (Buffer.compare(is.parts.codes.bytes, was.parts.codes.bytes) !== 0) moved++;
  }
  expect(moved).toBe(linears.length);
});

test("a run that was stopped goes on to the same bits", async () => {
  const whole = await run("whole");
  const controller = new AbortController();
  const stop = {
    signal: controller.signal,
    onProgress: ({ task, done }: { task: string; done: number }) => {
      if (task === "train" && done === 3) controller.abort(new Error("stop"));
    },
  };
  const options = { model: at("int4"), recipe: recipe(), out: at("stopped"), backend } as const;
  await expect(tune(options, stop)).rejects.toThrow("stop");
  // Another model is another run.
  await compress({ model: at("float"), output: at("int3"), method: "rtn", format: "int3-g32", backend });
  expect(await refusal(tune({ ...options, model: at("int3"), resume: true }))).toContain(
    "begun with another start",
  );
  const resumed = await tune({ ...options, resume: true });
  expect(bitsOf(at("stopped"))).toEqual(bitsOf(at("whole")));
  expect(resumed.identity).toEqual(whole.identity);
});

test("only what the recipe names learns; a norm that is named does too", async () => {
  await run("chosen", { only: ["*.mlp.*", "model.norm.weight"] });
  const [before, after] = [await weightsOf("int4"), await weightsOf("chosen")];
  for (const [name, weight] of after) {
    if (name.includes(".mlp.")) expect(describeWeight(weight)).toMatch(/^sum\(/);
    else if (name === "model.norm.weight") expect(onlyPart(weight)).not.toEqual(onlyPart(before.get(name)!));
    else expect(onlyPart(weight)).toEqual(onlyPart(before.get(name)!));
  }
});

test("a teacher repairs: the float model's distribution comes nearer", async () => {
  await compress({
    model: at("float"),
    output: at("int2"),
    method: "rtn",
    format: "int2-offset-g32",
    backend,
  });
  const loss = { teacher: at("float"), soft: { rule: "forward" } };
  await run("repaired", { loss, steps: 12 }, { model: at("int2") });
  const { models } = await evaluate({
    models: [at("int2"), at("repaired")],
    reference: at("float"),
    text: { name: "text", text },
    backend,
  });
  const [was, is] = models.map(({ divergence }) => divergence!.klMean);
  expect(is).toBeLessThan(0.8 * was);
});

test("what cannot be tuned is refused by name, and nothing is left behind", async () => {
  const refused = async (change: object, options: Partial<TuneOptions> = {}) => {
    const message = await refusal(run("never", change, options));
    expect(existsSync(at("never"))).toBe(false);
    return message;
  };
  expect(await refused({ family: "trilm", options: undefined })).toContain("use qlora or sqft");
  expect(await refused({ options: { rank: 33 } })).toContain("a rank of 33 is more than");
  expect(await refused({ options: { ranks: 2 } })).toContain("unknown key options.ranks");
  expect(await refused({ formats: { linear: "int4" } })).toContain("formats.linear");
  expect(await refused({ keepOptimizer: true })).toContain("keepOptimizer");
  expect(await refused({ only: { sensitive: 2 } })).toContain("only.sensitive");
  expect(await refused({ only: ["*.qq_proj.*"] })).toContain("no tensor is called *.qq_proj.*");
  expect(await refused({ only: ["nothing"] })).toContain("no tensor is called nothing");
  expect(await refused({ model: { context: 64 } })).toContain(
    "model.context: 64 is more than the 16 of int4",
  );
  expect(await refused({ family: "sqft", options: {} }, { model: at("float") })).toMatch(
    /sqft: model\.layers\.0\.\S+ is stored as f32/,
  );
  expect(await refused({ options: { parts: ["codebooks"] } })).toContain(
    "int4: its matrices have none of the parts that move",
  );
  await writeTinyModel(
    at("nan"),
    (name, data) => name.includes("1.mlp.up_proj") && data.fill(Number.NaN, 3, 4),
    model,
  );
  expect(await refused({}, { model: at("nan") })).toMatch(
    /^nan: tensor model\.layers\.1\.mlp\.up_proj\.weight .*NaN/,
  );
  expect(await refused({}, { model: at("nowhere") })).toContain("no such file or folder");
  expect(await refusal(train({ recipe: recipe({ from: at("int4") }), out: at("never"), backend }))).toMatch(
    /model|lowbit tune/,
  );
});
