import type { Backend } from "../backends/backend.ts";
import { pauses } from "../record/pause.ts";
import type { Job } from "../record/record.ts";
import { hostTensor, InputError, type Tensor } from "../tensor/tensor.ts";
import { slices } from "./slices.ts";

/**
 * L (n, n) lower triangular with L·Lᵀ = H, for a symmetric positive definite H; the caller frees it. Else an InputError
 * names the row, which is `nameOf(row)` where rows stand in another order than the caller's.
 */
export async function choleskyOf(
  backend: Backend,
  H: Float32Array,
  job: Job = {},
  nameOf: (row: number) => number = (row) => row,
): Promise<Tensor> {
  const n = Math.sqrt(H.length);
  const pause = pauses(job);
  const L = backend.upload(hostTensor([n, n], H));
  const status = backend.zeros([2]);
  try {
    for (const [from, to] of slices(0, n, (n * n) / 2)) {
      backend.cholesky(L, status, from, to);
      await pause();
    }
    const [failed, pivot] = await backend.read(status);
    if (failed !== 0) {
      throw new InputError(
        `cholesky: not positive definite at row ${nameOf(failed - 1)} (pivot ${pivot.toPrecision(3)}); add damping or calibration text`,
      );
    }
    return L;
  } catch (error) {
    backend.free(L);
    throw error;
  } finally {
    backend.free(status);
  }
}
