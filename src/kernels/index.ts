import type { Tensor } from "../tensor/tensor.ts";
import { accumulate } from "./accumulate.ts";
import { adamw } from "./adamw.ts";
import { adamw4 } from "./adamw4.ts";
import { adamw8 } from "./adamw8.ts";
import { add } from "./add.ts";
import { addGram } from "./add-gram.ts";
import { attention } from "./attention.ts";
import { binary } from "./binary.ts";
import { cacheAppend } from "./cache-append.ts";
import { cholesky } from "./cholesky.ts";
import { collage } from "./collage.ts";
import { crossEntropy } from "./cross-entropy.ts";
import { descend } from "./descend.ts";
import { embedding } from "./embedding.ts";
import { fill } from "./fill.ts";
import { gptqUpdate } from "./gptq-update.ts";
import type { Kernel, Procedure } from "./kernel.ts";
import { layerNorm } from "./layer-norm.ts";
import { linear } from "./linear.ts";
import { matchStates } from "./match-states.ts";
import { momentum } from "./momentum.ts";
import { orthogonalize } from "./orthogonalize.ts";
import { relu2glu } from "./relu2glu.ts";
import { rmsNorm } from "./rms-norm.ts";
import { rope } from "./rope.ts";
import { roundRows } from "./round-rows.ts";
import { softLoss } from "./soft-loss.ts";
import { splitBf16 } from "./split-bf16.ts";
import { squaredNorm } from "./squared-norm.ts";
import { svd } from "./svd.ts";
import { swiglu } from "./swiglu.ts";
import { ternary } from "./ternary.ts";
import { triangularSolve } from "./triangular-solve.ts";

/** Every differentiable operation: a name here is a stem in this folder and a function in the C++ table. */
export const kernels = {
  add,
  embedding,
  linear,
  rmsNorm,
  rope,
  attention,
  swiglu,
  crossEntropy,
  ternary,
  binary,
  layerNorm,
  relu2glu,
  roundRows,
  softLoss,
  matchStates,
};

/** Every operation in place. */
export const procedures = {
  fill,
  accumulate,
  cacheAppend,
  squaredNorm,
  adamw,
  adamw8,
  adamw4,
  splitBf16,
  collage,
  momentum,
  orthogonalize,
  descend,
  addGram,
  cholesky,
  triangularSolve,
  svd,
  gptqUpdate,
};

export type KernelName = keyof typeof kernels;
export type ProcedureName = keyof typeof procedures;
type ArgumentsOf<K> = K extends Kernel<infer A> ? A : K extends Procedure<infer A> ? A : never;

/** The operations as functions from tensors to a tensor: what a model is written in. */
export type Operations = {
  [K in KernelName]: (...args: ArgumentsOf<(typeof kernels)[K]>) => Tensor;
};

/** The operations in place, as functions. */
export type Procedures = {
  [P in ProcedureName]: (...args: ArgumentsOf<(typeof procedures)[P]>) => void;
};

/** The operations as methods that all end in `run`. */
export function operationsOver(run: (name: KernelName, args: readonly unknown[]) => Tensor): Operations {
  const methods = (Object.keys(kernels) as KernelName[]).map((name) => [
    name,
    (...args: readonly unknown[]) => run(name, args),
  ]);
  return Object.fromEntries(methods);
}
