import type { Backend } from "../backends/backend.ts";
import { pauses } from "../record/pause.ts";
import type { Job } from "../record/record.ts";
import { hostTensor, type Matrix, matrix, type Tensor } from "../tensor/tensor.ts";
import { slices } from "./slices.ts";

/** A·wᵀ (rows of A, rows of w) for a w (rows, cols) on the backend, in slices. */
export async function rowProducts(
  backend: Backend,
  { rows, cols, data }: Matrix,
  w: Tensor,
  job: Job = {},
): Promise<Matrix> {
  const pause = pauses(job);
  const across = w.shape[0];
  const product = matrix(rows, across);
  for (const [from, to] of slices(0, rows, across * cols)) {
    const part = data.subarray(from * cols, to * cols);
    const y = backend.scope(() => backend.linear(backend.upload(hostTensor([to - from, cols], part)), w));
    product.data.set(await backend.read(y), from * across);
    backend.free(y);
    await pause();
  }
  return product;
}
