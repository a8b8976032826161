import { z } from "zod";
import { everywhere } from "../models/model.ts";
import { packOneScale } from "./exact-levels.ts";
import type { TrainedMethod, TrainedRounding } from "./method.ts";

const paper = "Wang et al., 2023 (https://arxiv.org/abs/2310.11453)";

const options = z
  .strictObject({
    /** Bits of the linear layers' inputs; 16 leaves them as they are. */
    activations: z.union([z.int().min(2).max(8), z.literal(16)]).default(8),
    /** Norms also before o and down, so that every linear layer has one before it. */
    subNorm: z.boolean().default(true),
  })
  .prefault({});

/**
 * BitNet's 1-bit linear layer: signs of the centred weights with one scale a matrix, inputs rounded per token.
 *
 *   Ŵ = β·sign(W − mean W),  β = f16(mean|W|);  x̂ = RoundClip(x·127/max|x|)·max|x|/127
 *   dW = dŴ, dx = dx̂  (straight through)
 *
 * Wang et al., 2023 (https://arxiv.org/abs/2310.11453), eq. 1–12. What differs: norms are the decoder's RMSNorms with
 * gains instead of LayerNorm, Q is 127 instead of 128 less a little, and β has the fp16 of the file.
 */
export const bitnet: TrainedMethod<z.output<typeof options>> = {
  name: "bitnet",
  paper,
  options,
  with({ activations: bits, subNorm }) {
    const rounding: TrainedRounding = {
      kind: "trained",
      name: "bitnet",
      paper,
      formats: ["binary", "trits", "tq2_0", "int2"],
      forward: (ops, W) => ops.binary(W),
      modelChanges: (config) => ({
        ...config,
        subNorm,
        ...(bits === 16 ? {} : { activations: everywhere({ bits, rule: "absmax" }) }),
      }),
      export: (W, format, { backend }) => packOneScale(rounding, "binary", W, [], format, backend),
    };
    return rounding;
  },
};
