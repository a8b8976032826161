import { Worker } from "node:worker_threads";
import { expect, test } from "vitest";
import { generator, normals } from "../tensor/random.ts";
import { hostTensor } from "../tensor/tensor.ts";
import type { HeapBackend } from "./heap.ts";
import { native } from "./native.ts";
import { wasm } from "./wasm.ts";

const openers: readonly (readonly [string, (threads: number) => HeapBackend | Promise<HeapBackend>])[] = [
  ["native", (threads) => native({ threads })],
  ["wasm", (threads) => wasm({ threads })],
];

test.each(openers)("the pool of %s does 10,000 small jobs, each task once", async (_, open) => {
  const backend = await open(3);
  // Three tasks and a bit, of 4096 elements each: see add.cpp.
  const n = 3 * 4096 + 17;
  const one = backend.upload(hostTensor([n], new Float32Array(n).fill(1)));
  let sum = backend.zeros([n]);
  for (let i = 0; i < 10_000; i++) {
    const next = backend.add(sum, one);
    backend.free(sum);
    sum = next;
  }
  expect((await backend.read(sum)).every((value) => value === 10_000)).toBe(true);
  backend.dispose();
});

test.each(openers)("the pool of %s wakes up after a rest", async (_, open) => {
  const backend = await open(2);
  const n = 8 * 4096;
  const one = backend.upload(hostTensor([n], new Float32Array(n).fill(1)));
  for (let i = 0; i < 20; i++) {
    await new Promise((resolve) => setTimeout(resolve, 5));
    const two = await backend.read(backend.scope(() => backend.add(one, one)));
    expect(two.every((value) => value === 2)).toBe(true);
  }
  backend.dispose();
});

test.each(openers)("results of %s have the same bits on 1, 2, 3 and 7 threads", async (_, open) => {
  const [tokens, dim] = [203, 130];
  const random = generator(3);
  const x = hostTensor([tokens, dim], normals(random, tokens * dim));
  const gain = hostTensor([dim], normals(random, dim));
  const dy = hostTensor([tokens, dim], normals(random, tokens * dim));
  const results: unknown[] = [];
  for (const threads of [1, 2, 3, 7]) {
    const backend = await open(threads);
    expect(backend.threads).toBe(threads);
    const args = [backend.upload(x), backend.upload(gain), 1e-5];
    const outputs = backend.forward("rmsNorm", args);
    const gradients = backend.backward("rmsNorm", args, outputs, backend.upload(dy), [true, true]);
    results.push(await Promise.all([...outputs, ...gradients].map((t) => backend.read(t!))));
    backend.dispose();
  }
  for (const result of results) expect(result).toEqual(results[0]);
});

// One worker: opens the addon, runs many operations on numbers of its own, and answers whether all were right.
const LIFE = `
  const { parentPort, workerData } = require("node:worker_threads");
  import(workerData.url).then(async ({ native }) => {
    const backend = native({ threads: 2 });
    const n = 3 * 4096;
    const shape = [n];
    const x = backend.upload({ shape, format: "f32", data: new Float32Array(n).fill(workerData.value) });
    let wrong = 0;
    for (let i = 0; i < 500; i++) {
      const y = backend.scope(() => backend.add(backend.add(x, x), x));
      if ((await backend.read(y)).some((v) => v !== 3 * workerData.value)) wrong++;
      backend.free(y);
    }
    backend.dispose();
    parentPort.postMessage(wrong);
  });
`;

test("several worker threads use the addon at once, and it outlives them", async () => {
  const url = new URL("./native.ts", import.meta.url).href;
  const answers = [1, 2, 3, 4].map(
    (value) =>
      new Promise((resolve, reject) => {
        const worker = new Worker(LIFE, { eval: true, execArgv: [], workerData: { url, value } });
        let answer: unknown;
        worker.on("message", (wrong) => (answer = wrong));
        worker.on("error", reject);
        worker.on("exit", () => resolve(answer));
      }),
  );
  expect(await Promise.all(answers)).toEqual([0, 0, 0, 0]);
});
