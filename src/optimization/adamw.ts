import type { Backend } from "../backends/backend.ts";
import { type CommonOptions, type Parameter, type Rule, RuleOptimizer } from "./optimizer.ts";

/**
 * Adam with decoupled weight decay, moments of 32 bits.
 * Loshchilov and Hutter, 2019 (https://arxiv.org/abs/1711.05101), Algorithm 2.
 */
export function adamwRule({ beta1, beta2, epsilon, clip }: CommonOptions): Rule {
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

/** AdamW for every parameter. */
export function adamw(
  backend: Backend,
  parameters: readonly Parameter[],
  options: CommonOptions,
): RuleOptimizer {
  const rule = adamwRule(options);
  return new RuleOptimizer(
    backend,
    parameters,
    parameters.map(() => rule),
    options,
  );
}
