import type { Backend } from "../backends/backend.ts";
import { encodeWeight, formatByName } from "../formats/index.ts";
import type { Job } from "../record/record.ts";
import { generator, normals } from "../tensor/random.ts";
import {
  hostTensor,
  InputError,
  type Matrix,
  matrix,
  row,
  type Tensor,
  transposed,
} from "../tensor/tensor.ts";
import type { Weight } from "../tensor/weight.ts";
import { rowProducts } from "./row-products.ts";

/**
 * What an error E (rows, cols) counts: ‖diag(rows)·E·R‖², where R is L, or
 * diag(columns), or nothing. All numbers are above 0.
 */
export interface ErrorWeights {
  readonly rows?: Float32Array;
  readonly columns?: Float32Array;
  /** (cols, cols) lower triangular with H = L·Lᵀ: errors count tr(E·H·Eᵀ). Takes the place of `columns`. */
  readonly L?: Tensor;
}

export interface LowRankOptions {
  readonly rank: number;
  /** Default: all errors count alike. */
  readonly weights?: ErrorWeights;
  readonly seed?: number;
  readonly signal?: AbortSignal;
}

export interface LowRank {
  /** (rows, rank) and (rank, cols), each with half of the singular values. */
  readonly a: Matrix;
  readonly b: Matrix;
}

/** How the two factors may be stored. */
export const factorFormats = ["f16", "bf16", "int8", "int4"] as const;

/** The factors as they are stored: a·b as a weight. */
export function lowRankWeight({ a, b }: LowRank, format: string): Weight {
  const part = ({ rows, cols, data }: Matrix) => encodeWeight(formatByName(format), [rows, cols], data);
  return { shape: [a.rows, b.cols], expression: { kind: "lowRank", a: part(a), b: part(b) } };
}

/**
 * A low-rank part that changes nothing yet: A zeros, B normal with deviation
 * 1/√cols (Hu et al., 2021, LoRA, https://arxiv.org/abs/2106.09685, section 4.1).
 */
export function lowRankOfZeros(
  { rows, cols }: { readonly rows: number; readonly cols: number },
  { rank, factors, seed }: { readonly rank: number; readonly factors: string; readonly seed: number },
): Weight {
  const b = normals(generator(seed), rank * cols).map((x) => x / Math.sqrt(cols));
  return lowRankWeight({ a: matrix(rows, rank), b: matrix(rank, cols, b) }, factors);
}

/** Where nobody says: a 64th of the narrower side, at least 1. */
export function defaultRank({ rows, cols }: { readonly rows: number; readonly cols: number }): number {
  return Math.max(1, Math.floor(Math.min(rows, cols) / 64));
}

/** Throws an InputError for a rank that is more than a matrix can have. */
export function checkRank(
  method: string,
  { rows, cols }: { readonly rows: number; readonly cols: number },
  rank: number,
): void {
  const most = Math.min(rows, cols);
  if (rank > most) {
    throw new InputError(`${method}: a rank of ${rank} is more than ${most}, the most of ${rows}×${cols}`);
  }
}

/** Directions looked at beyond the rank, and rounds of power iteration: the error is then that of the best within parts of a percent. */
const BEYOND = 8;
const ROUNDS = 3;

/**
 * The best approximation of rank r, A ≈ a·b, by randomized subspace iteration
 * (Halko, Martinsson and Tropp, 2011, https://arxiv.org/abs/0909.4061,
 * algorithms 4.4 and 5.1). With weights it is the best as these count: that of
 * diag(rows)·A·R, whose factors are then divided by rows and by R. With H =
 * L·Lᵀ this is LQER (Zhang et al., 2024, https://arxiv.org/abs/2402.02446) and
 * EoRA (Liu et al., 2024, https://arxiv.org/abs/2410.21271) in one.
 *
 * A (rows, cols); cost O(rows·cols·(rank + 8)) for each of about 8 products.
 */
