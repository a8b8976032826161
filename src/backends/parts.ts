import { checkCodes } from "../formats/codebook.ts";
import { numbersOf } from "../formats/compose-weight.ts";
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
import { type Part, packedWeight, type Weight } from "../tensor/weight.ts";

/** Codes with their book, as the kernels read them; scales (rows, groups) of groups of columns where there are any. */
export interface BookOfCodes {
  readonly codes: Part;
  readonly codeBits: number;
  readonly book: Matrix;
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
 * floats for what is left (a decoder, a permutation for each block of rows).
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
        if (order.length !== shape[1]) break;
        // Column c is column order[c] of what is permuted, which therefore meets x at the place c.
        const places = new Int32Array(order.length).fill(-1);
        for (let c = 0; c < order.length; c++) places[order[c]] = c;
        const missing = places.indexOf(-1);
        if (missing !== -1) throw new InputError(`weight: its order of columns leaves out column ${missing}`);
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
        if (e.decoder === undefined) return keep(to.codebook(shape, bookOf(shape, e)));
        break;
      case "scaleGroups":
        if (e.of.expression.kind === "codebook" && e.of.expression.decoder === undefined) {
          const scales = decodeWeight(e.scales);
          return keep(to.codebook(shape, { ...bookOf(shape, e.of.expression), scales }));
        }
        break;
    }
    const { rows, cols, data } = decodeWeight({ shape, expression: e });
    return keep(to.plain(hostTensor([rows, cols], data)));
  }

  function numbers(part: Part): Tensor {
    const values = Float32Array.from(numbersOf(part));
    return keep(to.plain(hostTensor([values.length], values)));
  }
}

function bookOf(
  [rows, cols]: readonly number[],
  { codes, codeBits, book }: { readonly codes: Part; readonly codeBits: number; readonly book: Weight },
): BookOfCodes {
  const entries = decodeWeight(book);
  checkCodes(codes, codeBits, entries.rows, rows, cols / entries.cols);
  return { codes, codeBits, book: entries };
}

/** Bits in the layout of `binary`, whose scale is 1. */
function signs(shape: readonly number[], bits: Part): Weight {
  const [rows, cols] = shape;
  const codes = { ...bits, shape: [rows, Math.ceil(cols / 8)] };
  const scales = partOf("f16", [rows, 1], new Float16Array(rows).fill(1));
  return packedWeight(shape, "binary", { codes, scales });
}
