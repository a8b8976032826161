import { expect, it } from "vitest";
import { openBackend } from "../backends/index.ts";
import { openReference } from "../backends/reference.ts";
import { decodeWeight } from "../formats/index.ts";
import { generator, normals } from "../tensor/random.ts";
import { hostTensor, matrix } from "../tensor/tensor.ts";
import { bitsByUse, bytesOf, describeWeight } from "../tensor/weight.ts";
import { decomposition } from "./compressor.ts";
import { outputError, toy } from "./toy.suite.ts";
import { vptq } from "./vptq.ts";

const backend = await openBackend("native", {}).catch(() => openReference());

it("of Gaussian weights vectors of two lose what k-means loses", async () => {
  const W = matrix(256, 128, normals(generator(3), 256 * 128));
  const weight = await decomposition(vptq, { length: 2 }).compress(W, { backend });
  const Ŵ = decodeWeight(weight).data;
  const lost = W.data.reduce((sum, w, i) => sum + (w - Ŵ[i]) ** 2, 0) / W.data.length;
  expect(lost).toBeLessThan(0.112); // methods.md 2.2: 0.109
});

it("with calibration it loses a fraction at the output, and a residual or an outlier book lowers it further", async () => {
  const layer = toy(64, 96, 4);
  const H = backend.upload(hostTensor([96, 96], layer.H));
  const errorOf = async (options: object, calibrated = true) => {
    const method = decomposition(vptq, { outliers: 0, length: 2, ...options });
    const weight = await method.compress(layer.W, calibrated ? { backend, H } : { backend });
    return outputError(layer, decodeWeight(weight).data);
  };
  const own = await errorOf({});
  expect(own).toBeLessThan(0.6 * (await errorOf({}, false)));
  expect(await errorOf({ bits: 3, residual: 2 })).toBeLessThan(0.6 * own);
  expect(await errorOf({ outliers: 0.1 })).toBeLessThan(own);
  backend.free(H);
});

it("is stored as books whose vectors run down the columns, outlier columns at their places", async () => {
  const layer = toy(64, 96, 4);
  const H = backend.upload(hostTensor([96, 96], layer.H));
  const method = decomposition(vptq, { length: 4, bits: 1.5, residual: 2, outliers: 0.05 });
  const weight = await method.compress(layer.W, { backend, H });
  expect(describeWeight(weight)).toBe(
    "scaleRows(sum(codebook(f16), codebook(f16), placeColumns(codebook(f16))))",
  );
  const split = bitsByUse(weight);
  expect(split).toEqual({
    codes: (64 / 4) * (96 * (4 + 2) + 8 * Math.ceil((5 * 4) / 8)),
    codebooks: (16 + 4 + 16) * 4 * 16,
    permutation: 5 * 16,
    magnitudes: 64 * 16,
  });
  expect(Object.values(split).reduce((a, b) => a + b!)).toBe(8 * bytesOf(weight));
  backend.free(H);
});

it.each([
  [{ length: 5 }, "vptq: vectors of 5 do not fill columns of 64; take 1, 2, 4, 8, 16, 32"],
  [{ length: 8 }, "vptq: a book of 65536 entries is larger than the 768 vectors of 64×96"],
  [{ length: 2, residual: 4 }, "leave 0 for a code; that has to be 1 to 16"],
])("vptq refuses %o", (options, message) => {
  expect(() => decomposition(vptq, options).check({ rows: 64, cols: 96 })).toThrow(message);
});

it("calibration that is not a number is refused", async () => {
  const H = backend.upload(hostTensor([8, 8], new Float32Array(64).fill(Number.NaN)));
  const work = decomposition(vptq, { length: 2 }).compress(matrix(16, 8), { backend, H });
  await expect(work).rejects.toThrow("vptq: calibration data gives an H that is not finite");
  backend.free(H);
});
