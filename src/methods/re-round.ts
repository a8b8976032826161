import type { Backend } from "../backends/backend.ts";
import { pauses } from "../record/pause.ts";
import { hostTensor, type Matrix, transposed } from "../tensor/tensor.ts";
import { slices } from "./slices.ts";
import { damp } from "./spread-errors.ts";

export interface ReRoundOptions {
  /** Columns that are rounded together; divides their number. */
  readonly together?: number;
  /** Rows that are rounded together and change only together. Default 1. */
  readonly rowsTogether?: number;
  /** Columns whose changes are carried at once to all the others, a multiple of `together`; changes speed, not the result. */
  readonly block?: number;
  readonly damping?: number;
  readonly signal?: AbortSignal;
}

/**
 * One sweep of coordinate descent over columns that were rounded already: with all others as they are, the errors
 * E = W − Ŵ cost the least in columns J where these are
 *
 *   T_J = Ŵ_J + (E·H)_J·(H_JJ)⁻¹
 *
 * and errors from there cost ‖·‖² under H_JJ. `rounded` gives a Ŵ_J for T_J (both a column after another, count·rows);
 * where it costs less than what was there (rows first·rowsTogether … decide together) it takes its place, and
 * `taken(first, r)` is told for the first row r of each. Ŵ is changed in place. The rounds `quip_tune_iters` of QuIP# are
 * such (Tseng et al., 2024, https://arxiv.org/abs/2402.04396, section 4.1), for vectors and without the comparison.
 */
export async function reRound(
  backend: Backend,
  W: Matrix,
  Ŵ: Matrix,
  H0: Float32Array,
  { together = 1, rowsTogether = 1, block = 128, damping = 0.01, signal }: ReRoundOptions,
  rounded: (first: number, T: Float32Array) => Float32Array | Promise<Float32Array>,
  taken: (first: number, row: number) => void,
): Promise<void> {
  const { rows, cols } = W;
  const H = H0.slice();
  damp(H, cols, damping);
  const pause = pauses({ signal });
  const at = (i: number, j: number) => H[i * cols + j];
  const columns = transposed(Ŵ);
  const before = transposed(W).data.map((w, i) => columns.data[i] - w);
  const h = backend.upload(hostTensor([cols, cols], H));
  const changes = backend.upload(hostTensor([cols, rows], before)); // −Eᵀ at first
  const g = backend.zeros([cols, rows]); // (E·H)ᵀ, kept for the columns to come
  const carry = async (from: number, to: number, fromK: number) => {
    for (const [k, end] of slices(fromK, cols, (to - from) * rows)) {
      backend.gptqUpdate(g, changes, h, from, to, k, end);
      await pause();
    }
  };
  try {
    await carry(0, cols, 0);
    for (let from = 0; from < cols; from += block) {
      const to = Math.min(from + block, cols);
      const view = backend.rows(g, from, to);
      const gradient = (await backend.read(view)) as Float32Array;
      backend.free(view);
      const changed = new Float32Array(gradient.length);
      for (let first = from; first < to; first += together) {
        const inverse = inverseOf(together, (i, j) => at(first + i, first + j));
        const now = columns.data.subarray(first * rows, (first + together) * rows);
        const T = now.slice();
        for (let j = 0; j < together; j++) {
          for (let k = 0; k < together; k++) {
            const factor = inverse[k * together + j];
            const slope = gradient.subarray((first - from + k) * rows, (first - from + k + 1) * rows);
            for (let r = 0; r < rows; r++) T[j * rows + r] += slope[r] * factor;
          }
        }
        const next = await rounded(first, T);
        const cost = (of: Float32Array, r: number) => {
          let sum = 0;
          for (let i = 0; i < together; i++) {
            const e = T[i * rows + r] - of[i * rows + r];
            for (let j = 0; j < together; j++)
              sum += e * at(first + i, first + j) * (T[j * rows + r] - of[j * rows + r]);
          }
          return sum;
        };
        for (let top = 0; top < rows; top += rowsTogether) {
          const end = Math.min(top + rowsTogether, rows);
          let gain = 0;
          for (let r = top; r < end; r++) gain += cost(now, r) - cost(next, r);
          if (!(gain > 0)) continue;
          taken(first, top);
          for (let j = 0; j < together; j++) {
            for (let r = top; r < end; r++) {
              changed[(first - from + j) * rows + r] = next[j * rows + r] - now[j * rows + r];
              now[j * rows + r] = next[j * rows + r];
            }
          }
        }
        for (let j = first; j < first + together; j++) {
          const change = changed.subarray((j - from) * rows, (j - from + 1) * rows);
          for (let k = first + together; k < to; k++) {
            const slope = gradient.subarray((k - from) * rows, (k - from + 1) * rows);
            const factor = at(j, k);
            for (let r = 0; r < rows; r++) slope[r] -= factor * change[r];
          }
        }
        await pause();
      }
      const written = backend.rows(changes, from, to);
      backend.write(written, changed);
      backend.free(written);
      await carry(from, to, to);
    }
  } finally {
    for (const t of [g, h, changes]) backend.free(t);
  }
  Ŵ.data.set(transposed(columns).data);
}

/** What each row of Ŵ is to be multiplied by for the least tr(E·H·Eᵀ): (w·H·ŵᵀ)/(ŵ·H·ŵᵀ), 1 for a row of zeros. */
export async function rowFactors(
  backend: Backend,
  W: Matrix,
  Ŵ: Matrix,
  H: Float32Array,
  { signal }: { signal?: AbortSignal } = {},
): Promise<Float64Array> {
  const { rows, cols } = W;
  const pause = pauses({ signal });
  const factors = new Float64Array(rows).fill(1);
  for (const [from, to] of slices(0, rows, cols * cols)) {
    const part = Ŵ.data.subarray(from * cols, to * cols);
    const product = backend.scope(() =>
      backend.linear(
        backend.upload(hostTensor([to - from, cols], part)),
        backend.upload(hostTensor([cols, cols], H)),
      ),
    );
    const y = (await backend.read(product)) as Float32Array;
    backend.free(product);
    for (let r = from; r < to; r++) {
      let [both, own] = [0, 0];
      for (let c = 0; c < cols; c++) {
        both += W.data[r * cols + c] * y[(r - from) * cols + c];
        own += Ŵ.data[r * cols + c] * y[(r - from) * cols + c];
      }
      if (own > 0) factors[r] = both / own;
    }
    await pause();
  }
  return factors;
}

/** The inverse (n, n) of the symmetric positive definite a, by elimination in 64 bits. */
function inverseOf(n: number, a: (i: number, j: number) => number): Float64Array {
  const rows = Array.from({ length: n }, (_, i) =>
    Float64Array.from({ length: 2 * n }, (_, j) => (j < n ? a(i, j) : j - n === i ? 1 : 0)),
  );
  for (let p = 0; p < n; p++) {
    const pivot = rows[p][p];
    for (let j = 0; j < 2 * n; j++) rows[p][j] /= pivot;
    for (let i = 0; i < n; i++) {
      if (i === p) continue;
      const factor = rows[i][p];
      for (let j = 0; j < 2 * n; j++) rows[i][j] -= factor * rows[p][j];
    }
  }
  return Float64Array.from({ length: n * n }, (_, i) => rows[Math.floor(i / n)][n + (i % n)]);
}
