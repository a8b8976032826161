import { expect, test } from "vitest";
import { openBackend } from "../backends/index.ts";
import { initialize } from "../models/initialize.ts";
import type { Model } from "../models/model.ts";
import { ropeTable } from "../models/rope-table.ts";
import type { Running } from "../models/run.ts";
import { bf16FromBits, roundBf16 } from "../tensor/half.ts";
import { generator } from "../tensor/random.ts";
import { modelOf } from "./model.ts";
import { readRecipe, roundingOf } from "./recipe.ts";
import { type StepResult, Trainer } from "./trainer.ts";

const backend = await openBackend({ backend: "native", threads: 2 }).catch(() => openBackend("reference"));
const VOCABULARY = 96;

/** Two steps of a small model; what they gave, and every parameter and moment after them. */
async function trained(
  family: string,
  change: object,
): Promise<{ results: StepResult[]; state: Map<string, Float32Array> }> {
  const recipe = readRecipe(
    {
      family,
      model: { dim: 32, layers: 2, heads: 2, kvHeads: 1, ffn: 64, context: 16 },
      data: { text: "text", heldOut: ["held"], tokenizer: { train: VOCABULARY } },
      formats: family === "trilm" ? { linear: "int2" } : undefined,
      batch: 4,
      // Small enough that the norm of the whole batch is clipped, in each micro-batch's share.
      optimizer: { clip: 0.05 },
      schedule: { kind: "cosine", peak: 1e-3, warmup: 0 },
      seed: 5,
      checkpointEvery: 1,
      validateEvery: 1,
      ...change,
    },
    "recipe",
  );
  const trainer = new Trainer(backend, modelOf(recipe, VOCABULARY), recipe, {
    steps: 2,
    rounding: roundingOf(recipe),
  });
  try {
    const results: StepResult[] = [];
    for (const step of [1, 2]) {
      const ids = Int32Array.from({ length: 4 * 16 }, (_, i) => (step * 31 + i * i) % VOCABULARY);
      const targets = ids.map((id) => (id * 7 + 1) % VOCABULARY);
      results.push(await trainer.step({ sequences: 4, inputs: ids, targets }, step, 1e-3, 0.1));
    }
    return { results, state: (await trainer.state()) as Map<string, Float32Array> };
  } finally {
    trainer.dispose();
  }
}

test.each(["float", "trilm"])(
  "%s: recomputation changes no bit, with micro-batches and clipping",
  async (family) => {
    for (const microBatch of [4, 2]) {
      const stored = await trained(family, { microBatch });
      expect(stored.results[0].gradientNorm).toBeGreaterThan(0.05);
      expect(await trained(family, { microBatch, recompute: true })).toEqual(stored);
    }
  },
);

test("micro-batches are the whole batch but for the order of its sums", async () => {
  const whole = await trained("float", { microBatch: 4 });
  for (const microBatch of [2, 1]) {
    const parts = await trained("float", { microBatch });
    for (const [i, { loss, gradientNorm }] of parts.results.entries()) {
      expect(Math.abs(loss / whole.results[i].loss - 1)).toBeLessThan(1e-6);
      expect(Math.abs(gradientNorm / whole.results[i].gradientNorm - 1)).toBeLessThan(1e-5);
    }
    // Gradients of a parameter are added up in as many parts; the first moments are (1 − β₁)·Σ β₁ⁱ·g after clipping.
    for (const [name, data] of parts.state) {
      if (!name.startsWith("first/")) continue;
      const other = whole.state.get(name)!;
      const largest = other.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
      for (const [i, value] of data.entries())
        expect(Math.abs(value - other[i])).toBeLessThan(1e-3 * largest);
    }
  }
  expect((await trained("float", { microBatch: 2 })).state).not.toEqual(whole.state);
});

test("a step that breaks leaves the parameters as they were, and is blamed on what broke first", async () => {
  const recipe = readRecipe(
    {
      family: "float",
      model: { dim: 32, layers: 2, heads: 2, ffn: 64, context: 16 },
      data: { text: "text", heldOut: ["held"], tokenizer: { train: VOCABULARY } },
      batch: 2,
      schedule: { kind: "cosine", peak: 1e-3, warmup: 0 },
      seed: 5,
      checkpointEvery: 1,
      validateEvery: 1,
    },
    "recipe",
  );
  const trainer = new Trainer(backend, modelOf(recipe, VOCABULARY), recipe, { steps: 2 });
  try {
    const ids = Int32Array.from({ length: 32 }, (_, i) => i);
    const batch = { sequences: 2, inputs: ids, targets: ids };
    const state = await trainer.state();
    const broken = (name: string, value: number) => {
      const data = state.get(name)!.slice();
      data.fill(value);
      trainer.restore(new Map([...state, [name, data]]));
    };
    const gate = "model.layers.1.mlp.gate_proj.weight";
    broken(gate, Number.POSITIVE_INFINITY);
    expect((await trainer.step(batch, 1, 1e-3, 0)).loss).toBeNaN();
    expect(await trainer.blame(batch, 1)).toBe(`weight ${gate}`);

    // Finite weights whose products are not: the layer after them is the first that multiplies what is not finite.
    broken("model.layers.0.self_attn.v_proj.weight", 3e38);
    const before = await trainer.state();
    expect(Number.isFinite((await trainer.step(batch, 1, 1e-3, 0)).loss)).toBe(false);
    expect(await trainer.blame(batch, 1)).toBe("input of model.layers.0.self_attn.o_proj.weight");
    expect(await trainer.state()).toEqual(before);

    trainer.restore(state);
    expect(await trainer.blame(batch, 1)).toMatch(/^largest gradient, of \S+$/);
  } finally {
    trainer.dispose();
  }
});

