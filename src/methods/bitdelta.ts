import { z } from "zod";
import { type GroupFormat, type Parameters, storeF16 } from "../formats/format.ts";
import { formatByName } from "../formats/index.ts";
import { row } from "../tensor/tensor.ts";
import { packedWeight } from "../tensor/weight.ts";
import type { Decomposition } from "./method.ts";

const options = z.strictObject({
  /** One α for the matrix, as in the paper, or one for each row, at the same size. */
  scales: z.enum(["matrix", "rows"]).default("matrix"),
});

export type BitdeltaOptions = z.infer<typeof options>;

/**
 * BitDelta: of what fine-tuning changed in a matrix only the signs, and their mean size.
 *
 *   Δ̂ = α·sign(Δ), α = mean|Δ|; sign(0) is +1
 *
 * which of all α has the least ‖Δ − Δ̂‖² (that of XNOR-Net). Stored as `binary`, whose scale stands before every row:
 * 1 + 16/cols bits per weight. The tuning of the scales that follows in the paper is `distil-scales.ts`.
 *
 * Liu et al., 2024 (https://arxiv.org/abs/2402.10193), equations 1 to 3; code https://github.com/FasterDecoding/BitDelta.
 */
export const bitdelta: Decomposition<BitdeltaOptions> = {
  kind: "decomposition",
  name: "bitdelta",
  paper: "Liu et al., 2024 (https://arxiv.org/abs/2402.10193)",
  calibrated: false,
  options,
  check() {},
  async decompose(Δ, _context, { scales }) {
    const format = formatByName("binary") as GroupFormat;
    const of = (data: Float32Array): Parameters => {
      const scale = data.reduce((sum, d) => sum + Math.abs(d), 0) / data.length;
      return { scale: storeF16("bitdelta", "scale", scale), offset: 0 };
    };
    const whole = of(Δ.data);
    const parameters = Array.from({ length: Δ.rows }, (_, r) => (scales === "rows" ? of(row(Δ, r)) : whole));
    const codes = Uint8Array.from(Δ.data, (d) => (d < 0 ? 0 : 1));
    return packedWeight([Δ.rows, Δ.cols], format.name, format.pack({ codes, parameters }, Δ.rows, Δ.cols));
  },
};
