import { z } from "zod";
import { hostTensor, type Matrix, matrix } from "../tensor/tensor.ts";
import { meansBy, outputsOf, packLevels } from "./exact-levels.ts";
import type { TrainedMethod, TrainedRounding } from "./method.ts";

const paper = "Liu et al., 2025 (https://arxiv.org/abs/2502.02631)";

/** What `learnedStep` calls the widths, and where their levels can be stored. */
const widths = {
  1: { bits: 1, formats: ["binary", "trits", "tq2_0", "int2"] },
  1.58: { bits: 0, formats: ["tq2_0", "trits", "int2"] },
  2: { bits: 2, formats: ["int2-offset", "int3-offset", "int4-offset"] },
  3: { bits: 3, formats: ["int3", "int4", "int8"] },
  4: { bits: 4, formats: ["int4", "int6", "int8"] },
} as const;

const options = z.strictObject({ bits: z.literal([1, 1.58, 2, 3, 4]).default(1.58) }).prefault({});

/**
 * ParetoQ: a trained scale for each row, and for each width the rounding that
 * its authors found best: the sign at 1 bit, stretched elastic quantization at
 * 1.58 and 2, a learned step size at 3 and 4.
 *
 *   at the start scale = mean|W| at 1 bit, max|W| at 1.58 and 2, max|W|/(2^(bits−1) − 1) at 3 and 4, of each row
 *
 * Levels and gradients: `learnedStep` (kernels/learned-step.ts). Liu et al.,
 * 2025 (https://arxiv.org/abs/2502.02631); the start as in
 * https://github.com/facebookresearch/ParetoQ, train.py.
 */
export const paretoq: TrainedMethod<z.infer<typeof options>> = {
  name: "paretoq",
  paper,
  options,
  with(chosen) {
    const { bits, formats } = widths[chosen.bits];
    const rounding: TrainedRounding = {
      kind: "trained",
      name: "paretoq",
      paper,
      formats,

      start: (W) => ({ W, parameters: { scale: hostTensor([W.rows], firstScales(W, bits)) } }),
      forward: (ops, W, { scale }) => ops.learnedStep(W, scale, bits),

      async export(W, format, { backend }, { scale }) {
        const [values, scales, offsets] = await outputsOf(backend, "learnedStep", W, [scale, bits]);
        return packLevels(rounding, matrix(W.rows, W.cols, values), format, (r) => {
          return { scale: scales[r], offset: offsets[r] };
        });
      },
    };
    return rounding;
  },
};

function firstScales(W: Matrix, bits: number): Float32Array {
  if (bits === 1) return meansBy(W, "rows", Math.abs);
  const largest = new Float32Array(W.rows);
  for (const [i, w] of W.data.entries()) {
    const r = Math.floor(i / W.cols);
    largest[r] = Math.max(largest[r], Math.abs(w));
  }
  return bits < 3 ? largest : largest.map((most) => most / (2 ** (bits - 1) - 1));
}
