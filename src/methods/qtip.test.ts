import { expect, it } from "vitest";
import { openBackend } from "../backends/index.ts";
import { openReference } from "../backends/reference.ts";
import { decodeWeight, encodeWeight, formatByName } from "../formats/index.ts";
import { generator, normals } from "../tensor/random.ts";
import { hostTensor, type Matrix, matrix } from "../tensor/tensor.ts";
import { decomposition } from "./compressor.ts";
import { qtip } from "./qtip.ts";
import { rotated, rotatedHessian, rotationBlock, rotationOf, unrotated } from "./rotation.ts";
import { outputError, toy } from "./toy.suite.ts";

const backend = await openBackend("wasm", {}).catch(() => openReference());

it.each([
  [64, 96],
  [12, 352],
  [7, 16],
])(
  "a rotation of %i×%i is undone by what is stored of it, and keeps every output error",
  async (rows, cols) => {
    const { W, H } = toy(rows, cols, 3);
    const by = rotationOf(rows, cols, 1);
    const turned = await rotated(backend, W, by);
    const stored = encodeWeight(formatByName("f32"), [rows, cols], turned.data);
    const back = decodeWeight(unrotated(stored, by)).data;
    for (const [i, w] of W.data.entries()) expect(Math.abs(back[i] - w)).toBeLessThan(1e-5);
    const H2 = await rotatedHessian(backend, H, by);
    expect(energy(turned, H2) / energy(W, H)).toBeCloseTo(1, 4);
  },
);

it("blocks of a rotation are the largest powers of two", () => {
  expect([256, 768, 352, 5].map(rotationBlock)).toEqual([256, 256, 32, 1]);
});

it("a matrix of one large weight becomes one whose weights are alike", async () => {
  const W = matrix(16, 64);
  W.data[70] = 8;
  const { data } = await rotated(backend, W, rotationOf(16, 64, 2));
  for (const w of data) expect(Math.abs(w)).toBeCloseTo(8 / Math.sqrt(16 * 64), 5);
});

// Bounds of any code are 0.0625, 0.0156 and 0.0039; methods.md 2.2 computed 0.0725, 0.0196 and 0.0059.
it.each([
  [2, 0.077],
  [3, 0.0215],
  [4, 0.0062],
])("of Gaussian weights %i bits lose at most %f of the variance", async (bits, most) => {
  const W = matrix(128, 128, normals(generator(6), 128 * 128));
  const weight = await decomposition(qtip, { bits }).compress(W, { backend });
  const Ŵ = decodeWeight(weight).data;
  const lost = W.data.reduce((sum, w, i) => sum + (w - Ŵ[i]) ** 2, 0) / W.data.length;
  expect(lost).toBeLessThan(most);
  expect(lost).toBeGreaterThan(4 ** -bits);
});

it("with calibration it loses less than half at the output of what it loses without, also of few rows", async () => {
  const layer = toy(70, 128, 7);
  const H = backend.upload(hostTensor([128, 128], layer.H));
  const method = decomposition(qtip, {});
  const spread = decodeWeight(await method.compress(layer.W, { backend, H })).data;
  const plain = decodeWeight(await method.compress(layer.W, { backend })).data;
  expect(outputError(layer, spread)).toBeLessThan(0.5 * outputError(layer, plain));
  backend.free(H);
});

it("takes rows of any width, and sweeps lower the error at the output", async () => {
  const layer = toy(40, 33, 9);
  const H = backend.upload(hostTensor([33, 33], layer.H));
  const errors: number[] = [];
  for (const sweeps of [0, 2]) {
    const weight = await decomposition(qtip, { sweeps }).compress(layer.W, { backend, H });
    errors.push(outputError(layer, decodeWeight(weight).data));
  }
  expect(errors[1]).toBeLessThan(errors[0]);
  backend.free(H);
});

/** tr(W·H·Wᵀ) */
function energy({ rows, cols, data }: Matrix, H: Float32Array): number {
  let sum = 0;
  for (let r = 0; r < rows; r++) {
    for (let i = 0; i < cols; i++) {
      for (let j = 0; j < cols; j++) sum += data[r * cols + i] * H[i * cols + j] * data[r * cols + j];
    }
  }
  return sum;
}
