import { z } from "zod";
import { bytesPerMatrix, decodeWeight, formatByName } from "../formats/index.ts";
import { sumOf } from "../tensor/weight.ts";
import { checkPlusLowRank, codesAndLowRank, plusLowRank } from "./codes-plus-low-rank.ts";
import { lowRankOfZeros } from "./low-rank.ts";
import type { Decomposition } from "./method.ts";
import { difference } from "./vector-codes.ts";

const { clip, factors, weighting, damping } = plusLowRank;

const options = z.strictObject({
  /** Of the codes. */
  format: z.string().default("int2-offset"),
  clip,
  /** Of the correction. Default: as large as `overhead` allows, at least 1. */
  rank: z.int().min(1).optional(),
  /** What the correction may take, as a share of the codes' bytes. */
  overhead: z.number().positive().default(0.05),
  factors,
  /** How the correction starts: as the best low rank of the codes' error, or as nothing, A = 0 and B Gaussian. */
  start: z.enum(["svd", "zero"]).default("svd"),
  weighting,
  damping,
  /** Of a start from nothing. */
  seed: z.int().default(0),
});

export type Int21Options = z.infer<typeof options>;

/**
 * INT2.1: codes of GPTQ with a low-rank error correction (LREC) of a twentieth
 * of their size, W ≈ Ŵ + A·B.
 *
 * Chai, Gkountouras, Ko, Brooks and Wei, 2023 (https://arxiv.org/abs/2306.08162). Here A and B are started, not trained:
 * theirs are LoRA's (`start` zero, which leaves the function as it is) and then trained towards the float model; from
 * `svd` training has less left to do. Ranks are those that fit the size, at 16 bits a number.
 */
export const int21: Decomposition<Int21Options> = {
  kind: "decomposition",
  name: "int2.1",
  paper: "Chai et al., 2023 (https://arxiv.org/abs/2306.08162)",
  calibrated: true,
  options,
  needs: ({ weighting }) => (weighting === "fisher" ? ["fisher"] : []),

  check(size, { format, rank }) {
    checkPlusLowRank("int2.1", size, { format, base: "gptq", rank });
  },

  decompose(source, context, { start, seed, overhead, ...chosen }) {
    const { rows, cols } = source;
    const room = 8 * overhead * bytesPerMatrix(formatByName(chosen.format), rows, cols);
    const { rank = Math.max(1, Math.floor(room / (16 * (rows + cols)))) } = chosen;
    const settings = { ...chosen, rank, base: "gptq" } as const;
    return codesAndLowRank("int2.1", source, context, settings, async ({ W, codes, low }) => {
      const Ŵ = await codes(W);
      if (start === "svd") return sumOf(Ŵ, await low(difference(W, decodeWeight(Ŵ))));
      return sumOf(Ŵ, lowRankOfZeros(source, { rank, factors: chosen.factors, seed }));
    });
  },
};
