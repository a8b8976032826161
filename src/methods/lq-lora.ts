import { z } from "zod";
import { alternate } from "./alternate.ts";
import {
  bytesPlusLowRank,
  checkPlusLowRank,
  codesAndLowRank,
  needsPlusLowRank,
  plusLowRank,
} from "./codes-plus-low-rank.ts";
import type { Decomposition } from "./method.ts";

const options = z.strictObject({
  /** Of the codes. */
  format: z.string(),
  ...plusLowRank,
  /** Rounds of low rank and codes in turn, at most. */
  rounds: z.int().min(1).default(10),
});

export type LqLoraOptions = z.infer<typeof options>;

/**
 * LQ-LoRA: low rank A·B and codes Q in turn, under weights for the errors.
 *
 *   Q = 0;  repeat  A·B = best low rank of (W − Q),  Q = codes of (W − A·B)   until the error rises
 *
 * Algorithms 1 and 2 of Guo, Greengard, Xing and Kim, 2023 (https://arxiv.org/abs/2311.12023); `weighting` fisher is
 * their section 3.3. Their section 3.2, a format for every matrix under one budget, is `mix` (methods/mix.ts) with
 * these formats for its ways.
 */
export const lqLora: Decomposition<LqLoraOptions> = {
  kind: "decomposition",
  name: "lq-lora",
  paper: "Guo et al., 2023 (https://arxiv.org/abs/2311.12023)",
  calibrated: false,
  options,
  needs: needsPlusLowRank,

  check: (size, chosen) => checkPlusLowRank("lq-lora", size, chosen),
  least: bytesPlusLowRank,

  decompose(source, context, { rounds, ...chosen }) {
    return codesAndLowRank("lq-lora", source, context, chosen, async (parts) => {
      const { W, nearest, low, errorOf } = parts;
      const { first, second } = await alternate(W, {
        first: low,
        second: nearest,
        errorOf,
        rounds,
        untilRise: true,
      });
      return parts.finished(second, first);
    });
  },
};
