import { z } from "zod";
import { roundingRules, storedScale } from "../kernels/round-rows.ts";
import { type Activation, everywhere } from "../models/model.ts";
import { matrix, row } from "../tensor/tensor.ts";
import { outputsOf, packLevels } from "./exact-levels.ts";
import type { TrainedMethod, TrainedRounding } from "./method.ts";

/** Values from here on get no gradient, as in the authors' code (utils_quant.py, clip_val). */
const LIMIT = 2;

const STORED = roundingRules.indexOf("stored");

const paper = "Liu et al., 2023 (https://arxiv.org/abs/2305.17888)";

const bits = z.union([z.int().min(3).max(8), z.literal(16)]);
const options = z
  .strictObject({
    /** Bits of weights. */
    weights: z.union([z.literal(3), z.literal(4), z.literal(6), z.literal(8)]).default(4),
    /** Bits of the linear layers' inputs; 16 leaves them as they are. */
    activations: bits.default(8),
    /** Bits of keys and values. */
    cache: bits.default(8),
  })
  .prefault({});

/**
 * LLM-QAT: weights rounded per row, inputs of linear layers and keys and values per token, all symmetric over their
 * whole range.
 *
 *   s = (2^(b−1)−1)/(max|x| + 10⁻⁶),  x̂ = round(x·s)/s;  dx = dx̂ where |x| < 2, 0 elsewhere
 *
 * Liu et al., 2023 (https://arxiv.org/abs/2305.17888), section 2.2, and its code
 * (https://github.com/facebookresearch/LLM-QAT, models/utils_quant.py). It learns from a float teacher's logits
 * (`loss.soft`, no labels) on text that the teacher wrote. What differs: scales of weights have the fp16 of the file,
 * and keys are rounded after their rotation, as the cache keeps them, not before.
 */
export const llmQat: TrainedMethod<z.output<typeof options>> = {
  name: "llm-qat",
  paper,
  options,
  with({ weights, activations, cache }) {
    const how = (width: number): Activation => ({ bits: width, rule: "minmax", limit: LIMIT });
    const rounding: TrainedRounding = {
      kind: "trained",
      name: "llm-qat",
      paper,
      formats: [`int${weights}`],
      forward: (ops, W) => ops.roundRows(W, weights, STORED, 0, 1, LIMIT),
      modelChanges: (config) => ({
        ...config,
        ...(activations === 16 ? {} : { activations: everywhere(how(activations)) }),
        ...(cache === 16 ? {} : { cacheRounding: how(cache) }),
      }),
      async export(W, format, { backend }) {
        const [Ŵ] = await outputsOf(backend, "roundRows", W, [weights, STORED, 0, 1, LIMIT]);
        const top = 2 ** (weights - 1) - 1;
        return packLevels(rounding, matrix(W.rows, W.cols, Ŵ), format, (r) => ({
          scale: storedScale(row(W, r), top),
          offset: 0,
        }));
      },
    };
    return rounding;
  },
};
