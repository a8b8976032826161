import { afterAll, describe, expect, test } from "vitest";
import type { Backend } from "../backends/backend.ts";
import { openCounting } from "../backends/counting.ts";
import type { HeapBackend } from "../backends/heap.ts";
import { openBackend } from "../backends/index.ts";
import { ropeTable } from "../models/rope-table.ts";
import type { Running } from "../models/run.ts";
import { InputError, sizeOf } from "../tensor/tensor.ts";
import { checkFits, planMemory } from "./memory-plan.ts";
import { modelOf } from "./model.ts";
import { type Recipe, type RecipeInput, readRecipe, roundingOf } from "./recipe.ts";
import { Trainer } from "./trainer.ts";

const VOCABULARY = 512;
const shapes = [
  { dim: 64, layers: 4, heads: 2, ffn: 256, context: 64 },
  { dim: 128, layers: 6, heads: 4, kvHeads: 2, ffn: 256, context: 128, tiedHead: true },
];

function recipeOf(model: RecipeInput["model"], change: Partial<RecipeInput> = {}): Recipe {
  const input = {
    family: "float",
    model,
    data: { text: "text", heldOut: ["held"], tokenizer: { train: VOCABULARY } },
    batch: 8,
    microBatch: 4,
    schedule: { kind: "cosine", peak: 1e-3, warmup: 1 },
    seed: 1,
    checkpointEvery: 10,
    validateEvery: 10,
    ...change,
  } satisfies RecipeInput;
  return readRecipe(input, "recipe");
}

const native = await openBackend({ backend: "native", threads: 1 }).then(
  (backend) => backend as HeapBackend,
  () => undefined,
);
const wasm = await openBackend({ backend: "wasm", threads: 1 }).then(
  (backend) => backend as HeapBackend,
  () => undefined,
);
afterAll(() => {
  for (const backend of [native, wasm]) backend?.dispose();
});

/** Peak of two steps as the backend counts it. */
async function measured(backend: HeapBackend, recipe: Recipe, teacher?: Running): Promise<number> {
  const before = backend.bytesInUse();
  const model = modelOf(recipe, VOCABULARY);
  const trainer = new Trainer(backend, model, recipe, { steps: 2, rounding: roundingOf(recipe), teacher });
  const ids = Int32Array.from(
    { length: recipe.batch * recipe.model.context },
    (_, i) => (7 * i) % VOCABULARY,
  );
  backend.takePeakBytes();
  for (const step of [1, 2]) {
    await trainer.step({ sequences: recipe.batch, inputs: ids, targets: ids }, step, 1e-3, 0.1);
  }
  const peak = backend.takePeakBytes() - before;
  trainer.dispose();
  expect(backend.bytesInUse()).toBe(before);
  return peak;
}

describe.each(["float", "trilm"])("%s", (family) => {
  describe.each(shapes)("dim $dim, $layers layers, context $context", (shape) => {
    test.skipIf(!native).each([false, true])("the peak is as predicted, recompute %s", async (recompute) => {
      const recipe = recipeOf(shape, { family, recompute });
      const plan = await planMemory(recipe, VOCABULARY);
      const peak = await measured(native!, recipe);
      expect(Math.abs(plan.peak / peak - 1)).toBeLessThan(0.02); // 10 % are promised
    });

    test.skipIf(!native)("with recomputation it is at most 1.3 times what must be there", async () => {
      const recipe = recipeOf(shape, { family, recompute: true });
      const { weights, gradients, optimizerStates, block } = await planMemory(recipe, VOCABULARY);
      const model = modelOf(recipe, VOCABULARY);
      const parameters = model.tensors.reduce((sum, { shape: s }) => sum + sizeOf(s), 0);
      expect([weights, gradients, optimizerStates]).toEqual([4 * parameters, 4 * parameters, 8 * parameters]);
      const tokens = recipe.microBatch * recipe.model.context;
      const blockInputs = 4 * tokens * recipe.model.dim * recipe.model.layers;
      // Without the tile of logits, which is no tensor and not in the peak.
      const needed = weights + gradients + optimizerStates + blockInputs + block;
      expect(await measured(native!, recipe)).toBeLessThan(1.3 * needed);
    });
  });
});

