import { expect, it } from "vitest";
import { openReference } from "../backends/reference.ts";
import { packCodes } from "../formats/codebook.ts";
import { partOf } from "../formats/format.ts";
import { decodeWeight, encodeWeight, formatByName } from "../formats/index.ts";
import { gamma, TINY } from "../kernels/kernel.ts";
import { generator, normals } from "../tensor/random.ts";
import { hostTensor } from "../tensor/tensor.ts";
import { bytesOf, type Expression, packedWeight, type Weight } from "../tensor/weight.ts";
import { type Tunable, type TunedPart, tunable, tunedParts, withAdapter } from "./tunable.ts";

const random = generator(11);
const [rows, cols] = [16, 32];
const all: ReadonlySet<TunedPart> = new Set(tunedParts);

function plain(r: number, c: number, format: string): Weight {
  return encodeWeight(formatByName(format), [r, c], normals(random, r * c));
}

function weight(expression: Expression, shape: readonly number[] = [rows, cols]): Weight {
  return { shape, expression };
}

const coded = weight({
  kind: "codebook",
  codes: packCodes(
    Array.from({ length: (rows * cols) / 2 }, (_, i) => (i * 7) % 16),
    rows,
    cols / 2,
    4,
  ),
  codeBits: 4,
  book: plain(16, 2, "f16"),
});
const lowRank = weight({ kind: "lowRank", a: plain(rows, 3, "f16"), b: plain(3, cols, "int8") });
const ones = partOf("i8", [rows], new Int8Array(rows).fill(-1));
const order = partOf(
  "u16",
  [cols],
  Uint16Array.from({ length: cols }, (_, c) => (c * 5 + 3) % cols),
);

const weights: Readonly<Record<string, Weight>> = {
  "integers with offsets": plain(rows, cols, "int2-offset-g32"),
  "integers of a row": plain(rows, cols, "int4"),
  "a trellis": plain(rows, cols, "trellis2"),
  "floats, which stay": plain(rows, cols, "f32"),
  "a book": coded,
  "a book and scales": weight({ kind: "scaleGroups", scales: plain(rows, 4, "int8"), of: coded }),
  "codes and a low rank": weight({ kind: "sum", terms: [coded, lowRank] }),
  "signs in front": weight({ kind: "scaleRows", scales: ones, of: plain(rows, cols, "int4") }),
  "permuted columns": weight({ kind: "permuteColumns", order, of: coded }),
  "what a decoder draws": weight({
    kind: "scaleGroups",
    scales: plain(rows, 1, "f16"),
    of: weight({
      kind: "decoder",
      patch: 8,
      latent: plain((rows * cols) / 64, 64, "f16"),
      layers: [{ kernel: 3, stride: 1, weights: plain(1, 9, "int8"), biases: plain(1, 1, "f16") }],
    }),
  }),
  "between rotations": weight({
    kind: "product",
    factors: [
      weight({ kind: "hadamard", block: 16 }, [rows, rows]),
      coded,
      weight({ kind: "hadamard", block: 8 }, [cols, cols]),
    ],
  }),
};

/** x·Wᵀ of parameters with these values, x the identity: Wᵀ, as the layer computes it. */
async function seen({ open }: Tunable, values: ReadonlyMap<string, Float32Array>, t: Tunable) {
  const backend = openReference();
  const opened = open(backend);
  const y = backend.scope(() => {
    const tensors = new Map(
      [...values].map(([path, data]) => [
        path,
        backend.upload(hostTensor(t.parameters.get(path)!.shape, data)),
      ]),
    );
    const identity = Float32Array.from({ length: cols * cols }, (_, i) => (i % (cols + 1) === 0 ? 1 : 0));
    return backend.linear(
      backend.upload(hostTensor([cols, cols], identity)),
      opened.tensor(backend, tensors),
    );
  });
  const transposed = await backend.read(y);
  opened.free();
  return Float32Array.from(
    { length: rows * cols },
    (_, i) => transposed[(i % cols) * rows + Math.floor(i / cols)],
  );
}

const start = ({ parameters }: Tunable) =>
  new Map([...parameters].map(([path, { data }]) => [path, data as Float32Array]));

function expectNear(a: Float32Array, b: Float32Array, size: number): void {
  const bound = gamma(cols + 8) * size + TINY;
  for (let i = 0; i < a.length; i++) expect(Math.abs(a[i] - b[i])).toBeLessThanOrEqual(bound);
}

const sizeOfAll = (values: Float32Array) => cols * values.reduce((most, v) => Math.max(most, Math.abs(v)), 0);

for (const [name, stored] of Object.entries(weights)) {
  it(`${name}: before the first step it is the weight itself, and later what is stored`, async () => {
    const one = tunable(stored, all);
    const W = decodeWeight(stored).data;
    const size = sizeOfAll(W);
    expectNear(decodeWeight(one.stored(start(one))).data, W, size);
    expectNear(await seen(one, start(one), one), W, size);

    const moved = new Map(
      [...start(one)].map(([path, data]) => [path, data.map((v, i) => v * (1 + 0.1 * Math.sin(i)) + 0.01)]),
    );
    const after = one.stored(moved);
    const Ŵ = decodeWeight(after).data;
    expectNear(await seen(one, moved, one), Ŵ, sizeOfAll(Ŵ));
    if (one.parameters.size > 0) expect(Ŵ).not.toEqual(W);
    // Signs become 16-bit numbers, everything else keeps its size.
    if (name !== "signs in front") expect(bytesOf(after)).toBe(bytesOf(stored));
  });
}

it("moves the parts that it was told to and no others", () => {
  const one = weight({ kind: "sum", terms: [weights["a book and scales"], lowRank] });
  const paths = (...parts: TunedPart[]) => [...tunable(one, new Set(parts)).parameters.keys()];
  expect(paths("lowRank")).toEqual(["terms.1.a", "terms.1.b"]);
  expect(paths("codebooks")).toEqual(["terms.0.of.book"]);
  expect(paths("scales")).toEqual(["terms.0.scales"]);
  expect(paths("magnitudes")).toEqual([]);
});

it("an adapter leaves the matrix as it is, and its bits are counted", () => {
  const before = packedWeight([rows, cols], "int4", {
    ...(plain(rows, cols, "int4").expression as { parts: object }).parts,
  });
  const after = withAdapter(before, { rank: 2, factors: "f16", magnitudes: true, seed: 1 });
  expect(decodeWeight(after).data).toEqual(decodeWeight(before).data);
  expect(bytesOf(after) - bytesOf(before)).toBe(2 * (2 * (rows + cols) + rows));
});
