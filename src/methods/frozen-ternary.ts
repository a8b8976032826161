import { z } from "zod";
import { roundF16 } from "../tensor/half.ts";
import { generator, seedOf } from "../tensor/random.ts";
import { matrix } from "../tensor/tensor.ts";
import { packLevels } from "./exact-levels.ts";
import type { TrainedMethod, TrainedRounding } from "./method.ts";

const paper = "Mordido et al., 2021 (https://arxiv.org/abs/2103.17142)";

const options = z
  .strictObject({
    seed: z.int().nonnegative().default(0),
    /** Share of the weights that are not 0. */
    density: z
      .number()
      .positive()
      .max(1)
      .default(2 / 3),
  })
  .prefault({});

/**
 * Linear layers that never learn: sparse random ternary matrices, which seed,
 * name and size give back; what is trained are the layers around them.
 *
 *   Ŵ = γ·t,  t = −1 or 1 with probability density/2 each, else 0
 *   γ = f16(√(mean(W²)/density)), so that Ŵ varies as the W does that it replaces;  dW = 0
 *
 * Mordido et al., 2021 (https://arxiv.org/abs/2103.17142), for the
 * pointwise convolutions of speech models.
 */
export const frozenTernary: TrainedMethod<z.infer<typeof options>> = {
  name: "frozen-ternary",
  paper,
  options,
  with({ seed, density }) {
    const rounding: TrainedRounding = {
      kind: "trained",
      name: "frozen-ternary",
      paper,
      formats: ["tq2_0", "trits", "int2"],
      frozen: true,

      start(W, name) {
        const square = W.data.reduce((sum, w) => sum + w * w, 0) / Math.max(1, W.data.length);
        const γ = roundF16(Math.sqrt(square / density));
        const t = randomTrits(seed, name, W.data.length, density);
        return {
          W: matrix(
            W.rows,
            W.cols,
            Float32Array.from(t, (trit) => γ * trit),
          ),
          parameters: {},
        };
      },

      forward: (_ops, W) => W,

      async export(W, format) {
        const scale = W.data.reduce((most, w) => Math.max(most, Math.abs(w)), 0);
        return packLevels(rounding, W, format, () => ({ scale, offset: 0 }));
      },
    };
    return rounding;
  },
};

/** The matrix of a name: n numbers −1, 0 or 1, always the same for the same seed, name and density. */
export function randomTrits(seed: number, name: string, n: number, density: number): Int8Array {
  const random = generator(seedOf(name, seed));
  return Int8Array.from({ length: n }, () => {
    const u = random();
    return u >= density ? 0 : u < density / 2 ? -1 : 1;
  });
}
