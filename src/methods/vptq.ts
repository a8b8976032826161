import { z } from "zod";
import type { Backend } from "../backends/backend.ts";
import { codeBitsFor, packCodes } from "../formats/codebook.ts";
import { partOf } from "../formats/format.ts";
import { encodeWeight, formatByName } from "../formats/index.ts";
import type { Job } from "../record/record.ts";
import { halfAway } from "../tensor/rounding.ts";
import { hostTensor, InputError, type Matrix, matrix, transposed } from "../tensor/tensor.ts";
import type { Weight } from "../tensor/weight.ts";
import { conjugateGradients } from "./conjugate-gradients.ts";
import { kMeans } from "./k-means.ts";
import type { Decomposition } from "./method.ts";
import { rowProducts } from "./row-products.ts";
import { damp, descending, diagonal, prepare, spreadErrors, spreadFactor } from "./spread-errors.ts";
import { storedScales } from "./vector-codes.ts";

const options = z.strictObject({
  /** Bits of a vector's codes in the main and the residual book together, for each weight. */
  bits: z.number().min(0.5).max(8).default(2),
  /** v: weights of a vector, neighbours in a column. */
  length: z.int().min(1).max(64).default(4),
  /** Bits of a vector's code in the residual book, part of `bits`·v; 0 for none. */
  residual: z.int().min(0).max(16).default(0),
  /** Share of the columns that have a book of their own: those with the largest diagonal of H. */
  outliers: z.number().min(0).max(0.5).default(0.01),
  /** Entries of the outlier columns' book. */
  outlierEntries: z.int().min(2).max(65536).default(16),
  /** Share of its mean that is added to the diagonal of H. */
  damping: z.number().positive().default(0.01),
  seed: z.int().default(0),
});

export type VptqOptions = z.infer<typeof options>;

/** Steps of conjugate gradients that fit the books to the codes. */
const STEPS = 30;

/**
 * VPTQ: vectors of v weights of one input column, coded column after column
 * with errors spread over the columns to come, so that no vector mixes inputs:
 *
 *   Ŵ_Rc = s·(C[i_Rc] + C_residual[j_Rc] + C_outlier[k_Rc] in outlier columns)
 *
 * Books begin as those of k-means in which a vector counts by its column's diagonal of H and its rows' scales; at the end
 * they become those with the least error for the codes, where the paper takes 100 steps of Adam.
 *
 * Liu et al., 2024 (https://arxiv.org/abs/2409.17066), section 3. Theirs codes outlier columns in
 * their own book alone; ours adds it to the main one, which costs them no more than they had and spares an order of
 * the columns. Scales are root mean squares of rows, 16 bits each. Without calibration every vector has its nearest entries.
 */
