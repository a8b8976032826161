import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { stringify } from "yaml";
import { refusal } from "../../test/refusal.ts";
import { bitsOf, tinyRecipe, writeTinyText } from "../../test/tiny-training.ts";
import { openModel } from "../files/index.ts";
import { decodeWeight } from "../formats/index.ts";
import { convert } from "../verbs/convert.ts";
import { train } from "../verbs/train.ts";
import { readState } from "./checkpoint.ts";
import type { RecipeInput } from "./recipe.ts";

const folder = mkdtempSync(join(tmpdir(), "lowbit-start-"));
const text = writeTinyText(folder);
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const backend = "reference";

/** A float run with a snapshot at 6 of 12 steps, stored in full precision. */
const base: RecipeInput = {
  ...tinyRecipe(text, "float"),
  formats: { linear: "f32", other: "f32" },
  snapshots: { steps: [6, 8], state: true },
};
const baseOut = join(folder, "base");
beforeAll(async () => {
  await train({ recipe: base, out: baseOut, backend });
});

const lines = (name: string) =>
  readFileSync(join(folder, name, "log.jsonl"), "utf8")
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
const run = (name: string, change: object, set: string[] = []) =>
  train({
    recipe: { ...base, snapshots: undefined, ...change } as RecipeInput,
    out: join(folder, name),
    set,
    backend,
  });

/** One step without weight decay whose learning rate is nearly 0, so that its loss is that of the start. */
const still = { steps: 1, schedule: { kind: "cosine", peak: 1e-20, warmup: 0 } };

test("a run starts from the weights of a model, whose hash is in its record and identity", async () => {
  const from = `${baseOut}@6`;
  const record = await run("from-6", { ...still, from });
  const file = await openModel(from);
  const { sha256 } = await file.fingerprint();
  await file.close();
  expect(record.models[0]).toMatchObject({ name: "base@6", sha256 });
  expect(record.identity.start).toBeDefined();
  expect(JSON.stringify(record)).not.toContain(folder);
  const ends = await openModel(join(folder, "from-6"));
  const starts = await openModel(from);
  for (const name of starts.source.names) {
    const [a, b] = [await starts.source.read(name), await ends.source.read(name)].map(
      (w) => decodeWeight(w).data,
    );
    expect(b).toEqual(a); // the step was too small to see
  }
  await ends.close();
  await starts.close();

  // The same contents elsewhere, and paths relative to the recipe.
  const recipe = join(folder, "recipe.yaml");
  writeFileSync(
    recipe,
    stringify({
      ...base,
      snapshots: undefined,
      ...still,
      data: { ...base.data, text: "text" },
      from: "base@6",
    }),
  );
  const again = await train({ recipe, out: join(folder, "from-file"), backend });
  expect(again.identity).toEqual(record.identity);
  expect(bitsOf(join(folder, "from-file"))).toEqual(bitsOf(join(folder, "from-6")));
});

test("with its optimizer's states a run goes on exactly as the one it starts from would", async () => {
  // A text of one window, so that a step depends on nothing but state and rate.
  const few = join(folder, "few");
  mkdirSync(few);
  writeFileSync(join(few, "a.txt"), "The fox sees the hen. The owl hears the cat.");
  writeFileSync(join(few, "held.txt"), readFileSync(join(text, "held.txt")));
  const recipe: RecipeInput = {
    ...base,
    data: { text: few, heldOut: ["held.txt"], tokenizer: { file: join(baseOut, "tokenizer.json") } },
    batch: 1,
    microBatch: 1,
    steps: 4,
    schedule: { kind: "trilm", p1: 0.01, p2: 0.01, warmup: 0, removesDecay: false },
    snapshots: { steps: [2, 3], state: true },
  };
  const stateOf = async (name: string, step: number) => {
    const { tensors, optimizerSteps } = await readState(
      join(folder, name, "steps", `${step}`, "state.safetensors"),
    );
    return {
      optimizerSteps,
      bits: [...tensors].map(([tensor, data]) => [tensor, Buffer.from(data.buffer).toString("hex")]),
    };
  };
  await train({ recipe, out: join(folder, "steady"), backend });
  const third = await stateOf("steady", 3);
  // Step 3 of 4 has the rate 0.01·(1 − 2/4).
  const next: RecipeInput = {
    ...recipe,
    from: join(folder, "steady@2"),
    steps: 1,
    schedule: { kind: "cosine", peak: 0.005, warmup: 0, final: 1 },
    snapshots: { steps: [1], state: true },
  };
  await train({ recipe: { ...next, keepOptimizer: true }, out: join(folder, "continued"), backend });
  expect(await stateOf("continued", 1)).toEqual({ ...third, optimizerSteps: 3 });
  await train({ recipe: next, out: join(folder, "reset"), backend });
  const reset = await stateOf("reset", 1);
  expect(reset.optimizerSteps).toBe(1);
  expect(reset.bits[0]).not.toEqual(third.bits[0]);
});

