import type { Backend } from "../backends/backend.ts";
import { codeBitsFor, packCodes } from "../formats/codebook.ts";
import { partOf } from "../formats/format.ts";
import { encodeWeight, formatByName } from "../formats/index.ts";
import { hostTensor } from "../tensor/tensor.ts";
import type { Weight } from "../tensor/weight.ts";

/** Vectors of weights of a row as scale·Σ_m books_m[code_m]. */
export interface Additive {
  readonly rows: number;
  readonly cols: number;
  /** g: weights of a vector. */
  readonly length: number;
  /** M */
  readonly count: number;
  /** K: entries of each book. */
  readonly entries: number;
  /** (rows) */
  readonly scales: Float32Array;
  /** (M·K, g) */
  readonly books: Float32Array;
  /** (cols/g, rows, M): those of one column of vectors lie together. */
  readonly codes: Int32Array;
}

/** What it stands for, or would with other books, (rows, cols); without the scales where `unscaled`. */
export function additiveMatrix(
  { rows, cols, length, count, entries, scales, codes }: Additive,
  books: Float32Array,
  unscaled = false,
): Float32Array {
  const Ŵ = new Float32Array(rows * cols);
  for (let v = 0; v < cols / length; v++) {
    for (let r = 0; r < rows; r++) {
      const at = r * cols + v * length;
      const scale = unscaled ? 1 : scales[r];
      for (let m = 0; m < count; m++) {
        const entry = (m * entries + codes[(v * rows + r) * count + m]) * length;
        for (let j = 0; j < length; j++) Ŵ[at + j] += scale * books[entry + j];
      }
    }
  }
  return Ŵ;
}

/** Its transpose: Σ scale·x of all vectors of each entry, (M·K, g), in 64 bits. */
export function additiveSums(
  { rows, cols, length, count, entries, scales, codes }: Additive,
  x: Float32Array,
): Float64Array {
  const sums = new Float64Array(count * entries * length);
  for (let v = 0; v < cols / length; v++) {
    for (let r = 0; r < rows; r++) {
      const at = r * cols + v * length;
      for (let m = 0; m < count; m++) {
        const entry = (m * entries + codes[(v * rows + r) * count + m]) * length;
        for (let j = 0; j < length; j++) sums[entry + j] += scales[r] * x[at + j];
      }
    }
  }
  return sums;
}

/** scaleRows(sum(codebook, …)), or of one codebook; books and scales in fp16. */
export function additiveWeight(of: Additive): Weight {
  const { rows, cols, length, count, entries, scales, books, codes } = of;
  const shape = [rows, cols];
  const vectors = cols / length;
  const codeBits = codeBitsFor(entries);
  const terms = Array.from({ length: count }, (_, m): Weight => {
    const own = Int32Array.from(
      { length: rows * vectors },
      (_, i) => codes[((i % vectors) * rows + Math.floor(i / vectors)) * count + m],
    );
    const book = books.subarray(m * entries * length, (m + 1) * entries * length);
    return {
      shape,
      expression: {
        kind: "codebook",
        codes: packCodes(own, rows, vectors, codeBits),
        codeBits,
        book: encodeWeight(formatByName("f16"), [entries, length], book),
      },
    };
  });
  const sum: Weight = count === 1 ? terms[0] : { shape, expression: { kind: "sum", terms } };
  return {
    shape,
    expression: { kind: "scaleRows", scales: partOf("f16", [rows], Float16Array.from(scales)), of: sum },
  };
}

/** The search of `beamEntries` for vectors of one size, on tensors that are kept until `free`. */
export interface Beams {
  /** Changes codes (n, M) for x (n, g) and books (M·K, g), all weights counting alike. */
  search(codes: Int32Array, x: Float32Array, books: Float32Array): Promise<void>;
  free(): void;
}

/** x is (n, length), and a book (entries, length). */
export function openBeams(
  backend: Backend,
  n: number,
  { length, count, entries }: Pick<Additive, "length" | "count" | "entries">,
  beam: number,
): Beams {
  const tensors = {
    codes: backend.upload(hostTensor([n, count], new Int32Array(n * count))),
    errors: backend.zeros([n]),
    x: backend.zeros([n, length]),
    books: backend.zeros([count * entries, length]),
    ones: backend.upload(hostTensor([1, length], new Float32Array(length).fill(1))),
  };
  return {
    async search(codes, x, books) {
      backend.write(tensors.codes, codes);
      backend.write(tensors.x, x);
      backend.write(tensors.books, books);
      backend.beamEntries(tensors.codes, tensors.errors, tensors.x, tensors.books, tensors.ones, beam);
      codes.set((await backend.read(tensors.codes)) as Int32Array);
    },
    free() {
      for (const t of Object.values(tensors)) backend.free(t);
    },
  };
}
