import type { Backend } from "../backends/backend.ts";
import { ADAMW8_BLOCK } from "../kernels/adamw8.ts";
import { sizeOf } from "../tensor/tensor.ts";
import { adamwRule } from "./adamw.ts";
import {
  type CommonOptions,
  type Parameter,
  type QuantizedOptions,
  quantizedRules,
  type Rule,
  RuleOptimizer,
} from "./optimizer.ts";

/** AdamW with states of 8 bits: see kernels/adamw8.ts. */
function adamw8Rule({ beta1, beta2, epsilon, clip }: CommonOptions): Rule {
  return {
    states(shape) {
      const size = sizeOf(shape);
      const codes = { shape: [Math.ceil(size / 4)], format: "i32" } as const;
      const scales = { shape: [Math.ceil(size / ADAMW8_BLOCK)], format: "f32" } as const;
      return [
        { name: "first", ...codes },
        { name: "firstScale", ...scales },
        { name: "second", ...codes },
        { name: "secondScale", ...scales },
      ];
    },
    move(backend, w, gradient, states, { norm, rate, decay, step }) {
      const [first, firstScale, second, secondScale] = states;
      const numbers = [rate, beta1, beta2, epsilon, decay, step, clip] as const;
      backend.adamw8(w, gradient, first, firstScale, second, secondScale, norm, ...numbers);
    },
  };
}

/**
 * 8-bit AdamW: block-wise dynamic states of 8 bits, 32 bits for tensors of
 * fewer than 4096 elements and, with a stable embedding, for the embedding.
 * Dettmers et al., 2022 (https://arxiv.org/abs/2110.02861).
 */
export function adamw8(
  backend: Backend,
  parameters: readonly Parameter[],
  options: QuantizedOptions,
): RuleOptimizer {
  const by = { small: adamwRule(options), large: adamw8Rule(options) };
  return new RuleOptimizer(backend, parameters, quantizedRules(parameters, by, options), options);
}
