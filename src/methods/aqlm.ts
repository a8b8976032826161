import { z } from "zod";
import type { Backend } from "../backends/backend.ts";
import { pauses } from "../record/pause.ts";
import type { Job } from "../record/record.ts";
import {
  hostTensor,
  InputError,
  identity,
  type Matrix,
  matrix,
  type Tensor,
  transposed,
} from "../tensor/tensor.ts";
import { type Additive, additiveMatrix, additiveSums, additiveWeight, openBeams } from "./additive.ts";
import { conjugateGradients } from "./conjugate-gradients.ts";
import { kMeans } from "./k-means.ts";
import type { Decomposition } from "./method.ts";
import { rowProducts } from "./row-products.ts";
import { damp, prepare, spreadFactor } from "./spread-errors.ts";
import { checkVectorOptions, storedScales, sweepVectors, times } from "./vector-codes.ts";

/** The most books that are added up. */
const MOST_BOOKS = 16;

const options = z.strictObject({
  /** Bits of a vector's codes together, for each weight. */
  bits: z.number().min(0.5).max(8).default(2),
  /** g: weights of a vector, neighbours in a row. */
  length: z.int().min(1).max(64).default(4),
  /** M: books whose entries are added up. Default: the fewest that take less than a twentieth of what the codes take. */
  books: z.int().min(1).max(MOST_BOOKS).optional(),
  /** K: entries of each book. Default: 2^(bits·length/books). */
  entries: z.int().min(2).max(65536).optional(),
  /** Sums that the search for codes goes on with. */
  beam: z.int().min(1).max(64).default(8),
  /** Rounds of books and codes, at most. */
  rounds: z.int().min(0).default(20),
  /** A round that lowers the error by less than this share is the last. */
  tolerance: z.number().min(0).default(0.003),
  /** Share of its mean that is added to the diagonal of H. */
  damping: z.number().positive().default(0.01),
  seed: z.int().default(0),
});

export type AqlmOptions = z.infer<typeof options>;

/** Steps of conjugate gradients in a round. */
const STEPS = 8;
/** What books may take of the codes' bits where the number of books is ours to choose. */
const BOOKS_SHARE = 0.05;

/**
 * AQLM: every vector of g weights of a row is a sum of entries, one of each of M
 * books, times the row's scale, fitted to the layer's outputs:
 *
 *   Ŵ_rj = s_r·Σ_m C_m[b_rjm],   least tr(D·H·Dᵀ),  D = W − Ŵ
 *
 *   begin   C, b: k-means of what the books before leave; b once more with errors spread over the columns to come
 *   repeat  C and s by least squares for the codes as they are, then codes by beam search, one column of vectors after
 *           another, the others as they are
 *
 * Egiazarian et al., 2024 (https://arxiv.org/abs/2401.06118), section 3 without its tuning of blocks. Theirs fits C and s
 * by 100 steps of Adam; the loss is quadratic in each, so ours takes conjugate gradients and the closed form, which need
 * no rate. Their beam is of codes of a whole row, ours of those of a vector. The sweep at the beginning is ours.
 *
 * Without calibration H = I. Books take 16·M·K·g bits. At 2 bits matrices of up to 163,840 weights get 2 books of 16
 * entries for vectors of 4, larger ones one of 256; the paper's 2 of 256 for vectors of 8 (`length` 8, `books` 2) take less
 * than a twentieth from 655,360 weights on. At 3 bits it is 2 of 64, from 1,747,627 weights on one of 4096.
 */
export const aqlm: Decomposition<AqlmOptions> = {
  kind: "decomposition",
  name: "aqlm",
  paper: "Egiazarian et al., 2024 (https://arxiv.org/abs/2401.06118)",
  calibrated: false,
  options,

  check(size, chosen) {
    const { length, entries } = settle(size, chosen);
    checkVectorOptions("aqlm", size, { length, entries, group: size.cols });
  },

  async decompose(source, context, chosen) {
    const { backend, signal } = context;
    const { W, H } = context.H
      ? await prepare("aqlm", source, context.H, backend)
      : { W: source, H: identity(source.cols).data };
    const { damping, seed, beam, rounds, tolerance } = chosen;
    const U = context.H && (await spreadFactor(backend, H, { damping, signal }));
    if (context.H) damp(H, W.cols, damping);
    const hessian = backend.upload(hostTensor([W.cols, W.cols], H));
    try {
      let state = await begin(backend, W, H, { ...settle(W, chosen), seed, signal });
      const job = { signal };
      if (U) state = await spread(backend, W, U, state, beam, job);
      let before = Number.POSITIVE_INFINITY;
      for (let round = 0; round < rounds; round++) {
        state = await fitBooks(backend, W, hessian, H, state, job);
        state = await fitScales(backend, W, hessian, state, job);
        const { codes, error } = await searchCodes(backend, W, hessian, H, state, beam, job);
        state = { ...state, codes };
        if (!(error < (1 - tolerance) * before)) break;
        before = error;
      }
      const stored = { ...state, scales: halves(state.scales) };
      const { books } = await fitBooks(backend, W, hessian, H, stored, job);
      const final = { ...stored, books: halves(books) };
      const { codes } = await searchCodes(backend, W, hessian, H, final, beam, job);
      return additiveWeight({ ...final, codes });
    } finally {
      backend.free(hessian);
    }
  },
};

