import { checkCodes, codesShape } from "../formats/codebook.ts";
import { blockHeight, checkPlaces, numbersOf } from "../formats/compose-weight.ts";
import { decoderSizes } from "../formats/decoder.ts";
import { partOf } from "../formats/format.ts";
import { decodeWeight } from "../formats/index.ts";
import { compound } from "../kernels/compound.ts";
import {
  type HostTensor,
  hostTensor,
  InputError,
  type Matrix,
  row,
  type Tensor,
  transposed,
} from "../tensor/tensor.ts";
import { type Expression, type Part, packedWeight, rowsOfWeight, type Weight } from "../tensor/weight.ts";

/** Codes with their book, as the kernels read them; scales (rows, groups) of groups of columns where there are any. */
export interface BookOfCodes {
  readonly codes: Part;
  readonly codeBits: number;
  readonly book: Matrix;
  /** Vectors run down the columns. */
  readonly down?: boolean;
  readonly scales?: Matrix;
}

/** What a backend keeps as one tensor. */
export interface Uploads {
  /** Plain floats or whole numbers. */
  plain(value: HostTensor): Tensor;
  /** A matrix in one format. */
  packed(value: Weight): Tensor;
  codebook(shape: readonly number[], value: BookOfCodes): Tensor;
  free(t: Tensor): void;
}

/**
 * A stored weight on a backend: one tensor where kernels read it as one, a
 * compound of tensors where `linear` can be put together from parts, and plain
 * floats for what is left (groups of columns of something else, a permutation for each block of rows).
 */
