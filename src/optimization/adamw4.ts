import type { Backend } from "../backends/backend.ts";
import { ADAMW4_BLOCK, adamw4Scales } from "../kernels/adamw4.ts";
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

/** AdamW with states of 4 bits: see kernels/adamw4.ts. */
function adamw4Rule({ beta1, beta2, epsilon, clip }: CommonOptions): Rule {
  return {
    states(shape) {
      const size = sizeOf(shape);
      const codes = { shape: [Math.ceil(size / 8)], format: "i32" } as const;
      return [
        { name: "first", ...codes },
        { name: "firstScale", shape: [Math.ceil(size / ADAMW4_BLOCK)], format: "f32" },
        { name: "second", ...codes },
        { name: "secondScale", shape: [adamw4Scales(shape)], format: "f32" },
      ];
    },
    move(backend, w, gradient, states, { norm, rate, decay, step }) {
      const [first, firstScale, second, secondScale] = states;
      const numbers = [rate, beta1, beta2, epsilon, decay, step, clip] as const;
      backend.adamw4(w, gradient, first, firstScale, second, secondScale, norm, ...numbers);
    },
  };
}

/**
 * 4-bit AdamW; 32 bits for tensors of fewer than 4096 elements and, with a stable embedding, for the embedding.
 * Li et al., 2023 (https://arxiv.org/abs/2309.01507), who quantize the embedding's states too, as is the default; their
 * code also keeps 32 bits at 4096.
 */
export function adamw4(
  backend: Backend,
  parameters: readonly Parameter[],
  options: QuantizedOptions,
): RuleOptimizer {
  const by = { small: adamwRule(options), large: adamw4Rule(options) };
  return new RuleOptimizer(backend, parameters, quantizedRules(parameters, by, options), options);
}
