import { expect, it } from "vitest";
import { openBackend } from "../backends/index.ts";
import { openReference } from "../backends/reference.ts";
import { decodeWeight } from "../formats/index.ts";
import { generator, normals } from "../tensor/random.ts";
import { hostTensor, matrix } from "../tensor/tensor.ts";
import { bitsByUse, bytesOf, describeWeight } from "../tensor/weight.ts";
import { aqlm } from "./aqlm.ts";
import { decomposition } from "./compressor.ts";
import { outputError, toy } from "./toy.suite.ts";

const backend = await openBackend("native", {}).catch(() => openReference());

// k-means of vectors of 4 with 256 entries loses 0.0944 (methods.md 2.2).
it.each([
  [{ length: 8, books: 2 }, 256, 0.095],
  [{ length: 4, books: 1 }, 256, 0.095],
  [{ length: 4, books: 2 }, 16, 0.105],
])("of Gaussian weights %o loses what is known", async (options, entries, most) => {
  const W = matrix(128, 512, normals(generator(3), 128 * 512));
  const weight = await decomposition(aqlm, { ...options, entries }).compress(W, { backend });
  const Ŵ = decodeWeight(weight).data;
  const lost = W.data.reduce((sum, w, i) => sum + (w - Ŵ[i]) ** 2, 0) / W.data.length;
  expect(lost).toBeLessThan(most);
  expect(lost).toBeGreaterThan(0.0625);
});

it("more rounds never lose more at the output, and a wide beam loses less than a narrow one", async () => {
  const layer = toy(48, 64, 4);
  const H = backend.upload(hostTensor([64, 64], layer.H));
  const errorOf = async (options: object) => {
    const weight = await decomposition(aqlm, { entries: 8, books: 2, ...options }).compress(layer.W, {
      backend,
      H,
    });
    return outputError(layer, decodeWeight(weight).data);
  };
  const rounds = [];
  for (const n of [0, 1, 2, 4, 8]) rounds.push(await errorOf({ rounds: n, tolerance: 0 }));
  // Books and scales are rounded to fp16 at the end: parts in ten thousand.
  for (const [i, error] of rounds.entries()) if (i > 0) expect(error).toBeLessThan(1.001 * rounds[i - 1]);
  expect(rounds[4]).toBeLessThan(0.95 * rounds[0]);
  expect(await errorOf({ beam: 8 })).toBeLessThan(await errorOf({ beam: 1 }));
  backend.free(H);
});

it("is stored as scaled rows of a sum of books, the fewest that stay small beside the codes", async () => {
  const W = matrix(64, 128, normals(generator(5), 64 * 128));
  const weight = await decomposition(aqlm, { books: 2, entries: 4 }).compress(W, { backend });
  expect(describeWeight(weight)).toBe("scaleRows(sum(codebook(f16), codebook(f16)))");
  const split = bitsByUse(weight);
  expect(split).toEqual({ codes: 64 * 128, codebooks: 2 * 4 * 4 * 16, magnitudes: 64 * 16 });
  expect(Object.values(split).reduce((a, b) => a + b)).toBe(8 * bytesOf(weight));
  for (const [rows, cols, count] of [
    [256, 256, 2],
    [768, 256, 1],
  ]) {
    const large = matrix(rows, cols, normals(generator(6), rows * cols));
    const { codes, codebooks } = bitsByUse(
      await decomposition(aqlm, { rounds: 0, beam: 1 }).compress(large, { backend }),
    );
    expect(codes).toBe(2 * rows * cols);
    expect(codebooks).toBe(count === 2 ? 2 * 16 * 4 * 16 : 256 * 4 * 16);
    expect(codebooks! / codes!).toBeLessThan(0.05);
  }
});

it.each([
  [{ length: 3 }, "aqlm: vectors of 3 do not fill rows of 128; take 1, 2, 4, 8, 16, 32"],
  [{ length: 8, books: 1 }, "aqlm: a book of 65536 entries is larger than the 1024 vectors of 64×128"],
  [{ beams: 2 }, "aqlm: unknown key beams; did you mean beam?"],
])("aqlm refuses %o", (options, message) => {
  expect(() => decomposition(aqlm, options).check({ rows: 64, cols: 128 })).toThrow(message);
});

it("calibration that is not a number is refused", async () => {
  const H = backend.upload(hostTensor([8, 8], new Float32Array(64).fill(Number.NaN)));
  const work = decomposition(aqlm, { entries: 4 }).compress(matrix(4, 8), { backend, H });
  await expect(work).rejects.toThrow("aqlm: calibration data gives an H that is not finite");
  backend.free(H);
});
