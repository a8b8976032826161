import type { Backend } from "../backends/backend.ts";
import type { Tensor } from "../tensor/tensor.ts";

/** A tensor that is trained, and whether weight decay pulls at it. */
export interface Parameter {
  readonly tensor: Tensor;
  readonly decays: boolean;
}

export interface AdamWOptions {
  readonly beta1: number;
  readonly beta2: number;
  readonly epsilon: number;
  /** Gradients are scaled down to this norm, all parameters together; 0 for never. */
  readonly clip: number;
}

/**
 * Adam with decoupled weight decay, and gradient clipping by the global norm.
 * Loshchilov and Hutter, 2019 (https://arxiv.org/abs/1711.05101), Algorithm 2.
 */
export class AdamW {
  /** First and second moments, one for each parameter, in the parameters' order. */
  readonly first: readonly Tensor[];
  readonly second: readonly Tensor[];
  /** Squared norm of the last step's gradients, before clipping (1). */
  readonly squaredNorm: Tensor;
  readonly #backend: Backend;
  readonly #parameters: readonly Parameter[];
  readonly #options: AdamWOptions;

  constructor(backend: Backend, parameters: readonly Parameter[], options: AdamWOptions) {
    const zeros = (shape: readonly number[]) => backend.keep(backend.zeros(shape));
    this.first = parameters.map(({ tensor }) => zeros(tensor.shape));
    this.second = parameters.map(({ tensor }) => zeros(tensor.shape));
    this.squaredNorm = zeros([1]);
    this.#backend = backend;
    this.#parameters = parameters;
    this.#options = options;
  }

  /** Moves the parameters; `gradients` in their order, `step` counted from 1. */
  step(gradients: readonly Tensor[], step: number, rate: number, decay: number): void {
    const { beta1, beta2, epsilon, clip } = this.#options;
    for (const [i, gradient] of gradients.entries()) {
      this.#backend.squaredNorm(this.squaredNorm, gradient, i > 0 ? 1 : 0);
    }
    for (const [i, { tensor, decays }] of this.#parameters.entries()) {
      this.#backend.adamw(
        tensor,
        gradients[i],
        this.first[i],
        this.second[i],
        this.squaredNorm,
        rate,
        beta1,
        beta2,
        epsilon,
        decays ? decay : 0,
        step,
        clip,
      );
    }
  }

  dispose(): void {
    for (const t of [...this.first, ...this.second, this.squaredNorm]) this.#backend.free(t);
  }
}