export const vptq: Decomposition<VptqOptions> = {
  kind: "decomposition",
  name: "vptq",
  paper: "Liu et al., 2024 (https://arxiv.org/abs/2409.17066)",
  calibrated: false,
  options,

  check({ rows, cols }, chosen) {
    const { length, bits, residual } = chosen;
    if (rows % length !== 0) {
      const fitting = Array.from({ length: rows }, (_, i) => i + 1).filter((size) => rows % size === 0);
      throw new InputError(
        `vptq: vectors of ${length} do not fill columns of ${rows}; take ${fitting.slice(0, 6).join(", ")}`,
      );
    }
    const main = bits * length - residual;
    if (!(main >= 1 && main <= 16)) {
      throw new InputError(
        `vptq: ${bits} bits of vectors of ${length} less ${residual} for the residual leave ${main} for a code; that has to be 1 to 16`,
      );
    }
    const entries = Math.max(...booksOf(chosen));
    const vectors = (rows / length) * cols;
    if (entries > vectors) {
      throw new InputError(
        `vptq: a book of ${entries} entries is larger than the ${vectors} vectors of ${rows}×${cols}; take fewer bits or shorter vectors`,
      );
    }
  },

  async decompose(source, { backend, H: hessian, signal }, chosen) {
    const { W, H } = hessian ? await prepare("vptq", source, hessian, backend) : { W: source, H: undefined };
    const { rows, cols } = W;
    const { length, damping, seed } = chosen;
    const s = storedScales(W, cols).values.data;
    const h = H ? diagonal(H) : new Float32Array(cols).fill(1);
    const all = Array.from({ length: cols }, (_, c) => c);
    const outliers = H ? outlierColumns(W, h, chosen) : [];
    const usual = all.filter((c) => !outliers.includes(c));
    const [entries, residual] = booksOf(chosen);

    const rest = scaledColumns(W, s);
    const stages: Stage[] = [];
    try {
      for (const { learned, coded, entries: size } of [
        { learned: usual, coded: all, entries },
        { learned: all, coded: all, entries: residual },
        { learned: outliers, coded: outliers, entries: chosen.outlierEntries },
      ]) {
        if (size === 0 || coded.length === 0) continue;
        const { x, weights } = learningSet(rest, learned, h, s);
        const book = await kMeans(backend, x, { length, entries: size, weights, seed, signal });
        const stage = openStage(backend, book.entries, s, coded, cols);
        stages.push(stage);
        for (const c of coded) await stage.take(c, rest.subarray(c * rows, (c + 1) * rows));
      }
      if (H) {
        const U = await spreadFactor(backend, H, { damping, signal });
        await spreadErrors(backend, W, U, { signal }, async ({ first, column }) => {
          const w = column(first);
          const left = w.map((value, r) => (s[r] === 0 ? 0 : value / s[r]));
          for (const stage of stages) await stage.take(first, left);
          return w.map((value, r) => (s[r] === 0 ? 0 : value - s[r] * left[r]));
        });
        damp(H, cols, damping);
        await fitBooks(backend, W, H, s, stages, { signal });
      }
      const terms = stages.map((stage) => stored(stage, rows, cols));
      const shape = [rows, cols];
      const sum: Weight = terms.length === 1 ? terms[0] : { shape, expression: { kind: "sum", terms } };
      const scales = partOf("f16", [rows], Float16Array.from(s));
      return { shape, expression: { kind: "scaleRows", scales, of: sum } };
    } finally {
      for (const stage of stages) stage.free();
    }
  },
};

/** Entries of the main and of the residual book, 0 for none. */
function booksOf({ bits, length, residual }: VptqOptions): readonly [main: number, residual: number] {
  return [halfAway(2 ** (bits * length - residual)), residual === 0 ? 0 : 2 ** residual];
}

/** The columns with a book of their own, in ascending order; none where they have fewer vectors than it has entries. */
function outlierColumns(
  { rows, cols }: Matrix,
  h: Float32Array,
  { outliers, outlierEntries, length }: VptqOptions,
): number[] {
  const count = Math.ceil(outliers * cols);
  if ((count * rows) / length < outlierEntries) return [];
  return Array.from(descending(h).subarray(0, count)).sort((a, b) => a - b);
}

/** The columns over the scales of their rows, one after another: (cols, rows). */
function scaledColumns(W: Matrix, s: Float32Array): Float32Array {
  const x = transposed(W).data;
  for (let i = 0; i < x.length; i++) {
    const scale = s[i % W.rows];
    x[i] = scale === 0 ? 0 : x[i] / scale;
  }
  return x;
}

/** The vectors of some columns, and what their elements count: h_c·s_r², the mean being 1. */
function learningSet(
  columns: Float32Array,
  some: readonly number[],
  h: Float32Array,
  s: Float32Array,
): { x: Float32Array; weights: Float32Array } {
  const rows = s.length;
  const x = new Float32Array(some.length * rows);
  const weights = new Float32Array(x.length);
  let sum = 0;
  for (const [i, c] of some.entries()) {
    x.set(columns.subarray(c * rows, (c + 1) * rows), i * rows);
    for (let r = 0; r < rows; r++) {
      weights[i * rows + r] = h[c] * s[r] ** 2;
      sum += weights[i * rows + r];
    }
  }
  const mean = sum / weights.length;
  return { x, weights: mean > 0 ? weights.map((w) => w / mean) : weights.fill(1) };
}

/** A book and the columns that it codes. */
interface Stage {
  /** (entries, length) */
  book: Matrix;
  readonly columns: readonly number[];
  /** (columns, vectors of a column) */
  readonly codes: Int32Array;
  /** Codes column c, over its scales (rows), where it is one of them, and takes from it what they stand for. */
  take(c: number, column: Float32Array): Promise<void>;
  free(): void;
}