/** g, M and K of a matrix. */
function settle(
  { rows, cols }: { readonly rows: number; readonly cols: number },
  { bits, length, books, entries }: AqlmOptions,
): { readonly length: number; readonly count: number; readonly entries: number } {
  const size = (m: number) => entries ?? Math.max(2, Math.floor(2 ** ((bits * length) / m)));
  const fits = (m: number) => {
    const most = (BOOKS_SHARE * bits * rows * cols) / (16 * length);
    return Number.isInteger((bits * length) / m) && size(m) <= 65536 && m * size(m) <= most;
  };
  const counts = Array.from({ length: MOST_BOOKS }, (_, i) => i + 1);
  const count =
    books ?? counts.find(fits) ?? counts.findLast((m) => Number.isInteger((bits * length) / m)) ?? 1;
  return { length, count, entries: size(count) };
}

/** Scales of rows, and book after book by k-means of what is left of the vectors over them. */
async function begin(
  backend: Backend,
  W: Matrix,
  H: Float32Array,
  options: ReturnType<typeof settle> & { readonly seed: number; readonly signal?: AbortSignal },
): Promise<Additive> {
  const { rows, cols } = W;
  const { length, count, entries, seed, signal } = options;
  const scales = storedScales(W, cols).values.data;
  const vectors = cols / length;
  const rest = new Float32Array(W.data.length);
  const weights = new Float32Array(W.data.length);
  for (let i = 0; i < rest.length; i++) {
    const s = scales[Math.floor(i / cols)];
    rest[i] = s === 0 ? 0 : W.data[i] / s;
    weights[i] = s * s * H[(i % cols) * (cols + 1)];
  }
  const books = new Float32Array(count * entries * length);
  const codes = new Int32Array(rows * vectors * count);
  for (let m = 0; m < count; m++) {
    const book = await kMeans(backend, rest, { length, entries, weights, seed: seed + m, signal });
    books.set(book.entries.data, m * entries * length);
    for (const [i, code] of book.codes.entries()) {
      for (let j = 0; j < length; j++) rest[i * length + j] -= book.entries.data[code * length + j];
      codes[((i % vectors) * rows + Math.floor(i / vectors)) * count + m] = code;
    }
  }
  return { rows, cols, length, count, entries, scales, books, codes };
}

/** Codes in the order of the columns, errors spread over those to come. */
async function spread(
  backend: Backend,
  W: Matrix,
  U: Float32Array,
  state: Additive,
  beam: number,
  { signal }: Job,
): Promise<Additive> {
  const { rows, length, count, entries, scales, books } = state;
  const codes = state.codes.slice();
  const beams = openBeams(backend, rows, state, beam);
  try {
    await sweepVectors(
      backend,
      W,
      U,
      { length, scale: (r) => scales[r], signal },
      async (first, x, metric) => {
        const own = codes.subarray((first / length) * rows * count, (first / length + 1) * rows * count);
        await beams.search(own, times(x, metric, length), times(books, metric, length));
        return additiveMatrix({ ...state, cols: length, entries, codes: own }, books, true);
      },
    );
  } finally {
    beams.free();
  }
  return { ...state, codes };
}

/**
 * The books with the least error for these codes and scales, by conjugate
 * gradients over the mean of each entry's own weights (Jacobi). Every step lowers the error.
 */
async function fitBooks(
  backend: Backend,
  W: Matrix,
  hessian: Tensor,
  H: Float32Array,
  state: Additive,
  job: Job,
): Promise<Additive> {
  const { rows, cols, scales } = state;
  /** Aᵀ·H·y of y (rows, cols). */
  const back = async (y: Float32Array) =>
    additiveSums(state, (await rowProducts(backend, matrix(rows, cols, y), hessian, job)).data);
  const own = new Float32Array(rows * cols);
  for (let i = 0; i < own.length; i++) own[i] = scales[Math.floor(i / cols)] * H[(i % cols) * (cols + 1)];
  const diagonal = additiveSums(state, own);
  const residual = await back(difference(W.data, additiveMatrix(state, state.books)));
  const times = (p: Float32Array) => back(additiveMatrix(state, p));
  const books = await conjugateGradients(state.books, { times, residual, diagonal }, STEPS, job);
  return { ...state, books };
}

