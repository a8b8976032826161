import { describe, expect, test } from "vitest";
import { errorBound } from "../src/autograd/error-bound.ts";
import type { Backend } from "../src/backends/backend.ts";
import { openBackend } from "../src/backends/index.ts";
import { decodeWeight } from "../src/formats/index.ts";
import type { Operations } from "../src/kernels/index.ts";
import { trainedMethods } from "../src/methods/index.ts";
import type { Running } from "../src/models/run.ts";
import { runStored } from "../src/models/stored.ts";
import { generator } from "../src/tensor/random.ts";
import { hostTensor, type Tensor } from "../src/tensor/tensor.ts";
import type { Weight } from "../src/tensor/weight.ts";
import { storedWeights } from "../src/training/finish.ts";
import { modelOf } from "../src/training/model.ts";
import { readRecipe, roundingOf } from "../src/training/recipe.ts";
import { Trainer } from "../src/training/trainer.ts";
import { backendsHere } from "./backends.ts";

const VOCABULARY = 24;
const TIME = 6;
const STEPS = 3;

function recipeOf(family: string, dim: number) {
  return readRecipe(
    {
      family,
      ...(family === "continual" ? { options: { from: 1 } } : {}),
      model: { dim, layers: 1, heads: 4, kvHeads: 2, ffn: dim, context: TIME },
      data: { text: "-", heldOut: ["-"], tokenizer: { train: 300 } },
      batch: 2,
      schedule: { kind: "trilm", p1: 0.01, p2: 0.006, warmup: 1 },
      seed: 2,
      formats: { other: "f32" },
    },
    "recipe",
  );
}

/** A model after a few steps, as its layers see it, as it is stored, and its latent weights. */
async function trainedModel(backend: Backend, family: string, dim: number) {
  const recipe = recipeOf(family, dim);
  const model = modelOf(recipe, VOCABULARY);
  const rounding = roundingOf(recipe)!;
  const random = generator(9);
  const ids = (n: number) => Int32Array.from({ length: n }, () => Math.floor(VOCABULARY * random()));
  const at = { step: STEPS, steps: STEPS };
  const trainer = new Trainer(backend, model, recipe, { steps: STEPS, rounding });
  for (let step = 1; step <= STEPS; step++) {
    await trainer.step({ sequences: 2, inputs: ids(2 * TIME), targets: ids(2 * TIME) }, step, 0.01, 0.1);
  }
  const latent = await trainer.parameters();
  const stored = await storedWeights(model, latent, recipe.formats, { rounding, at }, backend, {});
  return { trainer, running: trainer.running(at), latent, stored, text: ids(TIME) };
}

/** ids (TIME) -> logits (TIME, VOCABULARY) */
function logits({ model, weights, rope, backend }: Running, ops: Operations, ids: Int32Array): Tensor {
  let x = model.embed(ops, backend.upload(hostTensor([TIME], ids)), weights);
  x = model.block(ops, 0, x, weights, { batch: 1, time: TIME, from: 0 }, rope);
  return ops.linear(model.finalNorm(ops, x, weights), weights.get(model.headWeight)!);
}

async function logitsOf(running: Running, ids: Int32Array): Promise<Float32Array> {
  const { backend } = running;
  const result = backend.scope(() => logits(running, backend, ids));
  const values = (await backend.read(result)) as Float32Array;
  backend.free(result);
  return values;
}

/** The same model whose linear matrices are those, as floats. */
function withMatrices(running: Running, matrix: (name: string) => Float32Array): Running {
  const weights = new Map(running.weights);
  for (const { name, role, shape } of running.model.tensors) {
    if (role === "linear") weights.set(name, running.backend.upload(hostTensor(shape, matrix(name))));
  }
  return { ...running, weights };
}

describe.each(await backendsHere())("%s", (name) => {
  test.each(Object.keys(trainedMethods))(
    "%s: the stored model has the trained one's logits, bit for bit on the same kernels",
    async (family) => {
      const backend = await openBackend(name);
      const { running, latent, stored, text } = await trainedModel(backend, family, 64);
      const decoded = (weights: ReadonlyMap<string, Weight>) => (tensor: string) =>
        decodeWeight(weights.get(tensor)!).data;
      const trained = await logitsOf(running, text);
      expect(await logitsOf(withMatrices(running, decoded(stored)), text)).toEqual(trained);
      if (family === "frozen-ternary") return; // what it keeps is ternary already
      expect(
        await logitsOf(
          withMatrices(running, (tensor) => latent.get(tensor)!),
          text,
        ),
      ).not.toEqual(trained);
      backend.dispose();
    },
  );

  // OneBit and FBI-LLM run as signs, vectors and sums of them: the roundings that this adds to each product are few beside its own.
  test.each([
    ["trilm", "tq2_0"],
    ["onebit", "compound"],
    ["fbi", "compound"],
  ])(
    "the packed %s model has the trained one's logits, within the derived bound",
    async (family, packedAs) => {
      const backend = await openBackend(name);
      const { running, latent, stored, text } = await trainedModel(backend, family, 256);
      const packed = runStored(running.model, stored, backend);
      const packedFormats = [...packed.weights.values()].filter(({ format }) => format === packedAs);
      expect(packedFormats).toHaveLength(7);

      const ofTrained = await logitsOf(running, text);
      const ofPacked = await logitsOf(packed, text);
      const ofLatent = await logitsOf(
        withMatrices(running, (tensor) => latent.get(tensor)!),
        text,
      );
      const bounded = await errorBound(backend, (ops) => logits(running, ops, text));
      const outside = { packed: 0, latent: 0 };
      for (let i = 0; i < ofTrained.length; i += 7) {
        const seed = new Float32Array(ofTrained.length);
        seed[i] = 1;
        const bound = await bounded.bound(backend.upload(hostTensor([TIME, VOCABULARY], seed)));
        // Both may be this far from the exact result.
        if (Math.abs(ofPacked[i] - ofTrained[i]) > 2 * bound) outside.packed++;
        if (Math.abs(ofLatent[i] - ofTrained[i]) > 2 * bound) outside.latent++;
      }
      expect(outside.packed).toBe(0);
      expect(outside.latent).toBeGreaterThan(15); // of 21: the bound tells a rounded matrix from its latent weights
      bounded.free();
      backend.dispose();
    },
  );
});
