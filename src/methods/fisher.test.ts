import { readdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { expect, it } from "vitest";
import { Tape } from "../autograd/tape.ts";
import { openReference } from "../backends/reference.ts";
import { decodeWeight } from "../formats/index.ts";
import { ropeTable } from "../models/rope-table.ts";
import { hostTensor, type Tensor } from "../tensor/tensor.ts";
import { openFisher } from "./fisher.ts";
import { sourceOf, tinyModel } from "./tiny-model.suite.ts";

const calibration = [Int32Array.of(3, 1, 4, 1, 5, 9), Int32Array.of(2, 6, 5), Int32Array.of(7)];

it("is the sum of the squared gradients of each sequence's mean loss, and frees everything", async () => {
  const backend = openReference();
  const model = tinyModel(2);
  const source = sourceOf(model);
  const temporaries = () => readdirSync(tmpdir()).filter((name) => name.startsWith("lowbit-activations-"));
  const before = temporaries();
  for (const limit of [2 ** 20, 0]) {
    const steps: number[] = [];
    const fisher = await openFisher({ model, source, backend }, calibration, limit, {
      onProgress: ({ done }) => steps.push(done),
    });
    expect(backend.bytesInUse()).toBe(0);
    expect(steps).toEqual(Array.from({ length: 3 * 6 }, (_, n) => n));
    const expected = await squaredGradients();
    for (const [name, squares] of expected) {
      const F = await fisher.of(name);
      const scale = Math.max(...squares);
      expect(scale).toBeGreaterThan(0);
      for (const [k, square] of squares.entries()) expect(Math.abs(F[k] - square)).toBeLessThan(1e-4 * scale);
    }
    await fisher.close();
  }
  expect(temporaries()).toEqual(before);

  /** Through the whole model at once. */
  async function squaredGradients() {
    const sums = new Map<string, Float64Array>();
    for (const ids of calibration.filter(({ length }) => length > 1)) {
      const own = openReference();
      const weights = new Map<string, Tensor>();
      for (const { name, shape } of model.tensors) {
        const { data } = decodeWeight(await source.read(name));
        weights.set(name, own.upload(hostTensor(shape, data)));
      }
      const linears = model.tensors.filter(({ role }) => role === "linear").map(({ name }) => name);
      const tape = new Tape(
        own,
        linears.map((name) => weights.get(name)!),
      );
      const n = ids.length;
      const i32 = (data: Int32Array) => own.upload(hostTensor([data.length], data));
      own.scope(() => {
        let x = model.embed(tape, i32(ids), weights);
        const rope = own.upload(ropeTable(model.config, n));
        for (let i = 0; i < 2; i++)
          x = model.block(tape, i, x, weights, { batch: 1, time: n, from: 0 }, rope);
        const hidden = model.finalNorm(tape, x, weights);
        const losses = tape.crossEntropy(
          hidden,
          weights.get(model.headWeight)!,
          i32(Int32Array.of(...ids.subarray(1), -1)),
        );
        const share = Float32Array.from({ length: n }, (_, t) => (t + 1 < n ? 1 / (n - 1) : 0));
        tape.backward(losses, own.upload(hostTensor([n], share)));
      });
      for (const name of linears) {
        const gradient = await own.read(tape.gradients.get(weights.get(name)!)!);
        const sum = sums.get(name) ?? new Float64Array(gradient.length);
        sums.set(
          name,
          sum.map((value, k) => value + gradient[k] ** 2),
        );
      }
    }
    return sums;
  }
});

it("stops when it is told to, and leaves nothing", async () => {
  const backend = openReference();
  const model = tinyModel(1);
  const signal = AbortSignal.abort(new Error("enough"));
  const input = { model, source: sourceOf(model), backend };
  await expect(openFisher(input, calibration, 0, { signal })).rejects.toThrow("enough");
  expect(backend.bytesInUse()).toBe(0);
});
