import { z } from "zod";
import { decodeWeight } from "../formats/index.ts";
import { sumOf } from "../tensor/weight.ts";
import {
  bytesPlusLowRank,
  checkPlusLowRank,
  codesAndLowRank,
  needsPlusLowRank,
  plusLowRank,
} from "./codes-plus-low-rank.ts";
import type { Decomposition } from "./method.ts";
import { difference } from "./vector-codes.ts";

const options = z.strictObject({
  /** Of the codes: int4, int2-offset-g64, q4_0, … */
  format: z.string().default("int4"),
  ...plusLowRank,
});

export type LorcOptions = z.infer<typeof options>;

/**
 * LoRC, low-rank compensation: W ≈ Ŵ + A·B, Ŵ the codes of W and
 *
 *   E = W − Ŵ = U·Σ·Vᵀ,  A = U_m·Σ_m^½,  B = Σ_m^½·V_mᵀ
 *
 * the m largest directions of its error. Yao, Wu, Li, Youn and He, 2023 (ZeroQuant-V2,
 * https://arxiv.org/abs/2303.08302, section 5), and with `format` a float format Wu, Yao and He, 2023 (ZeroQuant-FP,
 * https://arxiv.org/abs/2307.09782). Theirs is `weighting` none; diag is LQER's (Zhang et al., 2024,
 * https://arxiv.org/abs/2402.02446) with the inputs' root mean squares, H is EoRA's (Liu et al., 2024,
 * https://arxiv.org/abs/2410.21271).
 */
export const lorc: Decomposition<LorcOptions> = {
  kind: "decomposition",
  name: "lorc",
  paper: "Yao et al., 2023 (https://arxiv.org/abs/2303.08302)",
  calibrated: false,
  options,
  needs: needsPlusLowRank,
  check: (size, chosen) => checkPlusLowRank("lorc", size, chosen),
  least: bytesPlusLowRank,

  decompose(source, context, chosen) {
    return codesAndLowRank("lorc", source, context, chosen, async ({ W, codes, low }) => {
      const Ŵ = await codes(W);
      return sumOf(Ŵ, await low(difference(W, decodeWeight(Ŵ))));
    });
  },
};
