import { z } from "zod";
import { everywhere } from "../models/model.ts";
import { packOneScale } from "./exact-levels.ts";
import type { TrainedMethod, TrainedRounding } from "./method.ts";

/** ε of the weights' scale. */
const EPSILON = 1e-5;

const paper = "Ma et al., 2024 (https://arxiv.org/abs/2402.17764)";

const options = z
  .strictObject({
    /** Bits of the linear layers' inputs; 16 leaves them as they are. */
    activations: z.union([z.int().min(2).max(8), z.literal(16)]).default(8),
    /** Norms also before o and down, so that every linear layer has one before it. */
    subNorm: z.boolean().default(true),
    /** relu(gate)²⊙up in place of silu(gate)⊙up, as BitNet a4.8 and BitNet b1.58 2B4T have it. */
    squaredRelu: z.boolean().default(false),
  })
  .prefault({});

/**
 * BitNet b1.58: ternary weights with one scale a matrix, inputs rounded to 8 bits per token.
 *
 *   Ŵ = γ·RoundClip(W/γ, −1, 1),  γ = f16(mean|W| + ε);  x̂ = RoundClip(x·s, −128, 127)/s,  s = 127/max(max|x|, 10⁻⁵)
 *   dW = dŴ, dx = dx̂  (straight through)
 *
 * Ma et al., 2024 (https://arxiv.org/abs/2402.17764), eq. 1–3, and its "Training Tips, Code and FAQ", where every
 * linear layer has a norm before it (`subNorm`; tensors named as in Hugging Face's BitNet). What differs: q, k and v
 * share the norm before them, as do gate and up; the code's max(mean|W|, ε) is the paper's sum, in the fp16 of the file.
 */
export const bitnetB158: TrainedMethod<z.output<typeof options>> = {
  name: "bitnet-b1.58",
  paper,
  options,
  with({ activations: bits, subNorm, squaredRelu }) {
    const rounding: TrainedRounding = {
      kind: "trained",
      name: "bitnet-b1.58",
      paper,
      formats: ["tq2_0", "trits", "int2"],
      forward: (ops, W) => ops.ternary(W, EPSILON),
      modelChanges: (config) => ({
        ...config,
        subNorm,
        ...(squaredRelu ? { ffnActivation: "relu2" } : {}),
        ...(bits === 16 ? {} : { activations: everywhere({ bits, rule: "absmax" }) }),
      }),
      export: (W, format, { backend }) => packOneScale(rounding, "ternary", W, [EPSILON], format, backend),
    };
    return rounding;
  },
};
