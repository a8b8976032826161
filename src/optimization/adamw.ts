import type { Backend } from "../backends/backend.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { type CommonOptions, type Parameter, type Rule, RuleOptimizer } from "./optimizer.ts";

export type AdamWOptions = CommonOptions;

/**
 * Adam with decoupled weight decay, moments of 32 bits.
 * Loshchilov and Hutter, 2019 (https://arxiv.org/abs/1711.05101), Algorithm 2.
 */
export function adamwRule({ beta1, beta2, epsilon, clip }: AdamWOptions): Rule {
  return {
    states: (shape) => [
      { name: "first", shape, format: "f32" },
      { name: "second", shape, format: "f32" },
    ],
    move(backend, w, gradient, [first, second], { norm, rate, decay, step }) {
      backend.adamw(w, gradient, first, second, norm, rate, beta1, beta2, epsilon, decay, step, clip);
    },
  };
}

/** AdamW for every parameter, and gradient clipping by the global norm. */
export class AdamW extends RuleOptimizer {
  /** First and second moments, one for each parameter, in the parameters' order. */
  readonly first: readonly Tensor[];
  readonly second: readonly Tensor[];

  constructor(backend: Backend, parameters: readonly Omit<Parameter, "role">[], options: AdamWOptions) {
    const rule = adamwRule(options);
    super(
      backend,
      parameters,
      parameters.map(() => rule),
    );
    const moments = parameters.map((_, i) => new Map(this.state(i)));
    this.first = moments.map((states) => states.get("first")!);
    this.second = moments.map((states) => states.get("second")!);
  }
}