test
  .skipIf(!native)
  .each([
    { family: "onebit", optimizer: { name: "adamw8" } },
    { family: "bitnet-b1.58", optimizer: { name: "muon" } },
    { family: "matquant", precision: "bf16" },
    ...(process.platform === "win32" ? [] : [{ family: "float", optimizer: { paged: true } } as const]),
  ] as const)("the peak of other ways to train is as predicted: $family", async (change) => {
  const recipe = recipeOf(shapes[0], change as Partial<RecipeInput>);
  const { peak } = await planMemory(recipe, VOCABULARY);
  expect(Math.abs(peak / (await measured(native!, recipe)) - 1)).toBeLessThan(0.02);
});

test("paged states take no memory, and are told apart", async () => {
  const plain = await planMemory(recipeOf(shapes[0]), VOCABULARY);
  const paged = await planMemory(recipeOf(shapes[0], { optimizer: { paged: true } }), VOCABULARY);
  expect([paged.paged, paged.optimizerStates]).toEqual([plain.optimizerStates, 0]);
  expect(plain.paged).toBeUndefined();
  expect(paged.activations / plain.activations).toBeCloseTo(1, 2);
  expect((plain.peak - paged.peak) / plain.optimizerStates).toBeCloseTo(1, 2);
});

test.skipIf(!wasm)("WebAssembly counts the same", async () => {
  const recipe = recipeOf(shapes[0]);
  expect((await planMemory(recipe, VOCABULARY)).peak).toBe(await measured(wasm!, recipe));
});

test("a recipe that does not fit is refused with the largest change that would", async () => {
  const recipe = recipeOf(shapes[1]);
  const need = async (change: Partial<Recipe>) =>
    (await planMemory({ ...recipe, ...change }, VOCABULARY)).total;
  const refused = (machine: number) =>
    checkFits(recipe, VOCABULARY, { backend: machine, machine }).then(String, (error) => {
      expect(error).toBeInstanceOf(InputError);
      return error.message;
    });
  const whole = await need({});
  expect((await checkFits(recipe, VOCABULARY, { backend: whole, machine: whole })).total).toBe(whole);
  expect(await refused(await need({ microBatch: 2 }))).toMatch(
    /^memory: training needs \S+ MB \(\S+ MB of them whatever the batch\), \S+ MB are there; microBatch: 2 would fit$/,
  );
  expect(await refused(await need({ microBatch: 1 }))).toContain("; microBatch: 1 would fit");
  expect(await refused((await need({ microBatch: 1 })) - 1)).toContain("with recompute: true would fit");
  const layers = (count: number) =>
    need({ microBatch: 1, recompute: true, model: { ...recipe.model, layers: count } });
  expect(await refused(await layers(4))).toContain(
    "; model.layers: 4 with microBatch: 1 and recompute: true would fit",
  );
  expect(await refused((await layers(4)) - 1)).toContain("; model.layers: 3 with");
  expect(await refused(1e6)).toContain("no number of layers would fit");
});

test.skipIf(!native).each([{ labels: 0 }, { labels: 1, states: {} }])(
  "the peak beside a teacher is as predicted: %o",
  async (more) => {
    const loss = { teacher: "t", soft: {}, ...more };
    const recipe = recipeOf(shapes[0], { loss });
    const counting = openCounting();
    const counted = { ...teacherOn(counting), backend: counting };
    const plan = await planMemory(recipe, VOCABULARY, counted);
    expect(await planMemory(recipe, VOCABULARY, counted)).toEqual(plan);
    const before = native!.bytesInUse();
    const teacher = teacherOn(native!);
    expect(plan.teacher).toBe(native!.bytesInUse() - before);
    const peak = plan.teacher! + (await measured(native!, recipe, teacher));
    for (const t of [...teacher.weights.values(), teacher.rope]) native!.free(t);
    expect(Math.abs(plan.peak / peak - 1)).toBeLessThan(0.02);
  },
);

/** A model of the first shape with weights of zeros. */
function teacherOn(backend: Backend) {
  const model = modelOf(recipeOf(shapes[0]), VOCABULARY);
  const weights = new Map(
    model.tensors.map(({ name, shape }) => [name, backend.keep(backend.zeros(shape))] as const),
  );
  return {
    model,
    backend,
    weights,
    rope: backend.keep(backend.upload(ropeTable(model.config, model.config.context))),
  };
}
