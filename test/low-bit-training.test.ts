import { cpSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { RecipeInput } from "../src/training/recipe.ts";
import { convert } from "../src/verbs/convert.ts";
import { generate } from "../src/verbs/generate.ts";
import { planTraining } from "../src/verbs/plan-training.ts";
import { train } from "../src/verbs/train.ts";
import { tinyRecipe, writeTinyText } from "./tiny-training.ts";

const folder = mkdtempSync(join(tmpdir(), "lowbit-low-bit-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const backend = "reference";
const at = (name: string) => join(folder, name);
let text = "";

/** A short run of a family. */
function recipeOf(family: string, more: Partial<RecipeInput> = {}): RecipeInput {
  return {
    ...tinyRecipe(text, "float"),
    steps: 3,
    validateEvery: 3,
    family: family as "float",
    ...more,
  };
}

beforeAll(async () => {
  text = writeTinyText(folder);
  await train({ recipe: recipeOf("float"), out: at("teacher"), backend });
});

const ways: [family: string, more: Partial<RecipeInput>][] = [
  ["bitnet", { formats: { linear: "int2" } }],
  ["bitnet-b1.58", { formats: { linear: "int2" }, options: { squaredRelu: true } }],
  ["bitnet-a4.8", { formats: { linear: "int2" }, recompute: true }],
  ["llm-qat", { options: { weights: 4, activations: 8, cache: 4 } }],
];

test.each(ways)("%s: from a text to a model that generates as it was trained", async (family, more) => {
  const out = at(family);
  const { validation } = await train({ recipe: recipeOf(family, more), out, backend });
  // Embedding and head are stored with fewer bits than they were trained with; the rest is the same.
  expect(Math.abs(validation.loss - validation.trainedLoss)).toBeLessThan(0.02);
  const config = JSON.parse(readFileSync(join(out, "config.json"), "utf8"));
  expect(config).toMatchObject({ model_type: "lowbit_llama", lowbit: { activations: { ffn: {} } } });
  const written = await generate({ model: out, prompt: "The fox", tokens: 4, seed: 1, backend });
  expect(written.tokens).toBe(4);
  for (const to of ["model.gguf", "model.bin"]) {
    await expect(convert({ model: out, output: at(`${family}-${to}`) })).rejects.toThrow(
      /cannot hold this model: it has .*rounded activations.*; keep it as a folder/,
    );
  }
  await convert({ model: out, output: at(`${family}-copy`) });
  expect(JSON.parse(readFileSync(at(`${family}-copy/config.json`), "utf8")).lowbit).toEqual(config.lowbit);
});

test("a4.8 goes on from b1.58, with its norms and activation; what these norms are missing in is refused", async () => {
  const plain = { formats: { linear: "int2" }, validateEvery: 9 } as const;
  const first = { ...plain, options: { squaredRelu: true }, snapshots: { steps: [2], state: true } };
  await train({ recipe: recipeOf("bitnet-b1.58", first), out: at("first"), backend });
  const second = { ...plain, from: `${at("first")}@2`, keepOptimizer: true };
  const { steps } = await train({ recipe: recipeOf("bitnet-a4.8", second), out: at("second"), backend });
  expect(steps).toBe(3);
  const loss = (name: string, line: number) =>
    JSON.parse(readFileSync(join(at(name), "log.jsonl"), "utf8").split("\n")[line]).loss;
  expect(loss("second", 0)).toBeLessThan(loss("first", 0)); // it begins where the other one was
  await expect(
    train({ recipe: recipeOf("trilm", { ...plain, from: at("first") }), out: at("third"), backend }),
  ).rejects.toThrow(
    "from: first is another model than the recipe's: ffnActivation relu2 → none, subNorm true → none",
  );
});

test("bitnet-a4.8 goes on from bitnet-b1.58 as its paper says; a model with other norms is another model", async () => {
  const data = { text, heldOut: ["held.txt"], tokenizer: { file: at("bitnet-b1.58/tokenizer.json") } };
  const second = (options: Record<string, unknown>) =>
    recipeOf("bitnet-a4.8", { data, formats: { linear: "int2" }, from: at("bitnet-b1.58"), options });
  const { models, steps } = await train({ recipe: second({}), out: at("later"), backend });
  expect([models.length, steps]).toEqual([1, 3]);
  await expect(train({ recipe: second({ subNorm: false }), out: at("other"), backend })).rejects.toThrow(
    /^from: bitnet-b1\.58 is another model than the recipe's: subNorm true → /,
  );
});

test("a teacher beside: its hash is recorded, one of another vocabulary is refused", async () => {
  const data = { text, heldOut: ["held.txt"], tokenizer: { file: at("teacher/tokenizer.json") } };
  const soft = { rule: "topk", k: 20 } as const;
  const loss = { teacher: at("teacher"), labels: 0, soft, states: { share: 0.1 } };
  const out = at("taught");
  const recipe = recipeOf("llm-qat", { data, loss });
  const plan = await planTraining({ recipe, backend });
  expect(plan.memory.teacher).toBeGreaterThan(0);
  const record = await train({ recipe, out, backend });
  const { available: _, ...predicted } = plan.memory;
  expect(record.memory.predicted).toEqual(predicted);
  expect(JSON.stringify([plan, record])).not.toContain(folder);
  expect(record.models).toEqual([
    expect.objectContaining({ sha256: expect.stringMatching(/^[0-9a-f]{64}$/) }),
  ]);
  const other = { ...data, tokenizer: { train: 270 } };
  await expect(
    train({ recipe: recipeOf("llm-qat", { data: other, loss }), out: at("other"), backend }),
  ).rejects.toThrow(
    /^teacher: has \d+ rows in its output matrix, the model \d+; take a teacher of the same vocabulary/,
  );
});

test("a run does not continue under another teacher", async () => {
  const data = { text, heldOut: ["held.txt"], tokenizer: { file: at("teacher/tokenizer.json") } };
  const recipe = recipeOf("bitnet-b1.58", {
    data,
    formats: { linear: "int2" },
    loss: { teacher: at("moved"), soft: {}, labels: 0.5 },
  });
  cpSync(at("teacher"), at("moved"), { recursive: true });
  const stop = new AbortController();
  const stopped = train(
    { recipe, out: at("stopped"), backend },
    { signal: stop.signal, onProgress: () => stop.abort() },
  );
  await expect(stopped).rejects.toThrow();
  rmSync(at("moved"), { recursive: true });
  cpSync(at("bitnet"), at("moved"), { recursive: true });
  await expect(train({ recipe, out: at("stopped"), backend, resume: true })).rejects.toThrow("stopped");
});
