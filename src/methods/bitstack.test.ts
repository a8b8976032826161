import { expect, it } from "vitest";
import { openReference } from "../backends/reference.ts";
import { decodeWeight } from "../formats/index.ts";
import { generator, normals } from "../tensor/random.ts";
import { hostTensor, type Matrix, matrix } from "../tensor/tensor.ts";
import { bytesOf, type Weight } from "../tensor/weight.ts";
import { bitstack } from "./bitstack.ts";
import { decomposition } from "./compressor.ts";
import { onebitStart } from "./onebit.ts";
import { rankOne } from "./rank-one.ts";
import { stackOrder } from "./stack-order.ts";
import { toy } from "./toy.suite.ts";

const backend = openReference();
const [rows, cols] = [24, 40];
const W = matrix(rows, cols, normals(generator(4), rows * cols));
const absolute = matrix(rows, cols, W.data.map(Math.abs));

function squares(data: Float32Array): number {
  return data.reduce((sum, w) => sum + w * w, 0);
}

function lost(of: Matrix, weight: Weight): number {
  const Ŵ = decodeWeight(weight).data;
  return squares(of.data.map((w, i) => w - Ŵ[i]));
}

function termsOf({ expression: e }: Weight): readonly Weight[] {
  return e.kind === "sum" ? e.terms : [];
}

it("the best rank one of |W| is that of its first singular vectors, and the fixed point of non-negative factorization", () => {
  const { left, right } = rankOne(absolute);
  const σ1 = Math.sqrt(squares(left) * squares(right));
  expect(squares(absolute.data.map((w, i) => w - left[Math.floor(i / cols)] * right[i % cols]))).toBeCloseTo(
    squares(W.data) - σ1 ** 2,
    2,
  );
  // Lee and Seung's multiplicative updates from another start: h ← h ⊙ (A·g)/(h·gᵀ·g), and the same for g.
  const h = new Float64Array(rows).fill(1);
  const g = Float64Array.from({ length: cols }, (_, c) => 1 + (c % 3));
  const at = (r: number, c: number) => absolute.data[r * cols + c];
  for (let round = 0; round < 50; round++) {
    const gg = g.reduce((sum, x) => sum + x * x, 0);
    for (let r = 0; r < rows; r++) h[r] *= g.reduce((sum, x, c) => sum + at(r, c) * x, 0) / (h[r] * gg);
    const hh = h.reduce((sum, x) => sum + x * x, 0);
    for (let c = 0; c < cols; c++) g[c] *= h.reduce((sum, x, r) => sum + at(r, c) * x, 0) / (g[c] * hh);
  }
  for (let i = 0; i < W.data.length; i++) {
    const [r, c] = [Math.floor(i / cols), i % cols];
    expect(left[r] * right[c]).toBeCloseTo(h[r] * g[c], 5);
  }
});

it("onebit loses 1 − σ₁²/‖W‖² of a matrix, at 1 + 16/rows + 16/cols bits per weight", async () => {
  const weight = await decomposition(onebitStart, {}).compress(W, { backend });
  const { left, right } = rankOne(absolute);
  const share = 1 - (squares(left) * squares(right)) / squares(W.data);
  expect(lost(W, weight) / squares(W.data)).toBeCloseTo(share, 5);
  expect((8 * bytesOf(weight)) / W.data.length).toBeCloseTo(1 + 16 / rows + 16 / cols, 10);
  const zero = await decomposition(onebitStart, {}).compress(matrix(2, 8), { backend });
  expect([...decodeWeight(zero).data].every((w) => w === 0)).toBe(true);
});

it("without calibration a block of rank one is onebit's, and every block takes its own energy away", async () => {
  const weight = await decomposition(bitstack, { blocks: 5, rank: 1 }).compress(W, { backend });
  const terms = termsOf(weight);
  expect(terms).toHaveLength(5);
  const one = decodeWeight(await decomposition(onebitStart, {}).compress(W, { backend })).data;
  for (const [i, w] of decodeWeight(terms[0]).data.entries()) expect(w).toBeCloseTo(one[i], 2);
  let rest = W.data;
  for (const term of terms) {
    const block = decodeWeight(term).data;
    const next = rest.map((w, i) => w - block[i]);
    // ⟨R, sign(R) ⊙ L⟩ = ⟨|R|, L⟩ = ‖L‖², as L is a projection of |R|.
    expect(squares(next) / squares(rest)).toBeCloseTo(1 - squares(block) / squares(rest), 2);
    // The best of rank one takes away no less than the constant matrix mean|R| does.
    const mean = rest.reduce((sum, w) => sum + Math.abs(w), 0) / rest.length;
    expect(squares(next)).toBeLessThan(squares(rest) - 0.999 * rest.length * mean ** 2);
    expect((8 * bytesOf(term)) / W.data.length).toBeCloseTo(1 + 16 / rows + 16 / cols, 10);
    rest = next;
  }
});

it("with calibration it loses less where the inputs are large", async () => {
  const layer = toy(32, 48, 5);
  const H = backend.upload(hostTensor([48, 48], layer.H));
  const method = decomposition(bitstack, { blocks: 2, rank: 2 });
  const weighted = (weight: Weight) => {
    const Ŵ = decodeWeight(weight).data;
    return layer.W.data.reduce((sum, w, i) => sum + (w - Ŵ[i]) ** 2 * layer.H[(i % 48) * 49], 0);
  };
  const calibrated = weighted(await method.compress(layer.W, { backend, H }));
  expect(calibrated).toBeLessThan(weighted(await method.compress(layer.W, { backend })));
  backend.free(H);
});

it("ends when nothing is left, and refuses a rank beyond the matrix", async () => {
  const signs = matrix(8, 8, W.data.slice(0, 64).map(Math.sign));
  const weight = await decomposition(bitstack, { blocks: 8, rank: 1 }).compress(signs, { backend });
  expect(lost(signs, weight)).toBeLessThan(1e-12);
  expect(termsOf(weight).length).toBeLessThan(8);
  expect(() => decomposition(bitstack, { rank: 9 }).check({ rows: 8, cols: 30 })).toThrow(
    "bitstack: a rank of 9 is more than 8",
  );
  expect(() => decomposition(bitstack, { blocks: 0 })).toThrow("bitstack: blocks");
});

it("blocks are ordered by gain for a byte, the first of every matrix before all others and none before those below it", () => {
  const stack = (name: string, bytes: number, ...errors: number[]) => ({
    name,
    blocks: errors.map((error) => ({ bytes, error })),
  });
  expect(
    stackOrder([stack("a", 1, 0.5, 0.3, 0.2), stack("b", 1, 0.4, 0.1, 0.05), stack("c", 9, 0.9)]),
  ).toEqual(["a", "b", "c", "b", "a", "a", "b"]);
  // By the loss level stands before level, as what a block gains is known beside others of its level only.
  expect(stackOrder([stack("a", 1, 1, 0.99, 0.1), stack("b", 1, 1, 0.9, 0.89)], "loss")).toEqual([
    "a",
    "b",
    "b",
    "a",
    "a",
    "b",
  ]);
  // Twice the bytes count half; a poor block holds back the good one above it.
  expect(stackOrder([stack("a", 2, 1, 0.8), stack("b", 1, 1, 0.85)])).toEqual(["a", "b", "b", "a"]);
  expect(stackOrder([stack("a", 1, 1, 0.99, 0.1), stack("b", 1, 1, 0.9)])).toEqual(["a", "b", "b", "a", "a"]);
});