test("another family starts from what was trained; a model of another container from its decoded weights", async () => {
  const step = { ...still, from: `${baseOut}@8`, formats: undefined };
  await run("ternary", { ...step, family: "trilm" });
  await run("float", step);
  expect(lines("ternary")[0].loss).not.toBe(lines("float")[0].loss);
  expect(lines("ternary")[0].loss).toBeLessThan(Math.log(280));

  await convert({ model: baseOut, output: join(folder, "base.gguf"), type: "f32" });
  await run("from-whole", { ...still, from: baseOut });
  await run("from-gguf", { ...still, from: join(folder, "base.gguf") });
  expect(lines("from-gguf")[0].loss).toBe(lines("from-whole")[0].loss);
});

test("what a family added to a model the next one goes on with, or it is refused", async () => {
  const options = { squaredRelu: true };
  const first = {
    family: "bitnet-b1.58",
    options,
    formats: undefined,
    snapshots: { steps: [2], state: true },
  };
  await run("stage-1", { ...first, steps: 2 });
  const from = join(folder, "stage-1@2");
  const second = { ...still, from, formats: undefined };
  await run("stage-2", { ...second, family: "bitnet-a4.8", keepOptimizer: true });
  await run("stage-1-again", { ...second, family: "bitnet-b1.58", options });
  expect(lines("stage-1-again")[0].loss).toBeLessThan(lines("stage-1")[0].loss);
  expect(await refusal(run("never", { ...second, family: "trilm" }))).toBe(
    "from: stage-1@2 is another model than the recipe's: ffnActivation relu2 → none, subNorm true → none",
  );
  await run("signs", { family: "onebit", formats: undefined, steps: 2 });
  await run("signs-again", { ...still, from: join(folder, "signs"), family: "onebit", formats: undefined });
});

test("another architecture or tokenizer is refused, with what differs", async () => {
  const from = baseOut;
  expect(await refusal(run("never", { from }, ["model.dim=32", "model.layers=3"]))).toBe(
    "from: base is another model than the recipe's: dim 16 → 32, layers 2 → 3, headDim 8 → 16",
  );
  expect(
    await refusal(run("other-words", { from, data: { ...base.data, tokenizer: { train: 290 } } })),
  ).toMatch(
    /^from: base has another tokenizer than the recipe's: 280 → 290 ids, SHA-256 [0-9a-f]{12} → [0-9a-f]{12}; give its own with data\.tokenizer\.file$/,
  );
  expect(await refusal(run("never", { from: `${baseOut}@7` }))).toContain("base@7: no such snapshot among 2");
  expect(await refusal(run("never", { from, keepOptimizer: true }))).toContain(
    "keepOptimizer: base has no optimizer states",
  );
  expect(await refusal(run("never", { keepOptimizer: true }))).toContain("keepOptimizer: needs from");
  await run("longer", { ...still, from }, ["model.context=8"]); // no weight depends on it
});