/** s_r = w·H·uᵀ/(u·H·uᵀ), u the row before it is scaled. */
async function fitScales(
  backend: Backend,
  W: Matrix,
  hessian: Tensor,
  state: Additive,
  job: Job,
): Promise<Additive> {
  const { rows, cols } = state;
  const u = additiveMatrix(state, state.books, true);
  const { data: uH } = await rowProducts(backend, matrix(rows, cols, u), hessian, job);
  const scales = state.scales.map((s, r) => {
    let [all, own] = [0, 0];
    for (let i = r * cols; i < (r + 1) * cols; i++) {
      all += W.data[i] * uH[i];
      own += u[i] * uH[i];
    }
    return own > 0 ? all / own : s;
  });
  return { ...state, scales };
}

/**
 * Codes, one column of vectors J after another for all rows: with D·H of all
 * others as they are, what this column adds to the error is
 *
 *   ‖(t − ŵ)·L‖²,  L·Lᵀ = H_JJ,  t = ŵ + (D·H)_J·H_JJ⁻¹
 *
 * `error` is tr(D·H·Dᵀ) with the new codes.
 */
async function searchCodes(
  backend: Backend,
  W: Matrix,
  hessian: Tensor,
  H: Float32Array,
  state: Additive,
  beam: number,
  job: Job,
): Promise<{ codes: Int32Array; error: number }> {
  const { rows, cols, length, count, scales, books } = state;
  const pause = pauses(job);
  const codes = state.codes.slice();
  const D = difference(W.data, additiveMatrix(state, books));
  const start = await rowProducts(backend, matrix(rows, cols, D), hessian, job);
  const slopes = backend.upload(hostTensor([cols, rows], transposed(start).data));
  const changes = backend.zeros([cols, rows]);
  const beams = openBeams(backend, rows, state, beam);
  try {
    for (let first = 0; first < cols; first += length) {
      const view = backend.rows(slopes, first, first + length);
      const slope = (await backend.read(view)) as Float32Array; // (length, rows)
      backend.free(view);
      const L = lowerOf(H, cols, first, length);
      const own = codes.subarray((first / length) * rows * count, (first / length + 1) * rows * count);
      const column = { ...state, cols: length, codes: own };
      const before = additiveMatrix(column, books, true);
      const x = times(before, L, length);
      for (let r = 0; r < rows; r++) {
        // + (D·H)_J·L⁻ᵀ/s, by substitution
        const s = scales[r];
        const y = new Float64Array(length);
        for (let i = 0; i < length; i++) {
          let sum = slope[i * rows + r];
          for (let k = 0; k < i; k++) sum -= L[i * length + k] * y[k];
          y[i] = sum / L[i * length + i];
          if (s !== 0) x[r * length + i] += y[i] / s;
        }
      }
      await beams.search(own, x, times(books, L, length));
      const after = additiveMatrix(column, books, true);
      const change = new Float32Array(length * rows);
      for (let r = 0; r < rows; r++) {
        for (let j = 0; j < length; j++) {
          change[j * rows + r] = scales[r] * (after[r * length + j] - before[r * length + j]);
          D[r * cols + first + j] -= change[j * rows + r];
        }
      }
      const place = backend.rows(changes, first, first + length);
      backend.write(place, change);
      backend.free(place);
      backend.gptqUpdate(slopes, changes, hessian, first, first + length, 0, cols);
      await pause();
    }
    const { data: DH } = await rowProducts(backend, matrix(rows, cols, D), hessian, job);
    return { codes, error: dot(D, DH) };
  } finally {
    beams.free();
    for (const t of [slopes, changes]) backend.free(t);
  }
}

/** L (n, n) lower triangular with L·Lᵀ = H_JJ, J the n columns from `first` on. */
function lowerOf(H: Float32Array, cols: number, first: number, n: number): Float64Array {
  const L = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j <= i; j++) {
      let sum = H[(first + i) * cols + first + j];
      for (let k = 0; k < j; k++) sum -= L[i * n + k] * L[j * n + k];
      if (i === j && !(sum > 0)) {
        throw new InputError(`aqlm: H is not positive definite at column ${first + i}; add damping`);
      }
      L[i * n + j] = i === j ? Math.sqrt(sum) : sum / L[j * n + j];
    }
  }
  return L;
}

function halves(x: Float32Array): Float32Array {
  return x.map(Math.f16round);
}

function difference(a: Float32Array, b: Float32Array): Float32Array {
  return a.map((x, i) => x - b[i]);
}

function dot(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}
