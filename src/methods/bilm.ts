import { z } from "zod";
import { outputsOf, packScaled } from "./exact-levels.ts";
import type { TrainedMethod, TrainedRounding } from "./method.ts";

const paper = "Kaushal et al., 2024 (https://arxiv.org/abs/2407.12327)";

/**
 * BiLM's linear layer: one scale a matrix, every weight −α or α.
 *
 *   α = f16(mean|W|),  Ŵ = α·sign(W − mean W);  dW = dŴ (straight through)
 *
 * Kaushal et al., 2024 (https://arxiv.org/abs/2407.12327), table 1, after Wang
 * et al., 2023 (https://arxiv.org/abs/2310.11453). Inputs are not rounded.
 */
const rounding: TrainedRounding = {
  kind: "trained",
  name: "bilm",
  paper,
  formats: ["binary", "trits", "tq2_0", "int2"],
  forward: (ops, W) => ops.binary(W),
  async export(W, format, { backend }) {
    return packScaled(rounding, W, format, await outputsOf(backend, "binary", W, []));
  },
};

export const bilm: TrainedMethod = {
  name: "bilm",
  paper,
  options: z.strictObject({}).prefault({}),
  with: () => rounding,
};
