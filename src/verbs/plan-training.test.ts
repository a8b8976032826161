import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { tinyRecipe, writeTinyText } from "../../test/tiny-training.ts";
import { InputError } from "../tensor/tensor.ts";
import { planTraining } from "./plan-training.ts";
import { train } from "./train.ts";

const folder = mkdtempSync(join(tmpdir(), "lowbit-plan-training-"));
const text = writeTinyText(folder);
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const backend = "reference";

test("a dry run says what training then does, and leaves nothing", async () => {
  const { steps: _, ...recipe } = tinyRecipe(text, "trilm"); // one pass over the text
  const plan = await planTraining({ recipe, backend });
  expect(readdirSync(folder)).toEqual(["text"]);
  // dim 16, ffn 32, 2 layers, 280 words: q, k, v, o and gate, up, down.
  const linear = 2 * (4 * 16 * 16 + 3 * 16 * 32);
  expect(plan.parameters).toEqual({
    total: linear + 2 * 280 * 16 + 5 * 16,
    linear,
    embedding: 280 * 16,
    head: 280 * 16,
    norm: 5 * 16,
  });
  expect(plan.bits.linear).toBeGreaterThan(2);
  expect(plan.bits.linear).toBeLessThan(4);
  expect(plan.memory.optimizerStates).toBe(8 * plan.parameters.total);
  expect(plan.trainingSeconds).toBeCloseTo(plan.steps * plan.trial!.secondsPerStep, 12);
  expect(JSON.stringify(plan)).not.toContain(folder);

  const record = await train({ recipe, out: join(folder, "run"), backend });
  expect([record.steps, record.tokens]).toEqual([plan.steps, plan.tokens]);
  const { available: __, ...predicted } = plan.memory;
  expect(record.memory.predicted).toEqual(predicted);
  expect((await planTraining({ recipe, backend, trial: false })).trainingSeconds).toBeUndefined();
});

test("a teacher's memory counts, and its time", async () => {
  await train({ recipe: tinyRecipe(text, "float"), out: join(folder, "teacher"), backend });
  const recipe = {
    ...tinyRecipe(text, "trilm"),
    loss: { teacher: join(folder, "teacher"), soft: {}, states: {} },
  };
  const { memory } = await planTraining({ recipe, backend });
  expect(memory.teacher).toBeGreaterThan(4 * 280 * 16);
  const taught = await train({ recipe, out: join(folder, "taught"), backend });
  expect(taught.memory.predicted.peak).toBe(memory.peak);
  const native = await train({ recipe, out: join(folder, "native") }).catch(() => undefined); // where it was built
  const { peak } = native?.memory ?? {};
  if (peak !== undefined) expect(Math.abs(memory.peak / peak - 1)).toBeLessThan(0.1);
  const other = { ...recipe, model: { ...recipe.model, layers: 1 } };
  await expect(planTraining({ recipe: other, backend })).rejects.toThrow(
    /^teacher: has 2 blocks of width 16/,
  );
  for (const name of ["teacher", "taught", "native"])
    rmSync(join(folder, name), { recursive: true, force: true });
});

test("what does not fit is refused before anything is written", async () => {
  const out = join(folder, "never");
  const recipe = tinyRecipe(text, "float");
  const { memory } = await planTraining({ recipe, backend, trial: false });
  for (const refused of [
    () => train({ recipe, out, backend, memory: memory.total - 1 }),
    () => planTraining({ recipe, backend, memory: memory.total - 1 }),
  ]) {
    const error = await refused().then(String, (reason: Error) => reason);
    expect(error).toBeInstanceOf(InputError);
    expect(String(error)).toMatch(/memory: training needs .* are there; microBatch: 1 would fit$/);
  }
  expect(readdirSync(folder)).not.toContain("never");
});
