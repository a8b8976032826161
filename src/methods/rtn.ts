import { roundToNearest } from "../formats/format.ts";
import type { Rounding } from "./method.ts";

/**
 * Round to nearest: each group fitted for itself, each weight at the code
 * nearest to it. Needs no data; where there is some, a clip search weighs the
 * error of a weight by the mean square of its input, diag(H).
 */
export const rtn: Rounding = {
  kind: "rounding",
  name: "rtn",
  paper: "the baseline of Frantar et al., 2022 (https://arxiv.org/abs/2210.17323)",
  calibrated: false,

  async quantize(W, format, { backend, H }) {
    const importance = H && diagonal((await backend.read(H)) as Float32Array, W.cols);
    return roundToNearest(format, W, importance);
  },
};

function diagonal(H: Float32Array, n: number): Float32Array {
  return Float32Array.from({ length: n }, (_, i) => H[i * n + i]);
}
