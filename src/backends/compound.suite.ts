import { expect, test } from "vitest";
import { composeWeight } from "../formats/compose-weight.ts";
import { partOf } from "../formats/format.ts";
import { decode, decodeWeight, encodeWeight, formatByName } from "../formats/index.ts";
import { tensorsOf } from "../kernels/compound.ts";
import { gamma, TINY } from "../kernels/kernel.ts";
import { generator, normals } from "../tensor/random.ts";
import { type HostTensor, sizeOf, UnsupportedError } from "../tensor/tensor.ts";
import type { Expression, Part, Weight } from "../tensor/weight.ts";
import type { Backend } from "./backend.ts";
import { codedTensor, normalTensor, packedTensor } from "./cases.suite.ts";

const random = generator(23);
const [rows, cols, rank] = [40, 96, 5];

function plain(r: number, c: number, format = "f32"): Weight {
  return encodeWeight(formatByName(format), [r, c], normals(random, r * c));
}

function weight(expression: Expression, shape: readonly number[] = [rows, cols]): Weight {
  return { shape, expression };
}

function halves(n: number): Part {
  return partOf("f16", [n], Float16Array.from(normals(random, n)));
}

const int4 = packedTensor(random, "int4-g32", rows, cols);
const lowRank = weight({ kind: "lowRank", a: plain(rows, rank, "f16"), b: plain(rank, cols, "int8") });
const coded = codedTensor(random, [rows, cols], { length: 2, entries: 16, groups: 3 });
const shuffled = Uint16Array.from({ length: cols }, (_, c) => (c * 35 + 11) % cols);
const signs = weight({
  kind: "sign",
  bits: partOf(
    "u8",
    [rows, cols / 8],
    Uint8Array.from({ length: (rows * cols) / 8 }, () => random() * 256),
  ),
});
/** Patches of 8 × 8 from latent images 4 × 4 of codes or of bytes, through three layers. */
function drawn(latent: "codes" | "int8"): Weight {
  const [patches, values] = [(rows * cols) / 64, 16 * 3];
  const layers = [
    { kernel: 1, stride: 1, weights: plain(5, 3, "int8"), biases: plain(1, 5) },
    { kernel: 3, stride: 2, weights: plain(4 * 2, 9 * 5, "int8"), biases: plain(1, 4 * 2, "f16") },
    { kernel: 3, stride: 1, weights: plain(1, 9 * 2), biases: plain(1, 1) },
  ];
  const images =
    latent === "codes"
      ? codedTensor(random, [patches, values], { length: 3, entries: 20, groups: 0 })
      : plain(patches, values, "int8");
  return weight({ kind: "decoder", patch: 8, latent: images, layers });
}
const mixing = (n: number, block: number) => weight({ kind: "hadamard", block }, [n, n]);

/** Every kind of expression, alone and inside others. */
const weights: Readonly<Record<string, Weight>> = {
  "codes and a low rank": weight({ kind: "sum", terms: [int4, lowRank] }),
  "a codebook and a low rank": weight({ kind: "sum", terms: [coded, lowRank] }),
  "two books": weight({
    kind: "sum",
    terms: [coded, codedTensor(random, [rows, cols], { length: 8, entries: 100, groups: 0 })],
  }),
  "three factors": weight({ kind: "product", factors: [plain(rows, 7), plain(7, 9), plain(9, cols)] }),
  "scaled rows": weight({ kind: "scaleRows", scales: halves(rows), of: coded }),
  "scaled columns": weight({ kind: "scaleColumns", scales: halves(cols), of: int4 }),
  "signs with two vectors": weight({
    kind: "scaleRows",
    scales: halves(rows),
    of: weight({ kind: "scaleColumns", scales: halves(cols), of: signs }),
  }),
  "signs with magnitudes of low rank": weight({
    kind: "signed",
    bits: (signs.expression as { readonly bits: Part }).bits,
    of: weight({ kind: "lowRank", a: plain(rows, 3, "f16"), b: plain(3, cols, "f16") }),
  }),
  "signs with other magnitudes": weight({
    kind: "signed",
    bits: (signs.expression as { readonly bits: Part }).bits,
    of: int4,
  }),
  "columns permuted in blocks of rows": weight({
    kind: "permuteColumns",
    order: partOf(
      "u8",
      [5, cols],
      Uint8Array.from({ length: 5 * cols }, (_, i) => ((i % cols) * 35 + Math.floor(i / cols)) % cols),
    ),
    of: coded,
  }),
  "vectors down the columns": codedTensor(random, [rows, cols], {
    length: 5,
    entries: 37,
    groups: 2,
    down: true,
  }),
  "a book and another for some columns": weight({
    kind: "sum",
    terms: [
      codedTensor(random, [rows, cols], { length: 8, entries: 16, groups: 0, down: true }),
      weight({
        kind: "placeColumns",
        places: partOf("u16", [3], Uint16Array.of(90, 0, 41)),
        of: codedTensor(random, [rows, 3], { length: 4, entries: 9, groups: 0, down: true }),
      }),
    ],
  }),
  "permuted columns": weight({ kind: "permuteColumns", order: partOf("u16", [cols], shuffled), of: coded }),
  "between rotations": weight({
    kind: "product",
    factors: [mixing(rows, 8), int4, mixing(cols, 32)],
  }),
  "drawn patches": drawn("codes"),
  "drawn patches with scales": weight({ kind: "scaleGroups", scales: plain(rows, 3), of: drawn("int8") }),
  "drawn patches with scales inside of them": weight({
    kind: "scaleGroups",
    scales: plain(rows, 24),
    of: drawn("codes"),
  }),
  "groups of something else": weight({ kind: "scaleGroups", scales: plain(rows, 4), of: int4 }),
};

