import { z } from "zod";
import type { Operations } from "../kernels/index.ts";
import type { Model, Span, Weights } from "../models/model.ts";
import type { Tensor } from "../tensor/tensor.ts";

/** What a recipe's model learns from; default: the text's own next tokens. */
export const lossSchema = z.strictObject({}).prefault({});

/** A model at work in training. */
export interface Learner {
  readonly model: Model;
  readonly weights: Weights;
  readonly rope: Tensor;
}

/** Sequences as a learner reads them: ids and targets (tokens) i32. */
export interface Sequences {
  readonly ids: Tensor;
  readonly targets: Tensor;
  readonly at: Span;
}

/** How blocks are computed: one after the other, or each as a segment that is computed again in the backward pass. */
export type RunBlock = (body: () => Tensor) => Tensor;

/** −ln p of every target -> (tokens). */
export function tokenLosses(
  ops: Operations,
  { model, weights, rope }: Learner,
  { ids, targets, at }: Sequences,
  runBlock: RunBlock,
): Tensor {
  let x = model.embed(ops, ids, weights);
  for (let i = 0; i < model.config.layers; i++) {
    const input = x;
    x = runBlock(() => model.block(ops, i, input, weights, at, rope));
  }
  return ops.crossEntropy(model.finalNorm(ops, x, weights), weights.get(model.headWeight)!, targets);
}
