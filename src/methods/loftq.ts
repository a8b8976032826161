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
  /** Of the codes: uniform (int2-offset-g64) or normal levels (nf4). */
  format: z.string().default("int4"),
  ...plusLowRank,
  /** T: rounds of codes and low rank in turn; the best one is kept. */
  rounds: z.int().min(1).default(5),
});

export type LoftqOptions = z.infer<typeof options>;

/**
 * LoftQ: codes Q and low rank A·B in turn, so that an adapter starts where
 * the codes leave off.
 *
 *   A·B = 0;  T times:  Q = codes of (W − A·B),  A·B = best low rank of (W − Q)
 *
 * Algorithm 1 of Li, Yu, Liang, He, Karampatziakis, Chen and Zhao, 2023 (https://arxiv.org/abs/2310.08659), which keeps
 * the last round. Theirs is `base` rtn with `weighting` none; one round of it with codes nearest to W is LoRC.
 */
export const loftq: Decomposition<LoftqOptions> = {
  kind: "decomposition",
  name: "loftq",
  paper: "Li et al., 2023 (https://arxiv.org/abs/2310.08659)",
  calibrated: false,
  options,
  needs: needsPlusLowRank,
  check: (size, chosen) => checkPlusLowRank("loftq", size, chosen),
  least: bytesPlusLowRank,

  decompose(source, context, chosen) {
    const { rounds } = chosen;
    return codesAndLowRank("loftq", source, context, chosen, async (parts) => {
      const { W, nearest, low, errorOf, finished } = parts;
      const best = await alternate(W, { first: nearest, second: low, errorOf, rounds });
      return finished(best.first, best.second);
    });
  },
};
