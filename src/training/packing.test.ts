import { expect, test } from "vitest";
import { tinyRecipe } from "../../test/tiny-training.ts";
import { openBackend } from "../backends/index.ts";
import { llama } from "../models/llama.ts";
import { generator } from "../tensor/random.ts";
import { type Batch, predicted } from "./batches.ts";
import { windowsOf } from "./packing.ts";
import { readRecipe } from "./recipe.ts";
import type { TokenFile } from "./token-file.ts";
import { Trainer } from "./trainer.ts";

/** Documents of these lengths; the ids count through all of them, so that an id says where it stands. */
function counting(lengths: readonly number[]): TokenFile {
  const starts = [0];
  for (const length of lengths) starts.push(starts[starts.length - 1] + length);
  return {
    length: starts[lengths.length],
    documents: lengths.length,
    start: (document) => starts[document],
    slice: async (from, to) => Int32Array.from({ length: to - from }, (_, i) => from + i),
  };
}

const all = (count: number) => Array.from({ length: count }, (_, i) => i);

test("every token but the first of each document is a target once, and no input's successor is of another document", async () => {
  const random = generator(5);
  const lengths = Array.from({ length: 200 }, () => 1 + Math.floor(random() * 40));
  const file = counting(lengths);
  const windows = windowsOf("documents", file, 16, 3);
  const batch = await windows.batch(all(windows.count));
  expect(batch.inputs.length).toBe(16 * windows.count);
  const targets: number[] = [];
  for (const [i, target] of batch.targets.entries()) {
    if (target === -1) expect(batch.inputs[i]).toBe(0);
    else {
      expect(target).toBe(batch.inputs[i] + 1);
      targets.push(target);
    }
  }
  const firsts = new Set(lengths.map((_, d) => file.start(d)));
  expect(targets.sort((a, b) => a - b)).toEqual(all(file.length).filter((id) => !firsts.has(id)));
  expect(windows.padding).toBeCloseTo(1 - predicted(batch) / batch.targets.length, 12);
});

test("no piece lies in a later window than one that has room for it", async () => {
  const random = generator(9);
  for (let seed = 0; seed < 20; seed++) {
    const lengths = Array.from({ length: 30 }, () => 2 + Math.floor(random() * 12));
    const windows = windowsOf("documents", counting(lengths), 8, seed);
    const rooms: number[] = [];
    for (const window of all(windows.count)) {
      const { targets } = await windows.batch([window]);
      const used = targets.filter((target) => target !== -1);
      const starts = [...used.keys()].filter((i) => i === 0 || used[i - 1] !== used[i] - 1);
      for (const [p, from] of starts.entries()) {
        const length = (starts[p + 1] ?? used.length) - from;
        for (const room of rooms) expect(length).toBeGreaterThan(room);
      }
      rooms.push(8 - used.length);
    }
  }
});

test("windows depend on the seed; of one stream they do not", async () => {
  const file = counting([5, 9, 3, 7, 4, 8, 6, 2]);
  const ids = async (packing: "documents" | "continuous", seed: number) => {
    const windows = windowsOf(packing, file, 8, seed);
    return [...(await windows.batch(all(windows.count))).inputs];
  };
  expect(await ids("documents", 1)).toEqual(await ids("documents", 1));
  expect(await ids("documents", 1)).not.toEqual(await ids("documents", 2));
  expect(await ids("continuous", 1)).toEqual(await ids("continuous", 2));
  expect(await ids("continuous", 1)).toEqual(all(40));
});

test("a text of no pairs has no windows", () => {
  expect(windowsOf("documents", counting([1, 1]), 8, 1)).toMatchObject({ count: 0, padding: 0 });
});

test("padding counts in no loss: a step on padded windows is a step on what they hold", async () => {
  const recipe = readRecipe({ ...tinyRecipe("text", "float"), microBatch: 1 }, "recipe");
  const config = {
    architecture: "llama",
    ...recipe.model,
    vocabulary: 20,
    headDim: 8,
    ropePairing: "halves",
  } as const;
  const stepOn = async (batch: Batch) => {
    const backend = await openBackend({ backend: "reference" });
    const trainer = new Trainer(backend, llama(config), recipe, { steps: 1 });
    const { loss, gradientNorm } = await trainer.step(batch, 1, 0.01, 0);
    trainer.dispose();
    backend.dispose();
    return [loss, gradientNorm];
  };
  const ids = (length: number) => Int32Array.from({ length }, (_, i) => (7 * i) % 20);
  const short = { sequences: 1, inputs: ids(9), targets: ids(10).subarray(1) };
  const inputs = new Int32Array(16);
  const targets = new Int32Array(16).fill(-1);
  inputs.set(short.inputs);
  targets.set(short.targets);
  const [a, b] = [await stepOn(short), await stepOn({ sequences: 1, inputs, targets })];
  expect(b[0]).toBeCloseTo(a[0], 5);
  expect(b[1]).toBeCloseTo(a[1], 5);
});
