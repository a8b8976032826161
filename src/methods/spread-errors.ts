import type { Backend } from "../backends/backend.ts";
import { pauses } from "../record/pause.ts";
import { hostTensor, InputError, type Matrix, matrix, type Tensor } from "../tensor/tensor.ts";
import { slices } from "./slices.ts";
import { upperInverse } from "./upper-inverse.ts";

export interface SpreadOptions {
  /** order[j]: the j-th column to be rounded. Default: as they stand. */
  readonly order?: Uint32Array;
  /** Columns that are rounded together; divides their number. */
  readonly together?: number;
  /** Columns whose errors are spread at once over all columns to come, a multiple of `together`; changes speed, not the result. */
  readonly block?: number;
  /** Stops between columns. */
  readonly signal?: AbortSignal;
}

/** Some columns that are to be rounded, `count` from the `first` one of the order on. */
export interface Turn {
  readonly first: number;
  readonly count: number;
  /** Column j of the order as it is now, (rows), for any j of the block from `first` on: not to be written into. */
  column(j: number): Float32Array;
  /** U_ij of this turn's columns, 0 ≤ i ≤ j < count: the loss of errors e (1, count) is ‖e·U⁻¹‖². */
  factor(i: number, j: number): number;
}

/**
 * Rounds some columns at a time and spreads their errors over those not yet
 * rounded, weighted by the inverse Hessian: the sweep of GPTQ (Frantar et al.,
 * 2022, https://arxiv.org/abs/2210.17323, Algorithm 1), of which LDLQ (Chee et
 * al., 2023, https://arxiv.org/abs/2307.13304, Theorem 6) is another form. With
 * H⁻¹ = Uᵀ·U and errors E = W_J − Ŵ_J of the columns J,
 *
 *   W_k ← W_k − E·(U_JJ)⁻¹·U_Jk     for all columns k to come
 *
 * and what this turn adds to tr((W−Ŵ)·H·(W−Ŵ)ᵀ), when the later columns mend what they can, is ‖E·(U_JJ)⁻¹‖².
 *
 * `rounded` gives Ŵ_J, a column after another (count·rows), for a turn. W is `prepare`d, U (cols, cols) the `spreadFactor`
 * of its H in the same order.
 */
export async function spreadErrors(
  backend: Backend,
  W: Matrix,
  U: Float32Array,
  options: SpreadOptions,
  rounded: (turn: Turn) => Float32Array | Promise<Float32Array>,
): Promise<void> {
  const { rows, cols } = W;
  const { order = ascending(cols), together = 1, block = 128, signal } = options;
  if (cols % together !== 0)
    throw new InputError(`columns are rounded ${together} at a time, which does not divide ${cols}`);
  const pause = pauses({ signal });

  const w = backend.upload(hostTensor([cols, rows], transpose(W, order)));
  const errors = backend.zeros([cols, rows]);
  const u = backend.upload(hostTensor([cols, cols], U));
  try {
    for (let from = 0; from < cols; from += block) {
      const to = Math.min(from + block, cols);
      const now = await readColumns(backend, w, from, to);
      const spread = new Float32Array(now.length);
      const of = (data: Float32Array, j: number) => data.subarray((j - from) * rows, (j - from + 1) * rows);

      for (let first = from; first < to; first += together) {
        const next = first + together;
        const turn: Turn = {
          first,
          count: together,
          column: (j) => of(now, j),
          factor: (i, j) => U[(first + i) * cols + first + j],
        };
        const Ŵ = await rounded(turn);
        for (let j = first; j < next; j++) {
          const wj = of(now, j);
          const error = of(spread, j);
          const ŵ = Ŵ.subarray((j - first) * rows, (j - first + 1) * rows);
          for (let r = 0; r < rows; r++) error[r] = (wj[r] - ŵ[r]) / U[j * cols + j];
          // The errors of this turn's other columns are what is left of them: E·(U_JJ)⁻¹ by substitution.
          for (let k = j + 1; k < to; k++) {
            const wk = of(now, k);
            const factor = U[j * cols + k];
            for (let r = 0; r < rows; r++) wk[r] -= factor * error[r];
          }
        }
        await pause();
      }

      writeColumns(backend, errors, from, to, spread);
      for (const [fromK, toK] of slices(to, cols, (to - from) * rows)) {
        backend.gptqUpdate(w, errors, u, from, to, fromK, toK);
        await pause();
      }
    }
  } finally {
    for (const t of [w, errors, u]) backend.free(t);
  }
}

