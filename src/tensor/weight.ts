import { UnsupportedError } from "./tensor.ts";

/** Element types of stored parts, with their bytes per element. */
export const PART_BYTES = { u8: 1, i8: 1, i16: 2, u16: 2, f16: 2, bf16: 2, i32: 4, f32: 4 } as const;
export type PartType = keyof typeof PART_BYTES;

/** One stored array of a weight; on disk it is the tensor `WEIGHT.NAME`. */
export interface Part {
  readonly dtype: PartType;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

/** The arrays that one packed matrix is stored as, by name (`codes`, `scales`, `offsets`). */
export type Parts = Readonly<Record<string, Part>>;

/**
 * How a matrix is put together from stored parts. A plain or packed tensor is
 * the case of one part; sums, products, low-rank factors and codebooks are
 * made of such parts, each in a format of its own and shareable among weights.
 *
 *   sum            A + B + …
 *   product        A · B · …  (matrix product)
 *   lowRank        A · B,  A (rows, rank), B (rank, cols)
 *   codebook       row r, vector v = book[code(r, v)]; each row of codes is a little-endian bit stream of `codeBits` a
 *                  code, from a byte on; with `down`, vectors run down the columns: codes (rows/d), one for each column
 *   decoder        patches of p × p, each drawn from a small latent image by the same layers of convolutions; row
 *                  j·(rows/p) + i of the latent is the image (h, h, channels), h = p/Π strides, of patch i of those that
 *                  stand on columns j·p …; a matrix may share the layers with others
 *   scaleRows      diag(s) · A
 *   scaleColumns   A · diag(s)
 *   scaleGroups    A with each row's groups of columns times numbers of their own: a_rc·s_rg, the scales (rows, groups) a
 *                  weight too, so that they may be packed themselves
 *   permuteColumns column c of the result is column order[c] of A; an order (blocks, cols) has one for each of so many
 *                  blocks of rows
 *   placeColumns   column k of A, which has some of the columns, stands at places[k] of the result; the others are 0
 *   sign           +1 where the stored bit is set, else −1
 *   signed         sign ⊙ A, element by element: magnitudes (often of low rank) with a sign for each weight
 *   hadamard       diag(H, …, H), H the orthonormal Hadamard matrix of `block` (a power of two): symmetric, its own
 *                  inverse; nothing is stored
 */
export type Expression =
  | { readonly kind: "packed"; readonly format: string; readonly parts: Parts }
  | { readonly kind: "sum"; readonly terms: readonly Weight[] }
  | { readonly kind: "product"; readonly factors: readonly Weight[] }
  | { readonly kind: "lowRank"; readonly a: Weight; readonly b: Weight }
  | {
      readonly kind: "codebook";
      readonly codes: Part;
      readonly codeBits: number;
      readonly book: Weight;
      readonly down?: boolean;
    }
  | {
      readonly kind: "decoder";
      readonly patch: number;
      readonly latent: Weight;
      readonly layers: readonly DecoderLayer[];
    }
  | { readonly kind: "scaleRows"; readonly scales: Part; readonly of: Weight }
  | { readonly kind: "scaleColumns"; readonly scales: Part; readonly of: Weight }
  | { readonly kind: "scaleGroups"; readonly scales: Weight; readonly of: Weight }
  | { readonly kind: "permuteColumns"; readonly order: Part; readonly of: Weight }
  | { readonly kind: "placeColumns"; readonly places: Part; readonly of: Weight }
  | { readonly kind: "sign"; readonly bits: Part }
  | { readonly kind: "signed"; readonly bits: Part; readonly of: Weight }
  | { readonly kind: "hadamard"; readonly block: number };

/**
 * A layer of a decoder: x (h, h, in) -> y (s·h, s·h, out), a convolution k × k with zeros beyond the edges whose s·s·out
 * channels are spread out in space (`pixelShuffle`). Between layers stands a GELU; the last has one channel.
 */
export interface DecoderLayer {
  /** k, odd. */
  readonly kernel: number;
  /** s */
  readonly stride: number;
  /** (s·s·out, k·k·in): a row for channel o of place (i, j) of a square is row (i·s + j)·out + o. */
  readonly weights: Weight;
  /** (1, s·s·out) */
  readonly biases: Weight;
}

/** A stored matrix (or vector, or any tensor when plain): a shape and an expression over parts. */
export interface Weight {
  readonly shape: readonly number[];
  readonly expression: Expression;
}

export function packedWeight(shape: readonly number[], format: string, parts: Parts): Weight {
  return { shape, expression: { kind: "packed", format, parts } };
}

/** The sum of weights of one shape. */
export function sumOf(...terms: readonly Weight[]): Weight {
  return { shape: terms[0].shape, expression: { kind: "sum", terms } };
}

/** The one packed part of a weight; an UnsupportedError names the kind when there are more. */
export function onlyPart(weight: Weight): { readonly format: string; readonly parts: Parts } {
  if (weight.expression.kind !== "packed") {
    throw new UnsupportedError(
      `weight: a ${weight.expression.kind} of parts cannot be used here; decode it first`,
    );
  }
  return weight.expression;
}

/** Rows `from … to−1` of a weight whose parts stand row by row; undefined where they do not. */
export function rowsOfWeight({ shape, expression: e }: Weight, from: number, to: number): Weight | undefined {
  const [rows, cols] = shape;
  const some = [to - from, cols];
  const cut = ({ dtype, shape, bytes }: Part): Part => {
    const width = bytes.byteLength / rows;
    return { dtype, shape: [to - from, ...shape.slice(1)], bytes: bytes.slice(from * width, to * width) };
  };
  switch (e.kind) {
    case "packed": {
      const parts = Object.entries(e.parts);
      if (parts.some(([, part]) => part.shape[0] !== rows)) return undefined;
      return packedWeight(some, e.format, Object.fromEntries(parts.map(([name, part]) => [name, cut(part)])));
    }
    case "codebook":
      return e.down ? undefined : { shape: some, expression: { ...e, codes: cut(e.codes) } };
    case "scaleGroups": {
      const [scales, of] = [rowsOfWeight(e.scales, from, to), rowsOfWeight(e.of, from, to)];
      return scales && of && { shape: some, expression: { kind: e.kind, scales, of } };
    }
    default:
      return undefined;
  }
}

/** Every stored part of a weight with the path that names it on disk (`codes`, `terms.0.scales`). */
export function* partsOf(weight: Weight, path = ""): Generator<[path: string, part: Part]> {
  const e = weight.expression;
  switch (e.kind) {
    case "packed":
      for (const [name, part] of Object.entries(e.parts)) yield [path + name, part];
      return;
    case "sum":
      for (const [i, term] of e.terms.entries()) yield* partsOf(term, `${path}terms.${i}.`);
      return;
    case "product":
      for (const [i, factor] of e.factors.entries()) yield* partsOf(factor, `${path}factors.${i}.`);
      return;
    case "lowRank":
      yield* partsOf(e.a, `${path}a.`);
      yield* partsOf(e.b, `${path}b.`);
      return;
    case "codebook":
      yield [`${path}codes`, e.codes];
      yield* partsOf(e.book, `${path}book.`);
      return;
    case "decoder":
      yield* partsOf(e.latent, `${path}latent.`);
      for (const [i, layer] of e.layers.entries()) {
        yield* partsOf(layer.weights, `${path}layers.${i}.weights.`);
        yield* partsOf(layer.biases, `${path}layers.${i}.biases.`);
      }
      return;
    case "scaleRows":
    case "scaleColumns":
      yield [`${path}scales`, e.scales];
      yield* partsOf(e.of, `${path}of.`);
      return;
    case "scaleGroups":
      yield* partsOf(e.scales, `${path}scales.`);
      yield* partsOf(e.of, `${path}of.`);
      return;
    case "permuteColumns":
      yield [`${path}order`, e.order];
      yield* partsOf(e.of, `${path}of.`);
      return;
    case "placeColumns":
      yield [`${path}places`, e.places];
      yield* partsOf(e.of, `${path}of.`);
      return;
    case "sign":
      yield [`${path}bits`, e.bits];
      return;
    case "signed":
      yield [`${path}bits`, e.bits];
      yield* partsOf(e.of, `${path}of.`);
  }
}

/** The same weight over other parts. */
export function withParts(weight: Weight, other: (part: Part) => Part): Weight {
  const { shape, expression: e } = weight;
  const inner = (of: Weight) => withParts(of, other);
  const made = (expression: Expression): Weight => ({ shape, expression });
  switch (e.kind) {
    case "packed":
      return made({
        ...e,
        parts: Object.fromEntries(Object.entries(e.parts).map(([name, part]) => [name, other(part)])),
      });
    case "sum":
      return made({ ...e, terms: e.terms.map(inner) });
    case "product":
      return made({ ...e, factors: e.factors.map(inner) });
    case "lowRank":
      return made({ ...e, a: inner(e.a), b: inner(e.b) });
    case "codebook":
      return made({ ...e, codes: other(e.codes), book: inner(e.book) });
    case "decoder": {
      const layers = e.layers.map((layer) => ({
        ...layer,
        weights: inner(layer.weights),
        biases: inner(layer.biases),
      }));
      return made({ ...e, latent: inner(e.latent), layers });
    }
    case "scaleRows":
    case "scaleColumns":
      return made({ ...e, scales: other(e.scales), of: inner(e.of) });
    case "scaleGroups":
      return made({ ...e, scales: inner(e.scales), of: inner(e.of) });
    case "permuteColumns":
      return made({ ...e, order: other(e.order), of: inner(e.of) });
    case "placeColumns":
      return made({ ...e, places: other(e.places), of: inner(e.of) });
    case "sign":
      return made({ ...e, bits: other(e.bits) });
    case "signed":
      return made({ ...e, bits: other(e.bits), of: inner(e.of) });
    case "hadamard":
      return weight;
  }
}

/** Stored bits of a weight, split by part name; a part shared between weights is counted by its first owner. */
export function bits(weight: Weight, counted: Set<Part> = new Set()): Record<string, number> {
  const split: Record<string, number> = {};
  for (const [path, part] of partsOf(weight)) {
    if (counted.has(part)) continue;
    counted.add(part);
    split[path] = (split[path] ?? 0) + 8 * part.bytes.byteLength;
  }
  return split;
}

/** Stored bytes of a weight, all parts together; a part shared between weights is counted by its first owner. */
export function bytesOf(weight: Weight, counted: Set<Part> = new Set()): number {
  return Object.values(bits(weight, counted)).reduce((sum, stored) => sum + stored, 0) / 8;
}

/** What the parts of a weight are for, by the words of a report. */
export type Use = "codes" | "scales" | "codebooks" | "decoder" | "low rank" | "permutation" | "magnitudes";

/** Stored bits by what they are for; a part shared between weights is counted by its first owner. */
export function bitsByUse(weight: Weight, counted: Set<Part> = new Set()): Partial<Record<Use, number>> {
  const split: Partial<Record<Use, number>> = {};
  const count = (use: Use, part: Part) => {
    if (counted.has(part)) return;
    counted.add(part);
    split[use] = (split[use] ?? 0) + 8 * part.bytes.byteLength;
  };
  const all = (use: Use, of: Weight) => {
    for (const [, part] of partsOf(of)) count(use, part);
  };
  const walk = ({ expression: e }: Weight): void => {
    switch (e.kind) {
      case "packed":
        for (const [name, part] of Object.entries(e.parts)) {
          count(name === "codes" || name === "data" ? "codes" : "scales", part);
        }
        return;
      case "sum":
        for (const term of e.terms) walk(term);
        return;
      case "product":
        for (const factor of e.factors) walk(factor);
        return;
      case "lowRank":
        all("low rank", e.a);
        all("low rank", e.b);
        return;
      case "codebook":
        count("codes", e.codes);
        all("codebooks", e.book);
        return;
      case "decoder":
        walk(e.latent);
        for (const { weights, biases } of e.layers) {
          all("decoder", weights);
          all("decoder", biases);
        }
        return;
      case "scaleRows":
      case "scaleColumns":
        count("magnitudes", e.scales);
        walk(e.of);
        return;
      case "scaleGroups":
        all("scales", e.scales);
        walk(e.of);
        return;
      case "permuteColumns":
        count("permutation", e.order);
        walk(e.of);
        return;
      case "placeColumns":
        count("permutation", e.places);
        walk(e.of);
        return;
      case "sign":
        count("codes", e.bits);
        return;
      case "signed":
        count("codes", e.bits);
        all("magnitudes", e.of);
        return;
      case "hadamard":
    }
  };
  walk(weight);
  return split;
}

/** Names with commas between them, those that repeat counted: `4 × sign, int8`. */
export function listed(names: readonly string[]): string {
  const runs: { name: string; count: number }[] = [];
  for (const name of names) {
    const last = runs.at(-1);
    if (last?.name === name) last.count++;
    else runs.push({ name, count: 1 });
  }
  return runs
    .flatMap(({ name, count }) => (count > 2 ? [`${count} × ${name}`] : Array<string>(count).fill(name)))
    .join(", ");
}

/** What a weight is made of: its format, or `sum(int4-g64, lowRank(f16, f16))`. */
export function describeWeight({ expression: e }: Weight): string {
  const list = (weights: readonly Weight[]) => listed(weights.map(describeWeight));
  switch (e.kind) {
    case "packed":
      return e.format;
    case "sum":
      return `sum(${list(e.terms)})`;
    case "product":
      return `product(${list(e.factors)})`;
    case "lowRank":
      return `lowRank(${list([e.a, e.b])})`;
    case "codebook":
      return `codebook(${describeWeight(e.book)})`;
    case "decoder":
      return `decoder(${list([e.latent, ...e.layers.map(({ weights }) => weights)])})`;
    case "scaleGroups":
      return `scaleGroups(${list([e.scales, e.of])})`;
    case "scaleRows":
    case "scaleColumns":
    case "permuteColumns":
    case "signed":
    case "placeColumns":
      return `${e.kind}(${describeWeight(e.of)})`;
    case "sign":
    case "hadamard":
      return e.kind;
  }
}
