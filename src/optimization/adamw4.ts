import type { Backend } from "../backends/backend.ts";
import { ADAMW4_BLOCK, adamw4Scales } from "../kernels/adamw4.ts";
import { sizeOf } from "../tensor/tensor.ts";
import { adamwRule } from "./adamw.ts";
import {
  type CommonOptions,
  LEAST_QUANTIZED,
  type Parameter,
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
 * 4-bit AdamW, the embedding included; 32 bits for tensors of fewer than 4096 elements.
 * Li et al., 2023 (https://arxiv.org/abs/2309.01507), whose code also keeps 32 bits at 4096.
 */
export function adamw4(
  backend: Backend,
  parameters: readonly Parameter[],
  options: CommonOptions,
): RuleOptimizer {
  const [small, large] = [adamwRule(options), adamw4Rule(options)];
  const rules = parameters.map(({ tensor }) => (sizeOf(tensor.shape) < LEAST_QUANTIZED ? small : large));
  return new RuleOptimizer(backend, parameters, rules);
}