/** U (cols, cols) upper triangular with H⁻¹ = Uᵀ·U, of H with `damping` times its mean on the diagonal, in the order of the sweep. */
export function spreadFactor(
  backend: Backend,
  H: Float32Array,
  { damping = 0.01, order, signal }: { damping?: number; order?: Uint32Array; signal?: AbortSignal },
): Promise<Float32Array> {
  const n = Math.sqrt(H.length);
  const damped = reorder(H, order ?? ascending(n));
  damp(damped, n, damping);
  return upperInverse(backend, damped, { signal });
}

/**
 * What the sweep works on: H (cols, cols) as numbers, and W with its columns set to 0 that no input reaches, whose
 * diagonal in H becomes the mean, so that H can be inverted. Throws an InputError that names `method` when H is not finite.
 */
export async function prepare(
  method: string,
  W: Matrix,
  hessian: Tensor | undefined,
  backend: Backend,
): Promise<{ W: Matrix; H: Float32Array }> {
  if (!hessian) throw new InputError(`${method}: needs calibration data (H); use rtn without it`);
  const { rows, cols } = W;
  const H = (await backend.read(hessian)) as Float32Array;
  const mean = meanDiagonal(H, cols);
  if (!Number.isFinite(mean)) {
    throw new InputError(
      `${method}: calibration data gives an H that is not finite; use other text, or rtn without it`,
    );
  }
  const living = matrix(rows, cols, W.data.slice());
  for (let j = 0; j < cols; j++) {
    if (H[j * cols + j] !== 0) continue;
    H[j * cols + j] = mean || 1;
    for (let r = 0; r < rows; r++) living.data[r * cols + j] = 0;
  }
  return { W: living, H };
}

/** Places of the values, the greatest first; equal ones in their own order. */
export function descending(values: Float32Array): Uint32Array {
  return ascending(values.length).sort((a, b) => values[b] - values[a] || a - b);
}

export function ascending(n: number): Uint32Array {
  return Uint32Array.from({ length: n }, (_, j) => j);
}

/** diag(H) */
export function diagonal(H: Float32Array): Float32Array {
  const n = Math.sqrt(H.length);
  return Float32Array.from({ length: n }, (_, j) => H[j * n + j]);
}

/** H ← H + damping·mean(diag H)·I */
export function damp(H: Float32Array, n: number, damping: number): void {
  const more = damping * meanDiagonal(H, n);
  for (let j = 0; j < n; j++) H[j * n + j] += more;
}

function meanDiagonal(H: Float32Array, n: number): number {
  let sum = 0;
  for (let j = 0; j < n; j++) sum += H[j * n + j];
  return sum / n;
}

/** H with rows and columns in another order. */
function reorder(H: Float32Array, order: Uint32Array): Float32Array {
  const n = order.length;
  const result = new Float32Array(n * n);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < n; j++) result[i * n + j] = H[order[i] * n + order[j]];
  }
  return result;
}

/** W (rows, cols) -> (cols, rows), the columns in another order. */
function transpose({ rows, cols, data }: Matrix, order: Uint32Array): Float32Array {
  const result = new Float32Array(rows * cols);
  for (let j = 0; j < cols; j++) {
    for (let r = 0; r < rows; r++) result[j * rows + r] = data[r * cols + order[j]];
  }
  return result;
}

async function readColumns(backend: Backend, w: Tensor, from: number, to: number): Promise<Float32Array> {
  const view = backend.rows(w, from, to);
  const data = (await backend.read(view)) as Float32Array;
  backend.free(view);
  return data;
}

function writeColumns(backend: Backend, errors: Tensor, from: number, to: number, data: Float32Array): void {
  const view = backend.rows(errors, from, to);
  backend.write(view, data);
  backend.free(view);
}