function openStage(
  backend: Backend,
  book: Matrix,
  s: Float32Array,
  columns: readonly number[],
  cols: number,
): Stage {
  const { rows: entries, cols: length, data } = book;
  const blocks = s.length / length;
  const places = new Int32Array(cols).fill(-1);
  for (const [at, c] of columns.entries()) places[c] = at;
  const tensors = {
    codes: backend.upload(hostTensor([blocks], new Int32Array(blocks))),
    errors: backend.zeros([blocks]),
    x: backend.zeros([blocks, length]),
    book: backend.upload(hostTensor([entries, length], data)),
    weights: backend.upload(
      hostTensor(
        [blocks, length],
        s.map((scale) => scale ** 2),
      ),
    ),
  };
  const codes = new Int32Array(columns.length * blocks);
  return {
    book,
    columns,
    codes,
    async take(c, column) {
      if (places[c] < 0) return;
      backend.write(tensors.x, column);
      backend.nearestEntries(tensors.codes, tensors.errors, tensors.x, tensors.book, tensors.weights);
      const chosen = (await backend.read(tensors.codes)) as Int32Array;
      codes.set(chosen, places[c] * blocks);
      for (let r = 0; r < column.length; r++) {
        column[r] -= data[chosen[Math.floor(r / length)] * length + (r % length)];
      }
    },
    free() {
      for (const t of Object.values(tensors)) backend.free(t);
    },
  };
}

/** The books of all stages become those with the least tr(D·H·Dᵀ) for their codes, in fp16. */
async function fitBooks(
  backend: Backend,
  W: Matrix,
  H: Float32Array,
  s: Float32Array,
  stages: readonly Stage[],
  job: Job,
): Promise<void> {
  const { rows, cols } = W;
  const sizes = stages.map(({ book }) => book.data.length);
  const total = sizes.reduce((a, b) => a + b);
  /** Calls with the place of an element in the matrix, its row, and its number's place in all books. */
  const visit = (each: (at: number, r: number, k: number) => void) => {
    let from = 0;
    for (const { book, columns, codes } of stages) {
      const { cols: length } = book;
      const blocks = rows / length;
      for (const [i, c] of columns.entries()) {
        for (let r = 0; r < rows; r++) {
          const code = codes[i * blocks + Math.floor(r / length)];
          each(r * cols + c, r, from + code * length + (r % length));
        }
      }
      from += book.data.length;
    }
  };
  const forward = (p: Float32Array) => {
    const Ŵ = new Float32Array(rows * cols);
    visit((at, r, k) => {
      Ŵ[at] += s[r] * p[k];
    });
    return Ŵ;
  };
  const back = (y: Float32Array) => {
    const sums = new Float64Array(total);
    visit((at, r, k) => {
      sums[k] += s[r] * y[at];
    });
    return sums;
  };
  const hessian = backend.upload(hostTensor([cols, cols], H));
  try {
    const times = async (y: Float32Array) =>
      back((await rowProducts(backend, matrix(rows, cols, y), hessian, job)).data);
    const start = new Float32Array(total);
    let from = 0;
    for (const { book } of stages) {
      start.set(book.data, from);
      from += book.data.length;
    }
    const Ŵ = forward(start);
    const own = W.data.map((_, at) => s[Math.floor(at / cols)] * H[(at % cols) * (cols + 1)]);
    const quadratic = {
      times: (p: Float32Array) => times(forward(p)),
      residual: await times(W.data.map((w, at) => w - Ŵ[at])),
      diagonal: back(own),
    };
    const fitted = (await conjugateGradients(start, quadratic, STEPS, job)).map(Math.f16round);
    from = 0;
    for (const stage of stages) {
      const { rows: entries, cols: length, data } = stage.book;
      stage.book = matrix(entries, length, fitted.slice(from, from + data.length));
      from += data.length;
    }
  } finally {
    backend.free(hessian);
  }
}

/** A stage over the scales: its codes down the columns, at their places where these are not all. */
function stored({ book, columns, codes }: Stage, rows: number, cols: number): Weight {
  const { rows: entries, cols: length, data } = book;
  const blocks = rows / length;
  const codeBits = codeBitsFor(entries);
  const turned = transposed(matrix(columns.length, blocks, Float32Array.from(codes))).data;
  const of: Weight = {
    shape: [rows, columns.length],
    expression: {
      kind: "codebook",
      codes: packCodes(turned, blocks, columns.length, codeBits),
      codeBits,
      book: encodeWeight(formatByName("f16"), [entries, length], data),
      down: true,
    },
  };
  if (columns.length === cols) return of;
  const places = partOf("u16", [columns.length], Uint16Array.from(columns));
  return { shape: [rows, cols], expression: { kind: "placeColumns", places, of } };
}
