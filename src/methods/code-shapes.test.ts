import { expect, it } from "vitest";
import { openReference } from "../backends/reference.ts";
import { decodeWeight, encodeWeight, formatByName } from "../formats/index.ts";
import { generator, normals, permutation } from "../tensor/random.ts";
import { type Matrix, matrix } from "../tensor/tensor.ts";
import { bitsByUse, bytesOf, type Part, partsOf, type Weight } from "../tensor/weight.ts";
import { inOrder, likeNeighbours, orderHeight, putBack } from "./column-orders.ts";
import { decomposition } from "./compressor.ts";
import type { Tried } from "./method.ts";
import { reallm } from "./reallm.ts";

const backend = openReference();

function gaussian(rows: number, cols: number, seed: number): Matrix {
  return matrix(rows, cols, normals(generator(seed), rows * cols));
}

/** Columns of two sizes, mixed up. */
function mixed(rows: number, cols: number): Matrix {
  const W = gaussian(rows, cols, 3);
  const large = permutation(generator(4), cols).subarray(0, cols / 2);
  for (const c of large) for (let r = 0; r < rows; r++) W.data[r * cols + c] *= 20;
  return W;
}

function errorOf(W: Matrix, weight: Weight): number {
  const Ŵ = decodeWeight(weight).data;
  return W.data.reduce((sum, w, i) => sum + (w - Ŵ[i]) ** 2, 0);
}

it("orders hold every column once, and columns put back stand where they were", async () => {
  for (const [rows, cols] of [
    [64, 40],
    [128, 300],
    [96, 33],
  ]) {
    const W = gaussian(rows, cols, 1);
    const orders = await likeNeighbours(backend, W);
    expect(orders).toHaveLength(rows / orderHeight(rows));
    for (const order of orders) expect([...order].sort((a, b) => a - b)).toEqual([...order.keys()]);
    const laid = inOrder(W, orders);
    const back = putBack(encodeWeight(formatByName("f32"), [rows, cols], laid.data), orders);
    expect(decodeWeight(back)).toEqual(W);
    expect(bitsByUse(back).permutation).toBe(orders.length * cols * (cols <= 256 ? 8 : 16));
  }
});

it("rows that are no multiple of 64 have blocks that divide them", () => {
  expect([64, 128, 96, 288, 7, 65].map(orderHeight)).toEqual([64, 64, 48, 48, 7, 13]);
});

it("columns of one size come together, and share scales that suit them", async () => {
  const W = mixed(64, 128);
  const [order] = await likeNeighbours(backend, W);
  const size = (c: number) =>
    Array.from({ length: 64 }, (_, r) => W.data[r * 128 + c] ** 2).reduce((a, b) => a + b);
  const large = Array.from(order, (c) => size(c) > 64 * 100);
  expect(large.filter((one, j) => j > 0 && one !== large[j - 1]).length).toBeLessThanOrEqual(2);

  const options = { bits: 2, length: 2, group: 32, rank: 0 };
  const small = (Ŵ: Weight) => {
    const values = decodeWeight(Ŵ).data;
    return W.data.reduce((sum, w, i) => (size(i % 128) > 6400 ? sum : sum + (w - values[i]) ** 2), 0);
  };
  const plain = await decomposition(reallm, options).compress(W, { backend });
  const permuted = await decomposition(reallm, { ...options, permute: true }).compress(W, { backend });
  expect(small(permuted)).toBeLessThan(0.5 * small(plain));
  expect(bytesOf(permuted) - bytesOf(plain)).toBe(128);
});

it("a shared book is one part in all matrices, and serves them nearly as well as their own", async () => {
  const matrices = [gaussian(64, 128, 5), gaussian(128, 64, 6)];
  const compressor = decomposition(reallm, { bits: 2, length: 4, rank: 0, share: true });
  const survey = compressor.survey!();
  for (const [i, W] of matrices.entries()) await survey.see(W, { backend, name: `m${i}` });
  const shared = await survey.choose();
  const books = new Set<Part>();
  for (const W of matrices) {
    const weight = await shared.compress(W, { backend });
    for (const [path, part] of partsOf(weight)) if (path.includes("book")) books.add(part);
    expect(errorOf(W, weight) / W.data.length).toBeLessThan(0.11);
  }
  expect(books.size).toBe(1);
});