export async function lowRankOf(
  backend: Backend,
  A: Matrix,
  { rank, weights = {}, seed = 0, signal }: LowRankOptions,
): Promise<LowRank> {
  const { rows, cols } = A;
  if (!(rank >= 1 && rank <= Math.min(rows, cols))) {
    throw new InputError(
      `low rank: a rank of ${rank} is not in 1 … ${Math.min(rows, cols)} of ${rows}×${cols}`,
    );
  }
  const width = Math.min(rank + BEYOND, rows, cols);
  const M = await weighted(backend, A, weights, { signal });
  const forward = backend.upload(hostTensor([rows, cols], M.data));
  const backward = backend.upload(hostTensor([cols, rows], transposed(M).data));
  const times = (x: Matrix, w: Tensor) => rowProducts(backend, x, w, { signal });
  try {
    // Rows of Q are directions of the rows' space, orthonormal.
    let Q = orthonormal(await times(matrix(width, cols, normals(generator(seed), width * cols)), forward));
    for (let round = 0; round < ROUNDS; round++) {
      Q = orthonormal(await times(orthonormal(await times(Q, backward)), forward));
    }
    const B = await times(Q, backward); // (width, cols): Qᵀ-part of M
    const { u, s, v } = await singular(B);
    // M ≈ Qᵀ·B = (Qᵀ·v)·s·uᵀ
    const a = matrix(rows, rank);
    const b = matrix(rank, cols);
    for (let k = 0; k < rank; k++) {
      const root = Math.sqrt(s[k]);
      for (let r = 0; r < rows; r++) {
        let sum = 0;
        for (let i = 0; i < width; i++) sum += Q.data[i * rows + r] * v[i * width + k];
        a.data[r * rank + k] = root * sum;
      }
      for (let c = 0; c < cols; c++) b.data[k * cols + c] = root * u[c * width + k];
    }
    const { rows: down, columns: across, L } = weights;
    if (down) for (let i = 0; i < a.data.length; i++) a.data[i] /= down[Math.floor(i / rank)];
    if (L) return { a, b: await overLower(b, L) };
    if (across) for (let i = 0; i < b.data.length; i++) b.data[i] /= across[i % cols];
    return { a, b };
  } finally {
    backend.free(forward);
    backend.free(backward);
  }

  /** Bᵀ = u·diag(s)·vᵀ */
  async function singular(B: Matrix) {
    const u = backend.upload(hostTensor([B.cols, B.rows], transposed(B).data));
    const s = backend.zeros([B.rows]);
    const v = backend.zeros([B.rows, B.rows]);
    backend.svd(u, s, v);
    const values = await Promise.all([u, s, v].map((t) => backend.read(t)));
    for (const t of [u, s, v]) backend.free(t);
    return { u: values[0], s: values[1], v: values[2] };
  }

  /** b·L⁻¹: Lᵀ·xᵀ = bᵀ */
  async function overLower(b: Matrix, lower: Tensor): Promise<Matrix> {
    const x = backend.upload(hostTensor([cols, b.rows], transposed(b).data));
    backend.triangularSolve(lower, x, 1, 0, b.rows);
    const solved = matrix(cols, b.rows, (await backend.read(x)) as Float32Array);
    backend.free(x);
    return transposed(solved);
  }
}

/** diag(rows)·E·R: the squares of its elements add up to what E counts. */
export async function weighted(
  backend: Backend,
  E: Matrix,
  { rows: down, columns: across, L }: ErrorWeights,
  job: Job = {},
): Promise<Matrix> {
  const { rows, cols, data } = L ? await timesLower(backend, E, L, job) : E;
  const right = L ? undefined : across;
  if (!down && !right) return { rows, cols, data };
  const scaled = data.map((e, i) => e * (down?.[Math.floor(i / cols)] ?? 1) * (right?.[i % cols] ?? 1));
  return matrix(rows, cols, scaled);
}

/** A·L, for L (cols, cols): ‖A·L‖² = tr(A·H·Aᵀ) where H = L·Lᵀ. */
async function timesLower(backend: Backend, A: Matrix, L: Tensor, job: Job = {}): Promise<Matrix> {
  const lower = matrix(A.cols, A.cols, (await backend.read(L)) as Float32Array);
  return timesTransposed(backend, A, transposed(lower), job);
}

/** A·Bᵀ (rows of A, rows of B). */
export async function timesTransposed(
  backend: Backend,
  A: Matrix,
  B: Matrix,
  job: Job = {},
): Promise<Matrix> {
  const w = backend.upload(hostTensor([B.rows, B.cols], B.data));
  try {
    return await rowProducts(backend, A, w, job);
  } finally {
    backend.free(w);
  }
}

/** Rows made orthonormal in 64 bits, one after the other, twice (modified Gram–Schmidt); a row of nothing else becomes 0. */
function orthonormal(m: Matrix): Matrix {
  const vectors = Array.from({ length: m.rows }, (_, r) => Float64Array.from(row(m, r)));
  for (const [r, v] of vectors.entries()) {
    const before = Math.sqrt(dot(v, v));
    for (let round = 0; round < 2; round++) {
      for (const u of vectors.slice(0, r)) {
        const along = dot(u, v);
        for (let i = 0; i < v.length; i++) v[i] -= along * u[i];
      }
    }
    const norm = Math.sqrt(dot(v, v));
    const scale = norm > 1e-12 * before ? 1 / norm : 0;
    for (let i = 0; i < v.length; i++) v[i] *= scale;
  }
  const result = matrix(m.rows, m.cols);
  for (const [r, v] of vectors.entries()) row(result, r).set(v);
  return result;
}

function dot(a: Float64Array, b: Float64Array): number {
  // Four sums, none of which waits for another.
  let [s0, s1, s2, s3] = [0, 0, 0, 0];
  let i = 0;
  for (; i + 4 <= a.length; i += 4) {
    s0 += a[i] * b[i];
    s1 += a[i + 1] * b[i + 1];
    s2 += a[i + 2] * b[i + 2];
    s3 += a[i + 3] * b[i + 3];
  }
  for (; i < a.length; i++) s0 += a[i] * b[i];
  return s0 + s1 + s2 + s3;
}
