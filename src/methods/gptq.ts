import type { Backend } from "../backends/backend.ts";
import { fitGroups, groupSize, type Parameters } from "../formats/format.ts";
import { pauses } from "../record/pause.ts";
import { hostTensor, InputError, type Matrix, matrix, type Tensor } from "../tensor/tensor.ts";
import type { Rounding } from "./method.ts";
import { slices } from "./slices.ts";
import { upperInverse } from "./upper-inverse.ts";

export interface GptqOptions {
  /** Added to the diagonal of H, as a share of its mean; 0.01 in the paper's code. */
  readonly damping?: number;
  /** Columns in descending order of diag(H) instead of their own. Asks for static groups. */
  readonly actOrder?: boolean;
  /** Groups fitted to the weights as they were, not to what errors have made of them. Default: as `actOrder`. */
  readonly staticGroups?: boolean;
  /** Columns whose errors are spread at once over all columns to come; changes speed, not the result. */
  readonly block?: number;
}

/**
 * GPTQ: quantize one column at a time and spread each column's error over the
 * columns not yet quantized, weighted by the inverse Hessian.
 *
 * Algorithm 1 of Frantar et al., 2022 (https://arxiv.org/abs/2210.17323), all
 * matrices transposed so that a column of W lies in one piece. A group's
 * parameters are fitted when its first column is reached, from the weights as
 * they are then (unless static). Columns that no input reaches (H_jj = 0) are
 * set to 0 first. With H = I it is round to nearest, bit for bit.
 */
export const gptq: Rounding<GptqOptions> = {
  kind: "rounding",
  name: "gptq",
  paper: "Frantar et al., 2022 (https://arxiv.org/abs/2210.17323)",
  calibrated: true,

  async quantize(source, format, { backend, H: hessian, signal }, options = {}) {
    if (!hessian) throw new InputError("gptq: needs calibration data (H); use rtn without it");
    const { damping = 0.01, actOrder = false, staticGroups = actOrder, block = 128 } = options;
    if (actOrder && !staticGroups) {
      throw new InputError("gptq: actOrder needs staticGroups, as a group's columns no longer come together");
    }
    const { rows, cols } = source;
    format.parts(rows, cols); // refuses a row that whole groups do not fill
    const size = groupSize(format, rows, cols);
    const groupOf = (r: number, column: number) => Math.floor((r * cols + column) / size);
    const pause = pauses({ signal });

    const H = (await backend.read(hessian)) as Float32Array; // (cols, cols)
    if (!Number.isFinite(meanDiagonal(H, cols))) {
      throw new InputError(
        "gptq: calibration data gives an H that is not finite; use other text, or rtn without it",
      );
    }
    const W = withoutDead(source, H); // (rows, cols)
    const importance = Float32Array.from({ length: cols }, (_, j) => H[j * cols + j]);
    const order = actOrder ? descending(importance) : ascending(cols); // order[j]: the j-th column to be quantized
    damp(H, cols, damping);
    const U = await upperInverse(backend, reorder(H, order), { signal }); // (cols, cols) H⁻¹ = Uᵀ·U

    const codes = new Uint8Array(rows * cols);
    const fixed = staticGroups || size >= cols;
    const parameters = fixed ? fitGroups(format, W, importance) : new Array<Parameters>((rows * cols) / size);
    const width = fixed ? block : Math.ceil(block / size) * size; // a group is never cut

    const w = backend.upload(hostTensor([cols, rows], transpose(W, order)));
    const errors = backend.zeros([cols, rows]);
    const u = backend.upload(hostTensor([cols, cols], U));
    try {
      for (let from = 0; from < cols; from += width) {
        const to = Math.min(from + width, cols);
        const blockW = await readColumns(backend, w, from, to);
        const blockErrors = new Float32Array(blockW.length);

        for (let j = from; j < to; j++) {
          const wj = blockW.subarray((j - from) * rows, (j - from + 1) * rows);
          const error = blockErrors.subarray((j - from) * rows, (j - from + 1) * rows);
          const column = order[j];

          if (!fixed && j % size === 0) {
            const now = new Float32Array(size);
            for (let r = 0; r < rows; r++) {
              for (let i = 0; i < size; i++) now[i] = blockW[(j - from + i) * rows + r];
              parameters[groupOf(r, column)] = format.fitGroup(now, importance.subarray(j, j + size));
            }
          }

          for (let r = 0; r < rows; r++) {
            const p = parameters[groupOf(r, column)];
            const index = (r * cols + column) % size;
            const code = format.nearest(wj[r], p, index);
            error[r] = (wj[r] - format.value(code, p, index)) / U[j * cols + j];
            codes[r * cols + column] = code;
          }
          for (let k = j + 1; k < to; k++) {
            const wk = blockW.subarray((k - from) * rows, (k - from + 1) * rows);
            const factor = U[j * cols + k];
            for (let r = 0; r < rows; r++) wk[r] -= factor * error[r];
          }
          await pause();
        }

        writeColumns(backend, errors, from, to, blockErrors);
        for (const [fromK, toK] of slices(to, cols, (to - from) * rows)) {
          backend.gptqUpdate(w, errors, u, from, to, fromK, toK);
          await pause();
        }
      }
    } finally {
      for (const t of [w, errors, u]) backend.free(t);
    }
    return { codes, parameters };
  },
};

/** W with its columns set to 0 that no input reaches; their diagonal in H becomes the mean, so that H can be inverted. */
function withoutDead(W: Matrix, H: Float32Array): Matrix {
  const { rows, cols } = W;
  const living = matrix(rows, cols, W.data.slice());
  const mean = meanDiagonal(H, cols);
  for (let j = 0; j < cols; j++) {
    if (H[j * cols + j] !== 0) continue;
    H[j * cols + j] = mean || 1;
    for (let r = 0; r < rows; r++) living.data[r * cols + j] = 0;
  }
  return living;
}

/** H ← H + damping·mean(diag H)·I */
function damp(H: Float32Array, n: number, damping: number): void {
  const more = damping * meanDiagonal(H, n);
  for (let j = 0; j < n; j++) H[j * n + j] += more;
}

function meanDiagonal(H: Float32Array, n: number): number {
  let sum = 0;
  for (let j = 0; j < n; j++) sum += H[j * n + j];
  return sum / n;
}

function ascending(n: number): Uint32Array {
  return Uint32Array.from({ length: n }, (_, j) => j);
}

/** Places of the values, the greatest first; equal ones in their own order. */
function descending(values: Float32Array): Uint32Array {
  return ascending(values.length).sort((a, b) => values[b] - values[a] || a - b);
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