it("matrices of a block, or of a kind, share a book of their own", async () => {
  const names = ["l.0.q.weight", "l.0.v.weight", "l.1.q.weight", "l.1.v.weight"];
  const bookOf = async (share: boolean | string) => {
    const survey = decomposition(reallm, { bits: 2, rank: 0, share }).survey!();
    for (const [i, name] of names.entries())
      await survey.see(gaussian(16, 32, i), { backend, name }, [name, `${name}2`]);
    const shared = await survey.choose();
    const books: Part[] = [];
    for (const [i, name] of names.entries()) {
      for (const [path, part] of partsOf(await shared.compress(gaussian(16, 32, i), { backend, name })))
        if (path.includes("book")) books.push(part);
    }
    return books.map((book) => books.indexOf(book));
  };
  expect(await bookOf(true)).toEqual([0, 0, 0, 0]);
  expect(await bookOf("block")).toEqual([0, 0, 2, 2]);
  expect(await bookOf("kind")).toEqual([0, 1, 0, 1]);
});

it("a shared book counts in a budget, and one of more than 5 % of the codes of all is left out", async () => {
  const survey = decomposition(reallm, { bits: 2.5, shape: "auto", share: true, rounds: 1 }).survey!();
  const W = gaussian(64, 64, 8);
  const names = Array.from({ length: 4 }, (_, i) => `m${i}`);
  await survey.see(W, { backend, name: "m0" }, names);
  const told: Tried[] = [];
  const left: string[] = [];
  const tried = (shapes: readonly Tried[], out: readonly string[]) => {
    told.push(...shapes);
    left.push(...out);
  };
  const weight = await (await survey.choose()).compress(W, { backend, name: "m0", tried });
  const { codebooks = 0, ...own } = bitsByUse(weight);
  const bits = Object.values(own).reduce((a, b) => a + b, 0) / W.data.length;
  expect(bits + codebooks / (4 * W.data.length)).toBeLessThanOrEqual(2.5);
  expect(codebooks).toBeLessThan(0.05 * 4 * own.codes!);
  expect(told.map(({ name }) => name).join()).not.toMatch(/d=8/);
  expect(left.some((one) => /^d=8.*its book takes \d+ % of its codes/.test(one))).toBe(true);
});

it("of the shapes that fit a budget the one with the least error is kept, and all are told", async () => {
  const W = gaussian(128, 128, 7);
  const told: Tried[] = [];
  const left: string[] = [];
  const tried = (shapes: readonly Tried[], out: readonly string[]) => {
    told.push(...shapes);
    left.push(...out);
  };
  const compressor = decomposition(reallm, { bits: 2.5, shape: "auto", rounds: 3 });
  const weight = await compressor.compress(W, { backend, tried });
  expect(told.length).toBeGreaterThan(3);
  for (const { bits } of told) expect(bits).toBeLessThanOrEqual(2.5);
  const least = told.reduce((a, b) => (b.error < a.error ? b : a));
  expect(errorOf(W, weight)).toBeCloseTo(least.error, 2);
  expect((8 * bytesOf(weight)) / W.data.length).toBeCloseTo(least.bits, 6);
  expect(left.some((one) => /its book takes \d+ % of its codes/.test(one))).toBe(true);
});

it("a budget that no shape meets is refused with the nearest", () => {
  const compressor = decomposition(reallm, { bits: 0.6, shape: "auto", group: 64 });
  expect(() => compressor.check({ rows: 64, cols: 64 })).toThrow(
    /^reallm: no shape of 64×64 takes 0.6 bits a weight or fewer; the nearest takes [\d.]+$/,
  );
});
