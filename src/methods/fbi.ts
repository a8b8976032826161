import { z } from "zod";
import { hostTensor, matrix } from "../tensor/tensor.ts";
import { packedWeight, type Weight } from "../tensor/weight.ts";
import { meansBy, outputsOf, packLevels } from "./exact-levels.ts";
import type { TrainedMethod, TrainedRounding } from "./method.ts";
import { halfPart } from "./vectors.ts";

const paper = "Ma et al., 2024 (https://arxiv.org/abs/2407.07093)";

/**
 * FBI-LLM's binary layer: two trained numbers for each input column.
 *
 *   Ŵ_rc = α_c·sign(W_rc) + β_c, α and β (cols) in fp16
 *   at the start β = mean of column c, α = mean|W − β| of column c
 *   dW = α·dŴ (the sign's gradient is straight through), dα_c = Σ_r sign(W)·dŴ, dβ_c = Σ_r dŴ
 *
 * Ma et al., 2024 (https://arxiv.org/abs/2407.07093); the columns,
 * the start and the gradient as in https://github.com/LiqunMa/FBI-LLM,
 * qat/learnable_binarizer.py (scaling pattern `column`). To be trained by
 * autoregressive distillation. The stored matrix is the signs in the format,
 * times α by columns, plus β as a product of rank one.
 */
const rounding: TrainedRounding = {
  kind: "trained",
  name: "fbi",
  paper,
  formats: ["binary", "trits", "tq2_0", "int2"],

  start(W) {
    const beta = meansBy(W, "cols", (w) => w);
    const alpha = meansBy(W, "cols", (w, c) => Math.abs(w - beta[c]));
    return { W, parameters: { alpha: hostTensor([W.cols], alpha), beta: hostTensor([W.cols], beta) } };
  },

  forward: (ops, W, { alpha, beta }) =>
    ops.addRow(ops.scaleColumns(ops.sign(W, 0), ops.half(alpha)), ops.half(beta)),

  async export(W, format, { backend }, { alpha, beta }) {
    const { rows, cols } = W;
    const shape = [rows, cols];
    const [signs] = await outputsOf(backend, "sign", W, [0]);
    const of = packLevels(rounding, matrix(rows, cols, signs), format, () => ({ scale: 1, offset: 0 }));
    const plain = (shape: readonly number[], values: Float32Array): Weight =>
      packedWeight(shape, "f16", {
        data: { ...halfPart("fbi", hostTensor([values.length], values)), shape },
      });
    const ones = plain([rows, 1], new Float32Array(rows).fill(1));
    const offsets = plain([1, cols], beta.data as Float32Array);
    const scaled: Weight = {
      shape,
      expression: { kind: "scaleColumns", scales: halfPart("fbi", alpha), of },
    };
    const added: Weight = { shape, expression: { kind: "lowRank", a: ones, b: offsets } };
    return { shape, expression: { kind: "sum", terms: [scaled, added] } };
  },
};

export const fbi: TrainedMethod = {
  name: "fbi",
  paper,
  options: z.strictObject({}).prefault({}),
  with: () => rounding,
};
