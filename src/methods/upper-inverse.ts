import type { Backend } from "../backends/backend.ts";
import { pauses } from "../record/pause.ts";
import type { Job } from "../record/record.ts";
import { hostTensor, identity } from "../tensor/tensor.ts";
import { choleskyOf } from "./cholesky.ts";
import { slices } from "./slices.ts";

/**
 * The upper triangular U with H⁻¹ = Uᵀ·U, for a symmetric positive definite
 * H (n, n), row by row.
 *
 * With its rows and columns in reverse order H is L·Lᵀ; reversing L again
 * makes it upper, R, with H = R·Rᵀ, so that U = R⁻¹: one factorization and one
 * triangular inverse, where the inverse of H followed by its factorization
 * takes three. Reversing rows and columns is reversing all elements. O(2·n³/3).
 *
 * Throws an InputError when H is not positive definite.
 */
export async function upperInverse(backend: Backend, H: Float32Array, job: Job = {}): Promise<Float32Array> {
  const n = Math.sqrt(H.length);
  const pause = pauses(job);
  const L = await choleskyOf(backend, H.toReversed(), job, (row) => n - 1 - row);
  const inverse = backend.upload(hostTensor([n, n], identity(n).data));
  try {
    for (const [from, to] of slices(0, n, (n * n) / 2)) {
      backend.triangularSolve(L, inverse, 0, from, to);
      await pause();
    }
    return ((await backend.read(inverse)) as Float32Array).reverse();
  } finally {
    for (const t of [L, inverse]) backend.free(t);
  }
}

/** U⁻¹ (n, n) of the upper triangular U_ij = factor(i, j), by substitution in 64 bits. */
export function upperTriangularInverse(n: number, factor: (i: number, j: number) => number): Float64Array {
  const inverse = new Float64Array(n * n);
  for (let j = 0; j < n; j++) {
    inverse[j * n + j] = 1 / factor(j, j);
    for (let i = j - 1; i >= 0; i--) {
      let sum = 0;
      for (let k = i + 1; k <= j; k++) sum += factor(i, k) * inverse[k * n + j];
      inverse[i * n + j] = -sum / factor(i, i);
    }
  }
  return inverse;
}
