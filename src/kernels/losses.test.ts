import { describe, expect, test } from "vitest";
import { generator, normals } from "../tensor/random.ts";
import type { Tensor } from "../tensor/tensor.ts";
import type { Kernel } from "./kernel.ts";
import { layerNorm } from "./layer-norm.ts";
import { matchStates } from "./match-states.ts";
import { relu2glu } from "./relu2glu.ts";
import { softLoss } from "./soft-loss.ts";
import { elementsView } from "./view.ts";

const random = generator(5);
const shape = [3, 12];
const values = (scale = 1) => normals(random, 36, scale);

/** Outputs of a kernel over tensors of one shape. */
function run(kernel: Kernel<never>, inputs: readonly Float32Array[], rest: readonly number[]) {
  const { outputs, numbers, forward } = kernel as unknown as Kernel;
  const tensors = inputs.map(() => ({ shape, format: "f32" }) as unknown as Tensor);
  const views = inputs.map((data) => elementsView(shape, data));
  const made = outputs(...tensors, ...rest).map((output) =>
    elementsView(output.shape, new Float32Array(output.shape.reduce((a, b) => a * b, 1))),
  );
  const all = numbers(...tensors, ...rest);
  forward(views, made, all);
  return { views, made, all };
}

describe.each<[string, Kernel<never>, number, readonly number[]]>([
  ["layerNorm", layerNorm as never, 1, [1e-5]],
  ["relu2glu", relu2glu as never, 2, []],
  ["softLoss forward", softLoss as never, 2, [0, 0]],
  ["softLoss reverse", softLoss as never, 2, [1, 0]],
  ["softLoss topk", softLoss as never, 2, [2, 4]],
  ["matchStates", matchStates as never, 2, []],
])("%s", (_, kernel, count, rest) => {
  test("its gradient is that of finite differences", () => {
    const inputs = Array.from({ length: count }, () => values());
    const { views, made, all } = run(kernel, inputs, rest);
    const dy = elementsView(made[0].shape, normals(generator(6), made[0].data.length));
    for (const i of kernel.differentiable) {
      const gradients = inputs.map((_, j) => (i === j ? elementsView(shape, new Float32Array(36)) : null));
      kernel.backward(views, made, dy, gradients, all);
      const along = (at: number, moved: number) => {
        const changed = inputs.map((data, j) =>
          j === i ? data.map((v, k) => (k === at ? v + moved : v)) : data,
        );
        return run(kernel, changed, rest).made[0].data.reduce((sum, v, k) => sum + v * dy.data[k], 0);
      };
      for (let at = 0; at < 36; at += 5) {
        const slope = (along(at, 1e-2) - along(at, -1e-2)) / 2e-2;
        expect(Math.abs(gradients[i]!.data[at] - slope)).toBeLessThan(2e-3 * (1 + Math.abs(slope)));
      }
    }
  });
});

describe("softLoss", () => {
  const [logits, teacher] = [values(2), values(2)];
  const loss = (rule: number, k: number, a = logits, b = teacher) =>
    run(softLoss as never, [a, b], [rule, k]).made[0].data;
  const distribution = (data: Float32Array, t: number) => {
    const exps = Array.from(data.subarray(12 * t, 12 * t + 12), Math.exp);
    const sum = exps.reduce((a, b) => a + b, 0);
    return exps.map((e) => e / sum);
  };
  const divergence = (p: number[], q: number[]) => p.reduce((sum, v, i) => sum + v * Math.log(v / q[i]), 0);

  test("forward and reverse are the two divergences", () => {
    for (let t = 0; t < 3; t++) {
      const [q, p] = [logits, teacher].map((data) => distribution(data, t));
      expect(loss(0, 0)[t]).toBeCloseTo(divergence(p, q), 5);
      expect(loss(1, 0)[t]).toBeCloseTo(divergence(q, p), 5);
    }
  });

  test("topk is above 0, the reverse one with all words, and 0 of equal distributions", () => {
    for (const k of [1, 3, 11]) for (const value of loss(2, k)) expect(value).toBeGreaterThan(0);
    for (let t = 0; t < 3; t++) expect(loss(2, 12)[t]).toBeCloseTo(loss(1, 0)[t], 5);
    const shifted = logits.map((l) => l + 3);
    for (const [rule, k] of [
      [0, 0],
      [1, 0],
      [2, 4],
    ]) {
      for (const value of loss(rule, k, logits, shifted)) expect(Math.abs(value)).toBeLessThan(1e-6);
    }
  });
});

test("matchStates is 2 − 2·cos, whatever the lengths; layerNorm has mean 0 and deviation 1", () => {
  const [a, b] = [values(), values()];
  const loss = run(matchStates as never, [a, b.map((v) => 7 * v)], []).made[0].data;
  const normed = run(layerNorm as never, [a.map((v) => 3 + 5 * v)], [0]).made[0].data;
  for (let t = 0; t < 3; t++) {
    const [x, y] = [a, b].map((data) => data.subarray(12 * t, 12 * t + 12));
    const dot = (u: Float32Array, v: Float32Array) => u.reduce((sum, value, i) => sum + value * v[i], 0);
    expect(loss[t]).toBeCloseTo(2 - (2 * dot(x, y)) / Math.sqrt(dot(x, x) * dot(y, y)), 5);
    const row = normed.subarray(12 * t, 12 * t + 12);
    expect(row.reduce((sum, v) => sum + v, 0)).toBeCloseTo(0, 5);
    expect(dot(row, row) / 12).toBeCloseTo(1, 5);
  }
});
