import { expect, it } from "vitest";
import { openReference } from "../backends/reference.ts";
import { decodeWeight } from "../formats/index.ts";
import { generator, normals } from "../tensor/random.ts";
import { hostTensor, type Matrix, matrix } from "../tensor/tensor.ts";
import { bytesOf, type Weight } from "../tensor/weight.ts";
import { bitdelta } from "./bitdelta.ts";
import { decomposition } from "./compressor.ts";
import { deltaCome, groupsOf } from "./delta-come.ts";
import { outputError, toy } from "./toy.suite.ts";

const backend = openReference();
const [rows, cols] = [16, 40];
const Δ = matrix(
  rows,
  cols,
  normals(generator(8), rows * cols).map((d, i) => 0.01 * d * (1 + Math.floor(i / cols))),
);

function lost(of: Matrix, Ŵ: ArrayLike<number>): number {
  return of.data.reduce((sum, w, i) => sum + (w - Ŵ[i]) ** 2, 0);
}

const decoded = (weight: Weight) => decodeWeight(weight).data;

it("bitdelta is mean|Δ|·sign(Δ), of all scales the one of least error", async () => {
  const weight = await decomposition(bitdelta, {}).compress(Δ, { backend });
  const Δ̂ = decoded(weight);
  const α = Δ.data.reduce((sum, d) => sum + Math.abs(d), 0) / Δ.data.length;
  for (const [i, d] of Δ.data.entries()) expect(Δ̂[i]).toBeCloseTo(d < 0 ? -α : α, 4);
  const energy = lost(Δ, new Float32Array(Δ.data.length));
  expect(lost(Δ, Δ̂) / energy).toBeCloseTo(1 - (Δ.data.length * α ** 2) / energy, 5);
  for (const factor of [0.9, 0.99, 1.01, 1.1]) {
    expect(
      lost(
        Δ,
        Δ̂.map((d) => factor * d),
      ),
    ).toBeGreaterThan(lost(Δ, Δ̂));
  }
  expect((8 * bytesOf(weight)) / Δ.data.length).toBeCloseTo(1 + 16 / cols, 10);
});

it("bitdelta with a scale for each row has the same size and less error; the sign of 0 is +", async () => {
  const method = (scales: string) => decomposition(bitdelta, { scales });
  const [whole, rowwise] = await Promise.all(
    ["matrix", "rows"].map((scales) => method(scales).compress(Δ, { backend })),
  );
  expect(bytesOf(rowwise)).toBe(bytesOf(whole));
  expect(lost(Δ, decoded(rowwise))).toBeLessThan(0.9 * lost(Δ, decoded(whole)));
  const mixed = matrix(1, 8, Float32Array.of(0, -0, 1, -1, 0, 0, 0, 0));
  expect([...decoded(await method("matrix").compress(mixed, { backend }))].map(Math.sign)).toEqual([
    1, 1, 1, -1, 1, 1, 1, 1,
  ]);
  expect(() => method("columns")).toThrow("bitdelta: scales");
});

it("delta-come takes the paper's groups of singular vectors at the paper's width, one bit a weight", () => {
  const options = { bits: 1 };
  expect(groupsOf(4096, 4096, options)).toEqual([
    { bits: 8, rank: 2 },
    { bits: 3, rank: 32 },
    { bits: 2, rank: 968 },
  ]);
  for (const [r, c] of [
    [4096, 4096],
    [11008, 4096],
    [256, 768],
  ]) {
    const codes = groupsOf(r, c, options).reduce((sum, { bits, rank }) => sum + bits * rank * (r + c), 0);
    expect(codes / (r * c)).toBeLessThanOrEqual(1);
    expect(codes / (r * c)).toBeGreaterThan(0.98);
  }
});

it("delta-come keeps a delta of rank one in 8 bits, loses less with more bits, and less at the output with calibration", async () => {
  const [u, v] = [normals(generator(2), 32), normals(generator(3), 64)];
  const one = matrix(
    32,
    64,
    Float32Array.from({ length: 32 * 64 }, (_, i) => u[Math.floor(i / 64)] * v[i % 64]),
  );
  const single = await decomposition(deltaCome, { eights: 1, threes: 0, bits: 0.01 }).compress(one, {
    backend,
  });
  expect(lost(one, decoded(single)) / lost(one, new Float32Array(one.data.length))).toBeLessThan(1e-4);

  const layer = toy(48, 64, 11);
  const H = backend.upload(hostTensor([64, 64], layer.H));
  const errors: number[] = [];
  for (const bits of [0.5, 1, 2]) {
    const weight = await decomposition(deltaCome, { bits }).compress(layer.W, { backend });
    errors.push(lost(layer.W, decoded(weight)));
  }
  expect(errors[1]).toBeLessThan(errors[0]);
  expect(errors[2]).toBeLessThan(errors[1]);
  const method = decomposition(deltaCome, { bits: 3 });
  const calibrated = decoded(await method.compress(layer.W, { backend, H }));
  const plain = decoded(await method.compress(layer.W, { backend }));
  expect(outputError(layer, calibrated)).toBeLessThan(outputError(layer, plain));
  backend.free(H);
});

it("delta-come refuses more singular vectors than there are", () => {
  expect(() => decomposition(deltaCome, { eights: 20, threes: 30 }).check({ rows: 40, cols: 64 })).toThrow(
    "delta-come: 50 singular vectors of 40×64",
  );
});
