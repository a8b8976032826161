import { expect, it } from "vitest";
import { openBackend } from "../backends/index.ts";
import { openReference } from "../backends/reference.ts";
import { decodeWeight } from "../formats/index.ts";
import { generator, normals } from "../tensor/random.ts";
import { hostTensor, type Matrix, matrix } from "../tensor/tensor.ts";
import { bitsByUse, bytesOf, describeWeight } from "../tensor/weight.ts";
import { choleskyOf } from "./cholesky.ts";
import { decomposition } from "./compressor.ts";
import { kMeans } from "./k-means.ts";
import { lowRankOf } from "./low-rank.ts";
import { reallm } from "./reallm.ts";
import { outputError, planted, toy } from "./toy.suite.ts";
import { vectorCodes } from "./vector-codes.ts";

const backend = await openBackend("wasm", {}).catch(() => openReference());

function squares(data: ArrayLike<number>): number {
  return Array.from(data).reduce((sum, x) => sum + x * x, 0);
}

function away(A: Matrix, B: Matrix): number {
  return squares(A.data.map((a, i) => a - B.data[i])) / squares(A.data);
}

// Known values of Gaussian numbers, per bit (methods.md 2.2; Max, 1960, for vectors of one): optimum 0.1175, 0.109, 0.0944.
it.each([
  [1, 4, 0.12],
  [2, 16, 0.112],
  [4, 256, 0.0965],
])("k-means of vectors of %i with %i entries", async (length, entries, most) => {
  const x = normals(generator(1), 1 << 16);
  const { error, codes, entries: book } = await kMeans(backend, x, { length, entries });
  const own = Array.from(
    x,
    (value, i) => value - book.data[codes[Math.floor(i / length)] * length + (i % length)],
  );
  expect(squares(own) / x.length).toBeCloseTo(error / x.length, 5);
  expect(error / x.length).toBeLessThan(most);
  expect(book.data).toEqual(book.data.map(Math.f16round));
});

it("k-means leaves no entry without vectors where there are enough of them, and counts elements by their weights", async () => {
  // Two far clusters of one vector each, and many near 0: an entry each.
  const x = new Float32Array(2 * 500).map((_, i) => (i < 2 ? 100 : i < 4 ? -100 : (i % 7) * 1e-3));
  const { codes } = await kMeans(backend, x, { length: 2, entries: 3 });
  expect(new Set(codes.subarray(0, 3)).size).toBe(3);
  // Only the second element counts.
  const y = normals(generator(2), 4000);
  const { entries } = await kMeans(backend, y, { length: 2, entries: 4, weights: Float32Array.of(0, 1) });
  const second = [1, 3, 5, 7].map((i) => entries.data[i]).sort((a, b) => a - b);
  for (const [i, level] of [-1.51, -0.453, 0.453, 1.51].entries()) expect(second[i]).toBeCloseTo(level, 0);
});

it("k-means goes on from the entries that it is given, and never to a larger error", async () => {
  const x = normals(generator(5), 8000);
  const options = { length: 2, entries: 16 };
  const early = await kMeans(backend, x, { ...options, rounds: 2 });
  const start = early.entries;
  const same = await kMeans(backend, x, { ...options, start, rounds: 0 });
  expect(same).toEqual(early);
  const later = await kMeans(backend, x, { ...options, start });
  expect(later.error).toBeLessThan(early.error);
  const settled = await kMeans(backend, x, { ...options, start: later.entries });
  expect(settled.error).toBeLessThanOrEqual(later.error);
  await expect(kMeans(backend, x, { length: 4, entries: 16, start })).rejects.toThrow(
    "k-means: begins with entries of 16×2 where the book is 16×4",
  );
});

it("a book learned of a sample first serves all vectors as well, each with its own weight", async () => {
  const [n, length, entries] = [1 << 18, 1, 8];
  const x = normals(generator(6), n);
  // Vectors beyond 1 count nothing: the book is that of the others.
  const weights = x.map((value) => (Math.abs(value) < 1 ? 1 : 0));
  const { entries: book } = await kMeans(backend, x, { length, entries, weights });
  for (const entry of book.data) expect(Math.abs(entry)).toBeLessThan(1);
  const { error } = await kMeans(backend, x, { length, entries });
  expect(error / n).toBeLessThan(0.0352); // optimum 0.0345 (Max, 1960)
});

it("a book larger than its data is refused", async () => {
  await expect(kMeans(backend, new Float32Array(6), { length: 2, entries: 4 })).rejects.toThrow(
    "a book of 4 entries needs as many vectors, got 3",
  );
});

