import { expect, it } from "vitest";
import { codedTensor } from "../backends/cases.suite.ts";
import { openBackend } from "../backends/index.ts";
import { openReference } from "../backends/reference.ts";
import { partOf } from "../formats/format.ts";
import { decodeWeight, encodeWeight, formatByName } from "../formats/index.ts";
import { generator, normals, permutation } from "../tensor/random.ts";
import { type Matrix, matrix } from "../tensor/tensor.ts";
import type { Weight } from "../tensor/weight.ts";
import { putBack } from "./column-orders.ts";
import { decomposition } from "./compressor.ts";
import { recode } from "./pv-tuning.ts";
import { reallm } from "./reallm.ts";

const backend = await openBackend("native", {}).catch(() => openReference());
const random = generator(12);
const shape = [24, 32];
const scales = () =>
  partOf(
    "f16",
    [24],
    Float16Array.from({ length: 24 }, () => 0.5 + random()),
  );
const coded = (down?: boolean) => codedTensor(random, shape, { length: 4, entries: 16, groups: 0, down });
const plain = (format: string, [r, c] = shape) =>
  encodeWeight(formatByName(format), [r, c], normals(random, r * c));
const dense = () => matrix(24, 32, normals(random, 24 * 32));
const orders = [permutation(random, 32), permutation(random, 32)].map((order) => Uint32Array.from(order));
const lowRank: Weight = {
  shape,
  expression: { kind: "lowRank", a: plain("f16", [24, 2]), b: plain("f16", [2, 32]) },
};

const weights: Record<string, [Weight, of: number]> = {
  "a codebook": [coded(), 24 * 8],
  "vectors down the columns": [coded(true), 24 * 8],
  "codes under group scales": [codedTensor(random, shape, { length: 2, entries: 9, groups: 4 }), 24 * 16],
  "additive books under row scales": [
    {
      shape,
      expression: {
        kind: "scaleRows",
        scales: scales(),
        of: { shape, expression: { kind: "sum", terms: [coded(), coded()] } },
      },
    },
    24 * 8,
  ],
  "columns in orders of their own for each block of rows, under scales": [
    {
      shape,
      expression: {
        kind: "scaleGroups",
        scales: plain("f16", [24, 8]),
        of: putBack(codedTensor(random, shape, { length: 4, entries: 16, groups: 8 }), orders),
      },
    },
    24 * 8,
  ],
  integers: [plain("int4-g32"), 24 * 32],
  "codes and a low rank": [
    { shape, expression: { kind: "sum", terms: [lowRank, plain("int3-g32")] } },
    24 * 32,
  ],
};

const drawn = (rank: number) =>
  decomposition(reallm, { path: "decoder", rank, decoder: { entries: 16, bits: 3, steps: 40 } });
weights["what a decoder draws"] = [await drawn(0).compress(dense(), { backend }), 24 * 8];
weights["what a decoder draws beside a low rank"] = [await drawn(2).compress(dense(), { backend }), 24 * 8];

function away(weight: Weight, target: Matrix): number {
  const Ŵ = decodeWeight(weight).data;
  return target.data.reduce((sum, t, i) => sum + (t - Ŵ[i]) ** 2, 0);
}

it.each(Object.entries(weights))(
  "the P step of %s: the loss falls, few codes change",
  async (_, [weight, of]) => {
    const target = decodeWeight(weight);
    for (const [i, x] of normals(generator(13), target.data.length).entries()) target.data[i] += x;
    const before = away(weight, target);
    const few = await recode(backend, weight, target, { share: 0.1 });
    expect(few.of).toBe(of);
    expect(few.changed).toBeGreaterThan(0);
    expect(few.changed).toBeLessThanOrEqual(0.1 * of);
    const all = await recode(backend, weight, target, { share: 1 });
    expect(away(few.weight, target)).toBeLessThan(before);
    expect(away(all.weight, target)).toBeLessThanOrEqual(away(few.weight, target));
    // A share of the vectors gives more than that share of what can be had.
    expect(before - away(few.weight, target)).toBeGreaterThan(0.1 * (before - away(all.weight, target)));
    // Where the target is reached nothing moves.
    const still = await recode(backend, few.weight, decodeWeight(few.weight), { share: 1 });
    expect(still.changed).toBe(0);
  },
);

it("a weight without codes, other shapes and other shares are refused", async () => {
  const W = decodeWeight(lowRank);
  await expect(recode(backend, lowRank, W, { share: 0.1 })).rejects.toThrow(
    "has no way to choose codes of lowRank(f16, f16) anew",
  );
  await expect(recode(backend, coded(), matrix(24, 31), { share: 0.1 })).rejects.toThrow("24×31");
  await expect(recode(backend, coded(), W, { share: 0 })).rejects.toThrow("a share is above 0");
});
