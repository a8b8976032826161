import { z } from "zod";
import type { TrainedMethod } from "./method.ts";
import { packOneScale } from "./one-scale.ts";

/** ε of the weights' scale, as in bitnet-b1.58.ts, from whose checkpoints this one continues. */
const EPSILON = 1e-5;

const paper = "Wang et al., 2024 (https://arxiv.org/abs/2411.04965)";

const options = z
  .strictObject({
    /** Share of o's inputs that stay, the largest. */
    share: z.number().positive().max(1).default(0.5),
    /** Bits of keys and values; 16 leaves them as they are. */
    cache: z.union([z.int().min(2).max(8), z.literal(16)]).default(3),
    /** As the checkpoint has them that this one continues. */
    subNorm: z.boolean().default(true),
  })
  .prefault({});

/**
 * BitNet a4.8: BitNet b1.58 whose inputs have 4 bits where they are dense, and are sparse where they have 8.
 *
 *   into q, k, v and gate, up   4 bits, absmean: β/√7·RoundClip(√7/(β+ε)·x, −8, 7), β = mean|x|
 *   into o                      8 bits, absmax, of the largest half alone
 *   into down                   8 bits, absmax, of relu(gate)²⊙up, most of which is 0
 *   keys and values             3 bits, absmax
 *
 * Wang et al., 2024 (https://arxiv.org/abs/2411.04965), section 2; gradients pass straight through rounding and
 * top-K. It is the second stage of a training whose first one is `bitnet-b1.58` with `squaredRelu`: continue from
 * its checkpoint (`from`), the optimizer's states kept. The scale of keys and values, one for each head of a token,
 * is chosen here, as is one width for all tokens, where the paper gives the first one 4 bits.
 */
export const bitnetA48: TrainedMethod<z.output<typeof options>> = {
  name: "bitnet-a4.8",
  paper,
  options,
  with({ share, cache, subNorm }) {
    return {
      kind: "trained",
      name: "bitnet-a4.8",
      paper,
      formats: ["tq2_0", "int2"],
      forward: (ops, W) => ops.ternary(W, EPSILON),
      modelChanges: (config) => ({
        ...config,
        subNorm,
        ffnActivation: "relu2",
        activations: {
          attention: { bits: 4, rule: "absmean" },
          attentionOutput: { bits: 8, rule: "absmax", share },
          ffn: { bits: 4, rule: "absmean" },
          ffnOutput: { bits: 8, rule: "absmax" },
        },
        ...(cache === 16
          ? {}
          : { cacheRounding: { bits: cache, rule: "absmax", group: config.headDim } as const }),
      }),
      export: (W, format, { backend }) =>
        packOneScale("bitnet-a4.8", "ternary", W, [EPSILON], format, backend),
    };
  },
};