it("a planted low-rank part is recovered, and the error of random matrices is that of the best", async () => {
  const W = planted(60, 90, 8, 0.3);
  const { a, b } = await lowRankOf(backend, W, { rank: 8 });
  expect(away(W, product(a, b))).toBeLessThan(1e-9);
  const noise = matrix(60, 90, normals(generator(3), 60 * 90));
  const u = backend.upload(hostTensor([90, 60], transposed(noise)));
  const [s, v] = [backend.zeros([60]), backend.zeros([60, 60])];
  backend.svd(u, s, v);
  const rest = squares(((await backend.read(s)) as Float32Array).subarray(6)) / squares(noise.data);
  const low = await lowRankOf(backend, noise, { rank: 6 });
  expect(away(noise, product(low.a, low.b))).toBeLessThan(1.01 * rest);
  await expect(lowRankOf(backend, noise, { rank: 61 })).rejects.toThrow("rank of 61 is not in 1 … 60");
});

it("the low rank under H has less output error than that of the matrix alone", async () => {
  const { W, H } = toy(40, 64, 5);
  const L = await choleskyOf(backend, H);
  const weighted = await lowRankOf(backend, W, { rank: 6, weights: { L } });
  const plain = await lowRankOf(backend, W, { rank: 6 });
  const errorOf = ({ a, b }: { a: Matrix; b: Matrix }) => outputError({ W, H }, product(a, b).data);
  expect(errorOf(weighted)).toBeLessThan(0.8 * errorOf(plain));
});

it("with calibration, codes whose errors are spread have a fraction of the output error", async () => {
  const layer = toy(64, 128, 6);
  const options = { length: 2, entries: 16, group: 128 };
  const spread = decodeWeight(await vectorCodes(backend, layer.W, { ...options, H: layer.H })).data;
  const nearest = decodeWeight(
    await vectorCodes(backend, layer.W, { ...options, H: layer.H, nearest: true }),
  ).data;
  expect(outputError(layer, spread)).toBeLessThan(0.4 * outputError(layer, nearest));
});

it("reallm finds what is planted, and its parts add up to what is stored", async () => {
  const spike = planted(64, 128, 4, 1);
  const noise = normals(generator(4), 64 * 128, 0.3);
  const W = matrix(
    64,
    128,
    spike.data.map((x, i) => x + noise[i]),
  );
  const method = decomposition(reallm, { bits: 2, length: 2, group: 64, rank: 4 });
  const weight = await method.compress(W, { backend });
  expect(describeWeight(weight)).toBe("sum(scaleGroups(int8, codebook(f16)), lowRank(f16, f16))");
  // What is left is the noise's own rounding: 0.109 of its variance.
  const lost = squares(W.data.map((w, i) => w - decodeWeight(weight).data[i])) / squares(noise);
  expect(lost).toBeLessThan(0.125);
  const split = bitsByUse(weight);
  expect(split).toEqual({
    codes: 64 * 128 * 2,
    scales: 64 * (2 * 8 + 16),
    codebooks: 16 * 2 * 16,
    "low rank": 4 * (64 + 128) * 16,
  });
  expect(Object.values(split).reduce((a, b) => a + b)).toBe(8 * bytesOf(weight));
});

it.each([
  [{ rank: 65 }, "a rank of 65 is more than 64"],
  [{ group: 48 }, "groups of 48 do not hold whole vectors of 2 and divide rows of 128"],
  [{ length: 8, bits: 2 }, "a book of 65536 entries is larger than the 1024 vectors"],
  [{ length: 3 }, "reallm: length is one of 1, 2, 4, 8, got 3"],
  [{ ranks: 3 }, "reallm: unknown key ranks; did you mean rank?"],
])("reallm refuses %o", (options, message) => {
  const work = () => decomposition(reallm, options).check({ rows: 64, cols: 128 });
  expect(work).toThrow(message);
});

function product(A: Matrix, B: Matrix): Matrix {
  const C = matrix(A.rows, B.cols);
  for (let r = 0; r < A.rows; r++) {
    for (let k = 0; k < A.cols; k++) {
      for (let c = 0; c < B.cols; c++)
        C.data[r * B.cols + c] += A.data[r * A.cols + k] * B.data[k * B.cols + c];
    }
  }
  return C;
}

function transposed({ rows, cols, data }: Matrix): Float32Array {
  return Float32Array.from({ length: rows * cols }, (_, i) => data[(i % rows) * cols + Math.floor(i / rows)]);
}
