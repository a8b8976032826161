import type { Operations } from "../kernels/index.ts";
import type { Tensor } from "../tensor/tensor.ts";

/** λ of a rounding that is faded in over `length` steps from step `from` on (steps count from 0): 0 before, 1 after. */
export function rampAt(step: number, from: number, length: number): number {
  if (step < from) return 0;
  return length === 0 ? 1 : Math.min(1, (step - from + 1) / length);
}

/** (1−λ)·W + λ·Ŵ, so that the gradient of W is that of the result; W and Ŵ themselves at the ends. */
export function fade(ops: Operations, W: Tensor, λ: number, round: (W: Tensor) => Tensor): Tensor {
  if (λ === 0) return W;
  return λ === 1 ? round(W) : ops.combine(W, round(W), 1 - λ, λ);
}
