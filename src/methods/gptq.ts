import { InputError } from "../tensor/tensor.ts";
import { type SpreadCodesOptions, spreadCodes } from "./format-codes.ts";
import type { Rounding } from "./method.ts";
import { prepare } from "./spread-errors.ts";

export type GptqOptions = Omit<SpreadCodesOptions, "signal">;

/**
 * GPTQ: quantize one column at a time and spread each column's error over the
 * columns not yet quantized, weighted by the inverse Hessian.
 *
 * Algorithm 1 of Frantar et al., 2022 (https://arxiv.org/abs/2210.17323), which
 * is `spreadCodes` over the sweep `spreadErrors`. Columns that no input reaches
 * (H_jj = 0) are set to 0 first. With H = I it is round to nearest, bit for bit.
 */
export const gptq: Rounding<GptqOptions> = {
  kind: "rounding",
  name: "gptq",
  paper: "Frantar et al., 2022 (https://arxiv.org/abs/2210.17323)",
  calibrated: true,

  async quantize(source, format, { backend, H: hessian, signal }, options = {}) {
    const { actOrder = false, staticGroups = actOrder } = options;
    if (actOrder && !staticGroups) {
      throw new InputError("gptq: actOrder needs staticGroups, as a group's columns no longer come together");
    }
    const { W, H } = await prepare("gptq", source, hessian, backend);
    return spreadCodes(backend, W, H, format, { ...options, signal });
  },
};
