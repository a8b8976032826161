import { z } from "zod";
import { roundF16 } from "../tensor/half.ts";
import { hostTensor, type Matrix, matrix } from "../tensor/tensor.ts";
import { outputsOf, packLevels } from "./exact-levels.ts";
import type { Decomposition, TrainedMethod, TrainedRounding } from "./method.ts";
import { rankOne } from "./rank-one.ts";
import { signedLowRank } from "./signed.ts";
import { halfPart } from "./vectors.ts";

const paper = "Xu et al., 2024 (https://arxiv.org/abs/2402.11295)";

/** Magnitude of the latent weights at the start. */
const LATENT = 0.01;

/**
 * OneBit: the sign of every weight, and a trained number for each row and each
 * column.
 *
 *   Ŵ = h ⊙ sign(W) ⊙ gᵀ, h (rows) and g (cols) in fp16
 *   at the start |W₀| ≈ h·gᵀ, the best of rank one, and W = 0.01·sign(W₀)
 *   dW = (h·gᵀ ⊙ dŴ)·(1.001 − tanh²W)
 *
 * Each linear layer is followed by a norm without gains. Xu et al., 2024
 * (https://arxiv.org/abs/2402.11295); code
 * https://github.com/xuyuzhuang11/OneBit, where scikit-learn's NMF makes h and
 * g: for one component that is the same minimum, found here by power iteration.
 * The stored matrix is h·sign(W) in the format, times g by columns.
 */
const rounding: TrainedRounding = {
  kind: "trained",
  name: "onebit",
  paper,
  formats: ["binary", "trits", "tq2_0", "int2"],

  start(W) {
    const { left, right } = magnitudes(W);
    const latent = W.data.map((w) => (w < 0 ? -LATENT : LATENT));
    return {
      W: matrix(W.rows, W.cols, latent),
      parameters: { h: hostTensor([W.rows], left), g: hostTensor([W.cols], right) },
    };
  },

  forward: (ops, W, { h, g }) => ops.scaleColumns(ops.scaleRows(ops.sign(W, 1), ops.half(h)), ops.half(g)),

  modelChanges: (config) => ({ ...config, outputNorm: true }),

  async export(W, format, { backend }, { h, g }) {
    const [signs] = await outputsOf(backend, "sign", W, [1]);
    const scales = (h.data as Float32Array).map(roundF16);
    const scaled = signs.map((sign, i) => scales[Math.floor(i / W.cols)] * sign);
    const of = packLevels(rounding, matrix(W.rows, W.cols, scaled), format, (r) => {
      return { scale: scales[r], offset: 0 };
    });
    return {
      shape: [W.rows, W.cols],
      expression: { kind: "scaleColumns", scales: halfPart("onebit", g), of },
    };
  },
};

/** |W| ≈ h·gᵀ */
function magnitudes({ rows, cols, data }: Matrix) {
  return rankOne(matrix(rows, cols, data.map(Math.abs)));
}

/**
 * The start alone, of a model that exists ("SVID", section 3.2):
 *
 *   Ŵ = sign(W) ⊙ h·gᵀ,  ‖W − Ŵ‖² = ‖W‖² − σ₁², σ₁ the first singular value of |W|
 *
 * 1 + 16/rows + 16/cols bits per weight. Without the training that follows in the paper little of a model is left.
 */
export const onebitStart: Decomposition<object> = {
  kind: "decomposition",
  name: "onebit",
  paper,
  calibrated: false,
  options: z.strictObject({}),
  check() {},
  async decompose(W) {
    const { left, right } = magnitudes(W);
    return signedLowRank(W, { a: matrix(W.rows, 1, left), b: matrix(1, W.cols, right) });
  },
};

export const onebit: TrainedMethod = {
  name: "onebit",
  paper,
  options: z.strictObject({}).prefault({}),
  with: () => rounding,
};
