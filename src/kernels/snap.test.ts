import { expect, test } from "vitest";
import { Tape } from "../autograd/tape.ts";
import { openReference } from "../backends/reference.ts";
import { hostTensor } from "../tensor/tensor.ts";

const backend = openReference();
const floats = (shape: readonly number[], ...data: number[]) =>
  backend.upload(hostTensor(shape, Float32Array.from(data)));

// Levels −1, 0, 1 in steps of 2 for the first two weights of a row, of ½ around 1 for the others.
const grid = () =>
  [
    backend.upload(hostTensor([1, 4], Int32Array.of(1, 2, 0, 2))),
    floats([3], -1, 0, 1),
    floats([1, 2], 2, 0.5),
    floats([1, 2], 0, 1),
  ] as const; // weights 0, 2, ½, 1½

async function snapped(keepsZeros: number, ...d: number[]) {
  const moved = floats([1, 4], ...d);
  const tape = new Tape(backend, [moved]);
  const y = tape.snap(moved, ...grid(), keepsZeros);
  const values = await backend.read(y);
  tape.backward(y, floats([1, 4], 1, 2, 3, 4));
  return [[...values], [...(await backend.read(tape.gradients.get(moved)!))]];
}

test("a moved weight goes to the nearest value of its group, of two as near to the lower level", async () => {
  expect((await snapped(0, 0, 0, 0, 0))[0]).toEqual([0, 2, 0.5, 1.5]);
  expect((await snapped(0, 1.1, -9, 0.3, 9))[0]).toEqual([2, -2, 1, 1.5]);
  expect((await snapped(0, 1, 0, 0.25, 0))[0]).toEqual([0, 2, 0.5, 1.5]);
});

test("the gradient passes straight through, but for zeros that are kept", async () => {
  expect((await snapped(0, 5, 5, 5, 5))[1]).toEqual([1, 2, 3, 4]);
  expect(await snapped(1, 5, 5, 5, 5)).toEqual([
    [0, 2, 1.5, 1.5],
    [0, 2, 3, 4],
  ]);
});