/** Matrices of several parts: `linear` stays within the bound of its parts' arithmetic, and they live and die as one. */
export function compounds(backend: () => Backend): void {
  for (const [label, w] of Object.entries(weights)) {
    test(`a matrix of parts: ${label}`, async () => {
      const W = backend().upload(w);
      for (const tokens of [1, 3, 20]) {
        const x = normalTensor(generator(25), [tokens, cols], 1);
        const y = await backend().read(backend().linear(backend().upload(x), W));
        const { expected, bounds } = exact(x, w);
        for (const [i, value] of y.entries()) {
          const distance = Math.abs(value - expected[i]);
          expect(distance, `${tokens} tokens, ${i}`).toBeLessThanOrEqual(bounds[i]);
        }
      }
      backend().free(W);
      for (const t of tensorsOf(W)) expect(() => backend().keep(t)).toThrow("was freed");
    });
  }

  test("a matrix of parts leaves a scope whole, and only linear takes it", () => {
    const made = backend().scope(() => backend().upload(weights["a codebook and a low rank"]));
    for (const t of tensorsOf(made)) backend().keep(t);
    const x = backend().upload(normalTensor(generator(25), [2, rows], 1));
    expect(() => backend().add(x, made)).toThrow(UnsupportedError);
    expect(() => backend().linear(x, made)).toThrow(`x needs rows of ${cols}`);
    backend().free(made);
  });

  test("an order that is no permutation, and a code that its book does not have, are refused", () => {
    const order = partOf("u16", [cols], new Uint16Array(cols));
    expect(() => backend().upload(weight({ kind: "permuteColumns", order, of: int4 }))).toThrow(
      "leaves out column 1",
    );
    const places = partOf("u16", [2], Uint16Array.of(5, 5));
    expect(() => backend().upload(weight({ kind: "placeColumns", places, of: plain(rows, 2) }))).toThrow(
      "two columns would stand at place 5",
    );
    const codes = partOf("u8", [1, 1], Uint8Array.of(0b11));
    const few = weight({ kind: "codebook", codes, codeBits: 2, book: plain(3, 4) }, [1, 4]);
    expect(() => backend().upload(few)).toThrow("code 3 is outside its codebook of 3 entries");
  });
}

/** x·Wᵀ in 64 bits, and how far float32 may be from it: every sum and factor on the way counts as a rounding. */
function exact(x: HostTensor, w: Weight): { expected: Float64Array; bounds: Float64Array } {
  const [tokens] = x.shape;
  const W = decodeWeight(w).data;
  const M = magnitudes(w);
  const expected = new Float64Array(tokens * rows);
  const bounds = new Float64Array(tokens * rows);
  const roundings = gamma(2 * (rows + cols) + 32);
  for (let t = 0; t < tokens; t++) {
    for (let r = 0; r < rows; r++) {
      for (let c = 0; c < cols; c++) {
        expected[t * rows + r] += x.data[t * cols + c] * W[r * cols + c];
        bounds[t * rows + r] += Math.abs(x.data[t * cols + c] * M[r * cols + c]) * roundings + TINY;
      }
    }
  }
  return { expected, bounds };
}

/** The same expression of the absolute values of all that it is made of. */
function magnitudes(w: Weight): Float32Array {
  return composeWeight(absolute(w), (format, parts, r, c) => decode(formatByName(format), parts, r, c)).data;
}

function absolute(w: Weight): Weight {
  const { shape, expression: e } = w;
  const values = (part: Part) =>
    partOf(
      "f32",
      [sizeOf(part.shape)],
      new Float32Array(new Float16Array(part.bytes.slice().buffer)).map(Math.abs),
    );
  switch (e.kind) {
    case "sum":
      return { shape, expression: { kind: "sum", terms: e.terms.map(absolute) } };
    case "product":
      return { shape, expression: { kind: "product", factors: e.factors.map(absolute) } };
    case "lowRank":
      return { shape, expression: { kind: "lowRank", a: absolute(e.a), b: absolute(e.b) } };
    case "signed":
      return absolute(e.of);
    case "scaleRows":
    case "scaleColumns":
      return { shape, expression: { kind: e.kind, scales: values(e.scales), of: absolute(e.of) } };
    case "permuteColumns":
    case "placeColumns":
      return { shape, expression: { ...e, of: absolute(e.of) } };
    case "scaleGroups":
      return { shape, expression: { ...e, scales: absolute(e.scales), of: absolute(e.of) } };
    case "decoder": {
      // gelu(|x|) ≥ |gelu(x)|
      const layers = e.layers.map((layer) => {
        return { ...layer, weights: absolute(layer.weights), biases: absolute(layer.biases) };
      });
      return { shape, expression: { ...e, latent: absolute(e.latent), layers } };
    }
    default:
      return encodeWeight(formatByName("f32"), shape, decodeWeight(w).data.map(Math.abs));
  }
}
