import { expect, test } from "vitest";
import { errorBound } from "../src/autograd/error-bound.ts";
import { openBackend } from "../src/backends/index.ts";
import type { Operations } from "../src/kernels/index.ts";
import { llama } from "../src/models/llama.ts";
import type { Running } from "../src/models/run.ts";
import { runStored } from "../src/models/stored.ts";
import { generator } from "../src/tensor/random.ts";
import { hostTensor, type Tensor } from "../src/tensor/tensor.ts";
import { storedWeights } from "../src/training/finish.ts";
import { readRecipe, roundingOf } from "../src/training/recipe.ts";
import { Trainer } from "../src/training/trainer.ts";
import { backendsHere } from "./backends.ts";

const VOCABULARY = 24;
const TIME = 6;
const recipe = readRecipe(
  {
    family: "trilm",
    model: { dim: 256, layers: 1, heads: 4, kvHeads: 2, ffn: 256, context: TIME },
    data: { text: "-", heldOut: ["-"], tokenizer: { train: 300 } },
    batch: 2,
    schedule: { kind: "trilm", p1: 0.01, p2: 0.006, warmup: 1 },
    seed: 2,
    checkpointEvery: 1,
    validateEvery: 1,
    formats: { linear: "tq2_0", other: "f32" },
  },
  "recipe",
);
const model = llama({
  architecture: "llama",
  ...recipe.model,
  vocabulary: VOCABULARY,
  headDim: 64,
  ropePairing: "halves",
});

/** ids (TIME) -> logits (TIME, VOCABULARY) */
function logits({ weights, rope, backend }: Running, ops: Operations, ids: Int32Array): Tensor {
  let x = model.embed(ops, backend.upload(hostTensor([TIME], ids)), weights);
  x = model.block(ops, 0, x, weights, { batch: 1, time: TIME, from: 0 }, rope);
  return ops.linear(model.finalNorm(ops, x, weights), weights.get(model.headWeight)!);
}

for (const name of await backendsHere()) {
  test(`${name}: the packed ternary model has the trained one's logits, within the derived bound`, async () => {
    const backend = await openBackend(name);
    const random = generator(9);
    const ids = (n: number) => Int32Array.from({ length: n }, () => Math.floor(VOCABULARY * random()));
    const rounding = roundingOf(recipe)!;
    const at = { step: 3, steps: 3 };
    const trainer = new Trainer(backend, model, recipe, { steps: 3, rounding });
    for (let step = 1; step <= 3; step++) {
      await trainer.step({ sequences: 2, inputs: ids(2 * TIME), targets: ids(2 * TIME) }, step, 0.01, 0.1);
    }
    const trained = trainer.running(at);
    const weights = await storedWeights(
      model,
      await trainer.parameters(),
      recipe.formats,
      { rounding, at },
      backend,
      {},
    );
    const packed = runStored(model, weights, backend);
    const packedFormats = [...packed.weights.values()].filter(({ format }) => format === "tq2_0");
    expect(packedFormats).toHaveLength(7);

    const text = ids(TIME);
    const ofTrained = await backend.read(backend.scope(() => logits(trained, backend, text)));
    const ofPacked = await backend.read(backend.scope(() => logits(packed, backend, text)));
    const latent = new Map(trained.weights);
    for (const [name, values] of await trainer.parameters()) {
      latent.set(name, backend.upload(hostTensor(trained.weights.get(name)!.shape, values)));
    }
    const ofLatent = await backend.read(
      backend.scope(() => logits({ ...trained, weights: latent }, backend, text)),
    );
    const bounded = await errorBound(backend, (ops) => logits(trained, ops, text));
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
    packed.free();
    trained.free();
    trainer.dispose();
    backend.dispose();
  });
}
