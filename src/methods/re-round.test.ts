import { expect, test } from "vitest";
import { openReference } from "../backends/reference.ts";
import { type Matrix, matrix } from "../tensor/tensor.ts";
import { reRound, rowFactors } from "./re-round.ts";
import { outputError, toy } from "./toy.suite.ts";

const backend = openReference();

function rounded(W: Matrix): Matrix {
  return matrix(
    W.rows,
    W.cols,
    W.data.map((w) => Math.trunc(w)),
  );
}

test.each([
  [1, 1, 128],
  [4, 1, 8],
  [2, 5, 4],
])(
  "a sweep over %i columns, %i rows at a time, in blocks of %i ends where no change of its last columns would help",
  async (together, rowsTogether, block) => {
    const layer = toy(10, 24, 4);
    const Ŵ = rounded(layer.W);
    const before = outputError(layer, Ŵ.data);
    const told = Ŵ.data.slice();
    let offered: Float32Array = new Float32Array();
    await reRound(
      backend,
      layer.W,
      Ŵ,
      layer.H,
      { together, rowsTogether, block, damping: 1e-9 },
      (_, T) => {
        offered = T.map((t) => Math.trunc(t + Math.sign(t) / 2));
        return offered;
      },
      (first, row) => {
        for (let r = row; r < Math.min(10, row + rowsTogether); r++) {
          for (let j = 0; j < together; j++) told[r * 24 + first + j] = offered[j * 10 + r];
        }
      },
    );
    expect(Ŵ.data).toEqual(told);
    expect(outputError(layer, Ŵ.data)).toBeLessThan(before);
  },
);

test("targets are the minimum: what is offered exactly leaves no error in one column", async () => {
  // With one column free, and taken as it is, the gradient (E·H)_J is 0 there.
  const layer = toy(3, 6, 5);
  const Ŵ = rounded(layer.W);
  await reRound(
    backend,
    layer.W,
    Ŵ,
    layer.H,
    { damping: 1e-9 },
    (first, T) => (first === 5 ? T : T.map(() => 1e6)),
    () => {},
  );
  for (let r = 0; r < 3; r++) {
    let slope = 0;
    for (let k = 0; k < 6; k++) slope += (layer.W.data[r * 6 + k] - Ŵ.data[r * 6 + k]) * layer.H[k * 6 + 5];
    expect(Math.abs(slope)).toBeLessThan(1e-5);
  }
});

test("factors of rows are the best", async () => {
  const layer = toy(6, 12, 6);
  const Ŵ = rounded(layer.W);
  Ŵ.data.fill(0, 0, 12);
  const factors = await rowFactors(backend, layer.W, Ŵ, layer.H);
  expect(factors[0]).toBe(1);
  const error = (more: number) =>
    outputError(
      layer,
      Ŵ.data.map((w, i) => w * (factors[Math.floor(i / 12)] + more)),
    );
  expect(error(0)).toBeLessThan(error(0.01));
  expect(error(0)).toBeLessThan(error(-0.01));
});
