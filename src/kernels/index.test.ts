import { expect, test } from "vitest";
import { bf16Operations, kernels, operationsOver } from "./index.ts";

test("linear and crossEntropy allow BF16, other operations are passed on as they are", () => {
  const calls: [string, ...unknown[]][] = [];
  const x = { shape: [2, 2], format: "f32" };
  const ops = bf16Operations(
    operationsOver((name, args) => {
      calls.push([name, ...args]);
      return x;
    }),
  );
  expect(Object.keys(ops).sort()).toEqual(Object.keys(kernels).sort());
  ops.linear(x, x);
  ops.crossEntropy(x, x, x);
  ops.rmsNorm(x, x, 0.5);
  expect(calls).toEqual([
    ["linear", x, x, 1],
    ["crossEntropy", x, x, x, 1],
    ["rmsNorm", x, x, 0.5],
  ]);
});