export function uploadWeight(weight: Weight, to: Uploads): Tensor {
  const made: Tensor[] = [];
  const keep = <T extends Tensor>(t: T): T => {
    made.push(t);
    return t;
  };
  try {
    return upload(weight);
  } catch (error) {
    for (const t of made) to.free(t);
    throw error;
  }

  function upload({ shape, expression: e }: Weight): Tensor {
    switch (e.kind) {
      case "packed":
        return keep(to.packed({ shape, expression: e }));
      case "sum":
        return compound(shape, { kind: "sum", terms: e.terms.map(upload) });
      case "product":
        return compound(shape, { kind: "product", factors: e.factors.map(upload) });
      case "lowRank":
        return compound(shape, { kind: "product", factors: [upload(e.a), upload(e.b)] });
      case "scaleRows":
      case "scaleColumns":
        return compound(shape, { kind: e.kind, scales: numbers(e.scales), matrix: upload(e.of) });
      case "permuteColumns": {
        const order = numbersOf(e.order);
        const [rows, cols] = shape;
        const height = blockHeight(order.length, rows, cols);
        const blocks = Array.from({ length: rows / height }, (_, b) => b);
        if (blocks.length === 1) return permuted(shape, Array.from(order), e.of);
        const cut = blocks.map((b) => rowsOfWeight(e.of, b * height, (b + 1) * height));
        if (!cut.every((one) => one !== undefined)) break;
        const ordersOf = (b: number) => Array.from({ length: cols }, (_, c) => order[b * cols + c]);
        const matrices = blocks.map((b) => permuted([height, cols], ordersOf(b), cut[b]));
        return compound(shape, { kind: "stack", matrices });
      }
      case "placeColumns": {
        const places = Int32Array.from(numbersOf(e.places));
        checkPlaces(places, e.of.shape[1], shape[1]);
        const matrix = upload(e.of);
        return compound(shape, {
          kind: "pickColumns",
          places: keep(to.plain(hostTensor([places.length], places))),
          matrix,
        });
      }
      case "hadamard":
        return compound(shape, { kind: "hadamard", block: e.block });
      case "sign":
        return keep(to.packed(signs(shape, e.bits)));
      case "signed": {
        if (e.of.expression.kind !== "lowRank") break;
        // sign ⊙ Σ aᵢ·bᵢ = Σ diag(aᵢ)·sign·diag(bᵢ), with one matrix of signs for all terms.
        const matrix = keep(to.packed(signs(shape, e.bits)));
        const { a, b } = e.of.expression;
        const [left, right] = [transposed(decodeWeight(a)), decodeWeight(b)];
        const vector = (values: Float32Array) => keep(to.plain(hostTensor([values.length], values)));
        const terms = Array.from({ length: right.rows }, (_, i) => {
          const columns = { kind: "scaleColumns", scales: vector(row(right, i).slice()), matrix } as const;
          const inner = compound(shape, columns);
          return compound(shape, { kind: "scaleRows", scales: vector(row(left, i).slice()), matrix: inner });
        });
        return terms.length === 1 ? terms[0] : compound(shape, { kind: "sum", terms });
      }
      case "codebook":
        return keep(to.codebook(shape, bookOf(shape, e)));
      case "decoder":
        return decoder(shape, e);
      case "scaleGroups": {
        const inner = e.of.expression;
        const scales = decodeWeight(e.scales);
        if (inner.kind === "codebook") return keep(to.codebook(shape, { ...bookOf(shape, inner), scales }));
        // A strip of patches has one scale for each row where groups are whole patches.
        if (inner.kind === "decoder" && (shape[1] / scales.cols) % inner.patch === 0)
          return decoder(shape, inner, scales);
        break;
      }
    }
    return plain({ shape, expression: e });
  }

  /** Column c is column order[c] of what is permuted, which therefore meets x at the place c. */
  function permuted(shape: readonly number[], order: readonly number[], of: Weight): Tensor {
    const places = new Int32Array(order.length).fill(-1);
    for (const [c, column] of order.entries()) places[column] = c;
    const missing = places.indexOf(-1);
    if (missing !== -1) throw new InputError(`weight: its order of columns leaves out column ${missing}`);
    const at = keep(to.plain(hostTensor([places.length], places)));
    return compound(shape, { kind: "pickColumns", places: at, matrix: upload(of) });
  }

  function numbers(part: Part): Tensor {
    const values = Float32Array.from(numbersOf(part));
    return keep(to.plain(hostTensor([values.length], values)));
  }

  function plain(weight: Weight): Tensor {
    const { rows, cols, data } = decodeWeight(weight);
    return keep(to.plain(hostTensor([rows, cols], data)));
  }

  function integers(n: number, value: (i: number) => number): Tensor {
    return keep(
      to.plain(
        hostTensor(
          [n],
          Int32Array.from({ length: n }, (_, i) => value(i)),
        ),
      ),
    );
  }

  function column({ rows, cols, data }: Matrix, c: number): Tensor {
    const values = Float32Array.from({ length: rows }, (_, r) => data[r * cols + c]);
    return keep(to.plain(hostTensor([rows], values)));
  }

  /** Layers as floats, of which there are few; the latent as it is stored where that is one tensor. */
  function decoder(
    shape: readonly number[],
    { patch, latent, layers }: Expression & { kind: "decoder" },
    scales?: Matrix,
  ): Tensor {
    const sizes = decoderSizes("weight", shape, patch, latent, layers);
    const [rows, cols] = shape;
    const down = rows / patch;
    return compound(shape, {
      kind: "decoder",
      latent: isOneTensor(latent) ? upload(latent) : plain(latent),
      layers: layers.map(({ weights, biases }, i) => {
        return { ...sizes[i], weights: plain(weights), biases: plain(biases) };
      }),
      strips: Array.from({ length: cols / patch }, (_, strip) => ({
        places: integers(patch, (c) => strip * patch + c),
        images: integers(down, (i) => strip * down + i),
        ...(scales && { scales: column(scales, Math.floor((strip * patch * scales.cols) / cols)) }),
      })),
    });
  }
}

function isOneTensor({ expression: e }: Weight): boolean {
  return e.kind === "packed" || e.kind === "codebook";
}

function bookOf(
  [rows, cols]: readonly number[],
  { codes, codeBits, book, down }: Expression & { readonly kind: "codebook" },
): BookOfCodes {
  const entries = decodeWeight(book);
  checkCodes(codes, codeBits, entries.rows, ...codesShape(rows, cols, entries.cols, down));
  return { codes, codeBits, book: entries, down };
}

/** Bits in the layout of `binary`, whose scale is 1. */
function signs(shape: readonly number[], bits: Part): Weight {
  const [rows, cols] = shape;
  const codes = { ...bits, shape: [rows, Math.ceil(cols / 8)] };
  const scales = partOf("f16", [rows, 1], new Float16Array(rows).fill(1));
  return packedWeight(shape, "binary", { codes, scales });
}
