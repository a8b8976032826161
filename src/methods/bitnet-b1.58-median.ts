import { z } from "zod";
import { everywhere } from "../models/model.ts";
import { packOneScale } from "./exact-levels.ts";
import type { TrainedMethod, TrainedRounding } from "./method.ts";
import { fade, rampAt } from "./ramp.ts";

const paper = "Nielsen and Schneider-Kamp, 2024 (https://arxiv.org/abs/2407.09527)";

/** The least scale. */
const EPSILON = 1e-5;

const options = z
  .strictObject({
    /** Steps over which λ grows from 0 to 1; 0 rounds from the first step on. */
    ramp: z.int().nonnegative().default(0),
    /** 8-bit inputs of every linear layer, and a norm before each, as the paper's BitLinear has them. */
    activations: z.boolean().default(true),
  })
  .prefault({});

/**
 * BitNet b1.58 Reloaded: ternary weights by the median of their magnitudes.
 *
 *   γ = f16(max(10⁻⁵, median|W|)),  Ŵ = γ·round(clip(W/γ, −1, 1))
 *   the layer uses (1−λ)·W + λ·Ŵ;  dW is its gradient (straight through)
 *
 * Inputs are rounded to 8 bits by the largest of each token. Nielsen and
 * Schneider-Kamp, 2024 (https://arxiv.org/abs/2407.09527); λ as in
 * their code (https://github.com/schneiderkamplab/bitlinear, bitlinear.py,
 * round_clamp and set_lamnda_). Their layer norm before each linear layer is
 * the model's RMSNorm here, with one before o and down too. `export` always
 * gives Ŵ, also while λ is below 1.
 */
export const bitnetB158Median: TrainedMethod<z.infer<typeof options>> = {
  name: "bitnet-b1.58-median",
  paper,
  options,
  with({ ramp, activations }) {
    const rounding: TrainedRounding = {
      kind: "trained",
      name: "bitnet-b1.58-median",
      paper,
      formats: ["tq2_0", "trits", "int2"],
      forward: (ops, W, _parameters, { step }) =>
        fade(ops, W, rampAt(step, 0, ramp), (latent) => ops.ternary(latent, EPSILON, 1)),
      ...(activations && {
        modelChanges: (config) => ({
          ...config,
          subNorm: true,
          activations: everywhere({ bits: 8, rule: "absmax" }),
        }),
      }),
      export: (W, format, { backend }) => packOneScale(rounding, "ternary", W, [EPSILON, 1], format, backend),
    };
    return rounding;
  },
};