const small = {
  family: "float",
  model: { dim: 32, layers: 2, heads: 2, ffn: 64, context: 16 },
  data: { text: "text", heldOut: ["held"], tokenizer: { train: VOCABULARY } },
  batch: 2,
  microBatch: 1,
  schedule: { kind: "cosine", peak: 1e-3, warmup: 0 },
  seed: 5,
  checkpointEvery: 1,
  validateEvery: 1,
} as const;

/** A model of other random weights. */
function teacherOf(model: Model): Running {
  const weights = Array.from(initialize(model, generator(9), 0.2), ([name, value]) => {
    return [name, backend.keep(backend.upload(value))] as const;
  });
  const rope = backend.keep(backend.upload(ropeTable(model.config, 16)));
  return { model, backend, rope, weights: new Map(weights) };
}

test("padding teaches nothing, whatever stands there: neither labels nor a teacher's words and states", async () => {
  const loss = { teacher: "t", labels: 1, soft: {}, states: {} };
  const recipe = readRecipe({ ...small, loss }, "recipe");
  const model = modelOf(recipe, VOCABULARY);
  const teacher = teacherOf(model);
  const step = async (padding: number) => {
    const trainer = new Trainer(backend, model, recipe, { steps: 1, teacher });
    const isPadding = (i: number) => i >= 32 - 9;
    const ids = Int32Array.from({ length: 32 }, (_, i) => (isPadding(i) ? padding : (5 * i) % VOCABULARY));
    const targets = ids.map((id, i) => (isPadding(i) ? -1 : (id * 7 + 1) % VOCABULARY));
    const result = await trainer.step({ sequences: 2, inputs: ids, targets }, 1, 1e-3, 0);
    const state = await trainer.state();
    trainer.dispose();
    // The embedding of what stands there is not moved either.
    return { result, state };
  };
  expect(await step(95)).toEqual(await step(0));
});

test("hidden states alone leave what stands behind the last of them as it is", async () => {
  const recipe = readRecipe({ ...small, loss: { teacher: "t", states: {} } }, "recipe");
  const model = modelOf(recipe, VOCABULARY);
  const trainer = new Trainer(backend, model, recipe, { steps: 1, teacher: teacherOf(model) });
  const before = await trainer.parameters();
  const ids = Int32Array.from({ length: 32 }, (_, i) => (5 * i) % VOCABULARY);
  await trainer.step({ sequences: 2, inputs: ids, targets: ids }, 1, 1e-3, 0);
  const after = await trainer.parameters();
  trainer.dispose();
  const moved = [...before.keys()].filter((name) =>
    before.get(name)!.some((w, i) => w !== after.get(name)![i]),
  );
  expect(moved.map((name) => name.split(".")[1])).toEqual(["embed_tokens", ...new Array(9).fill("layers")]);
  expect(moved.some((name) => name.includes("layers.1"))).toBe(false);
});

test("parameters that are taken over alone become what the optimizer trains: pairs of bf16 that add up to them", async () => {
  const recipe = readRecipe({ ...small, optimizer: { name: "collage" } }, "recipe");
  const model = modelOf(recipe, VOCABULARY);
  const trainer = new Trainer(backend, model, recipe, { steps: 1 });
  const name = "model.layers.0.mlp.up_proj.weight";
  const state = await trainer.state();
  const taken = Float32Array.from(state.get(name)!, (_, i) => Math.sin(i));
  trainer.restore(new Map([...state, [name, taken]]), "parameters");
  const after = await trainer.state();
  trainer.dispose();
  const [w, rest] = [after.get(name)!, new Uint16Array(after.get(`rest/${name}`)!.buffer)];
  for (const [i, x] of taken.entries()) {
    expect(w[i]).toBe(roundBf16(w[i]));
    expect(Math.abs(w[i] + bf16FromBits(rest[i]) - x)).toBeLessThanOrEqual(2 ** -16 * Math.abs(x));
  }
});

test("only: a pattern that no tensor is called by is refused", () => {
  const recipe = readRecipe({ ...small, only: ["*.down_proj.weight", "*.dwon_proj.weight"] }, "recipe");
  expect(() => new Trainer(backend, modelOf(recipe, VOCABULARY), recipe, { steps: 1 })).toThrow(
    /^only: no tensor is called \*\.dwon_proj\.weight; there are model\.embed_tokens\.weight, .*…$/,
  );
});
