import { z } from "zod";
import { packOneScale } from "./exact-levels.ts";
import type { TrainedMethod, TrainedRounding } from "./method.ts";
import { fade, rampAt } from "./ramp.ts";

const paper = "Nielsen et al., 2025 (https://arxiv.org/abs/2502.11895)";

/** ε of the scale, as in TriLM. */
const EPSILON = 1e-5;

const options = z.strictObject({
  /** Steps in float before the first ternary one. */
  from: z.int().nonnegative(),
  /** Steps over which λ grows from 0 to 1 after that; 0 switches at once. */
  ramp: z.int().nonnegative().default(0),
  /** What becomes of the optimizer's states at the switch. */
  optimizer: z.enum(["kept", "reset"]).default("kept"),
});

/**
 * Continual quantization-aware pre-training: in float first, then ternary.
 *
 *   Ŵ = γ·round(clip(W/γ, −1, 1)),  γ = f16(ε + mean|W|)
 *   the layer uses W before step `from`, then (1−λ)·W + λ·Ŵ with λ from 1/ramp to 1;  dW is its gradient
 *
 * Nielsen et al., 2025 (https://arxiv.org/abs/2502.11895), who compare points
 * of transition, keeping the optimizer's states and fading the rounding in.
 * Weights alone, with TriLM's γ: their layer, that of bitnet-b1.58-median.ts,
 * rounds its inputs too, and which of its measures of the scale they took could
 * not be checked. `export` always gives Ŵ, also while λ is below 1.
 */
export const continual: TrainedMethod<z.infer<typeof options>> = {
  name: "continual",
  paper,
  options,
  with({ from, ramp, optimizer }) {
    const rounding: TrainedRounding = {
      kind: "trained",
      name: "continual",
      paper,
      formats: ["tq2_0", "trits", "int2"],
      forward: (ops, W, _parameters, { step }) =>
        fade(ops, W, rampAt(step, from, ramp), (latent) => ops.ternary(latent, EPSILON)),
      ...(optimizer === "reset" && { resetsOptimizerAt: from }),
      export: (W, format, { backend }) => packOneScale(rounding, "ternary", W, [EPSILON], format, backend),
    };
    return rounding;
  },
};
