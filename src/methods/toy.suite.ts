import { generator, normals } from "../tensor/random.ts";
import { type Matrix, matrix, row } from "../tensor/tensor.ts";

/** A layer with correlated inputs, for tests of methods: W (rows, cols), H (cols, cols). */
export interface Toy {
  readonly W: Matrix;
  readonly H: Float32Array;
}

/**
 * Gaussian weights, and the Hessian 2·Q·diag(λ)·Qᵀ of inputs with a spectrum
 * λ that falls geometrically from 1 to 0.02² over `cols` random directions Q:
 * activations of deviation 1 along the first and 0.02 along the last.
 */
export function toy(rows: number, cols: number, seed = 1, least = 0.02): Toy {
  const random = generator(seed);
  const W = matrix(rows, cols, normals(random, rows * cols));
  const Q = orthogonal(matrix(cols, cols, normals(random, cols * cols)));
  const H = new Float32Array(cols * cols);
  const sums = new Float64Array(cols * cols);
  for (let d = 0; d < cols; d++) {
    const λ = least ** ((2 * d) / (cols - 1));
    const q = row(Q, d);
    for (let i = 0; i < cols; i++) {
      const factor = 2 * λ * q[i];
      for (let j = 0; j < cols; j++) sums[i * cols + j] += factor * q[j];
    }
  }
  H.set(sums);
  return { W, H };
}

/** ‖(W−Ŵ)·X‖²/‖W·X‖², from H alone: tr(D·H·Dᵀ)/tr(W·H·Wᵀ). */
export function outputError({ W, H }: Toy, Ŵ: Float32Array): number {
  const D = matrix(
    W.rows,
    W.cols,
    Float32Array.from(W.data, (w, i) => w - Ŵ[i]),
  );
  return energy(D, H) / energy(W, H);
}

function energy({ rows, cols, data }: Matrix, H: Float32Array): number {
  let sum = 0;
  for (let r = 0; r < rows; r++) {
    for (let i = 0; i < cols; i++) {
      let dot = 0;
      for (let j = 0; j < cols; j++) dot += H[i * cols + j] * data[r * cols + j];
      sum += dot * data[r * cols + i];
    }
  }
  return sum;
}

/** x (rows, rank)·y (rank, cols) of random normals. */
export function planted(rows: number, cols: number, rank: number, scale: number): Matrix {
  const random = generator(8);
  const [x, y] = [normals(random, rows * rank), normals(random, rank * cols)];
  const m = matrix(rows, cols);
  for (let r = 0; r < rows; r++) {
    for (let k = 0; k < rank; k++) {
      for (let c = 0; c < cols; c++) m.data[r * cols + c] += scale * x[r * rank + k] * y[k * cols + c];
    }
  }
  return m;
}

/** Rows made orthonormal, one after the other (modified Gram–Schmidt, twice). */
function orthogonal(m: Matrix): Matrix {
  for (let r = 0; r < m.rows; r++) {
    const v = row(m, r);
    for (let round = 0; round < 2; round++) {
      for (let s = 0; s < r; s++) {
        const u = row(m, s);
        const dot = v.reduce((sum, x, i) => sum + x * u[i], 0);
        for (let i = 0; i < v.length; i++) v[i] -= dot * u[i];
      }
    }
    const norm = Math.hypot(...v);
    for (let i = 0; i < v.length; i++) v[i] /= norm;
  }
  return m;
}
