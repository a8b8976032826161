import { expect, test } from "vitest";
import { openReference } from "../backends/reference.ts";
import { hostTensor } from "../tensor/tensor.ts";
import { adamw } from "./adamw.ts";

const options = { beta1: 0.9, beta2: 0.95, epsilon: 1e-8, clip: 0 };

test("the first step moves every weight by the rate against its gradient's sign, and decays what decays", async () => {
  const backend = openReference();
  const tensor = (...values: number[]) =>
    backend.upload(hostTensor([values.length], Float32Array.from(values)));
  const [matrix, norm] = [tensor(2, -4), tensor(8)];
  const optimizer = adamw(
    backend,
    [
      { tensor: matrix, decays: true, role: "linear" },
      { tensor: norm, decays: false, role: "norm" },
    ],
    options,
  );
  optimizer.step([tensor(3, -5), tensor(0.5)], 1, 0.25, 0.125);
  const decayed = (w: number) => w * (1 - 0.25 * 0.125);
  const [a, b] = await backend.read(matrix);
  expect(a).toBeCloseTo(decayed(2) - 0.25, 6);
  expect(b).toBeCloseTo(decayed(-4) + 0.25, 6);
  expect((await backend.read(norm))[0]).toBeCloseTo(8 - 0.25, 6);
});

test("the gradient's norm is taken over all parameters, and limits the step's moments", async () => {
  const backend = openReference();
  const tensor = (value: number) => backend.upload(hostTensor([1], Float32Array.of(value)));
  const parameters = [tensor(0), tensor(0)].map((t) => ({
    tensor: t,
    decays: true,
    role: "linear" as const,
  }));
  const optimizer = adamw(backend, parameters, { ...options, clip: 1 });
  optimizer.step([tensor(3), tensor(4)], 1, 0.1, 0);
  expect(Math.sqrt((await backend.read(optimizer.squaredNorm))[0])).toBeCloseTo(5, 6);
  // Clipped from (3, 4) to (0.6, 0.8).
  expect((await backend.read(new Map(optimizer.state(0)).get("first")!))[0]).toBeCloseTo(0.1 * 0.6, 6);
  expect((await backend.read(new Map(optimizer.state(1)).get("second")!))[0]).toBeCloseTo(0.05 * 0.64, 6);
});

test("it ends at the minimum of a bowl, and gives back its memory", async () => {
  const backend = openReference();
  const w = backend.keep(backend.upload(hostTensor([2], Float32Array.of(3, -2))));
  const before = backend.bytesInUse;
  const optimizer = adamw(backend, [{ tensor: w, decays: true, role: "linear" }], options);
  for (let step = 1; step <= 400; step++) {
    const [x, y] = await backend.read(w);
    const gradient = backend.upload(hostTensor([2], Float32Array.of(2 * (x - 1), 20 * (y - 0.5))));
    optimizer.step([gradient], step, 0.1 * (1 - step / 401), 0);
    backend.free(gradient);
  }
  const [x, y] = await backend.read(w);
  expect(x).toBeCloseTo(1, 2);
  expect(y).toBeCloseTo(0.5, 2);
  optimizer.dispose();
  expect(backend.bytesInUse).toBe(before);
});
