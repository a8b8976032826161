import type { Tensor } from "../tensor/tensor.ts";
import { accumulate } from "./accumulate.ts";
import { adamw } from "./adamw.ts";
import { adamw4 } from "./adamw4.ts";
import { adamw8 } from "./adamw8.ts";
import { add } from "./add.ts";
import { addClusters } from "./add-clusters.ts";
import { addGram } from "./add-gram.ts";
import { addRow } from "./add-row.ts";
import { attention } from "./attention.ts";
import { beamEntries } from "./beam-entries.ts";
import { binary } from "./binary.ts";
import { cacheAppend } from "./cache-append.ts";
import { cholesky } from "./cholesky.ts";
import { collage } from "./collage.ts";
import { combine } from "./combine.ts";
import { isCompound, linearOf, type Segment } from "./compound.ts";
import { crossEntropy } from "./cross-entropy.ts";
import { descend } from "./descend.ts";
import { embedding } from "./embedding.ts";
import { fill } from "./fill.ts";
import { gelu } from "./gelu.ts";
import { gptqUpdate } from "./gptq-update.ts";
import { hadamard } from "./hadamard.ts";
import { half } from "./half.ts";
import { join } from "./join.ts";
import type { Kernel, Procedure } from "./kernel.ts";
import { layerNorm } from "./layer-norm.ts";
import { learnedStep } from "./learned-step.ts";
import { linear } from "./linear.ts";
import { lookUp } from "./look-up.ts";
import { matchStates } from "./match-states.ts";
import { momentum } from "./momentum.ts";
import { nearestE8p } from "./nearest-e8p.ts";
import { nearestEntries } from "./nearest-entries.ts";
import { neighbourSums } from "./neighbour-sums.ts";
import { neighbourhoods } from "./neighbourhoods.ts";
import { nested } from "./nested.ts";
import { orthogonalize } from "./orthogonalize.ts";
import { pickColumns } from "./pick-columns.ts";
import { pixelShuffle } from "./pixel-shuffle.ts";
import { relu2glu } from "./relu2glu.ts";
import { rmsNorm } from "./rms-norm.ts";
import { rope } from "./rope.ts";
import { roundRows } from "./round-rows.ts";
import { scaleColumns } from "./scale-columns.ts";
import { scaleRows } from "./scale-rows.ts";
import { sign } from "./sign.ts";
import { snap } from "./snap.ts";
import { softLoss } from "./soft-loss.ts";
import { splitBf16 } from "./split-bf16.ts";
import { squaredNorm } from "./squared-norm.ts";
import { svd } from "./svd.ts";
import { swiglu } from "./swiglu.ts";
import { ternary } from "./ternary.ts";
import { triangularSolve } from "./triangular-solve.ts";
import { viterbi } from "./viterbi.ts";

/** Every differentiable operation: a name here is a stem in this folder and a function in the C++ table. */
export const kernels = {
  add,
  embedding,
  linear,
  rmsNorm,
  layerNorm,
  rope,
  attention,
  swiglu,
  relu2glu,
  roundRows,
  softLoss,
  matchStates,
  crossEntropy,
  ternary,
  binary,
  sign,
  half,
  scaleRows,
  scaleColumns,
  lookUp,
  join,
  snap,
  pickColumns,
  hadamard,
  addRow,
  combine,
  learnedStep,
  nested,
  neighbourhoods,
  neighbourSums,
  pixelShuffle,
  gelu,
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
  nearestEntries,
  beamEntries,
  nearestE8p,
  addClusters,
  viterbi,
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

/**
 * The operations as methods that all end in `run`; a `linear` of a compound, in those of its parts, of which `segment`
 * frees what only a piece of the result needs.
 */
export function operationsOver(
  run: (name: KernelName, args: readonly unknown[]) => Tensor,
  segment: Segment = (body) => body(),
): Operations {
  const methods = (Object.keys(kernels) as KernelName[]).map((name) => [
    name,
    (...args: readonly unknown[]) => run(name, args),
  ]);
  const simple: Operations = Object.fromEntries(methods);
  return {
    ...simple,
    linear: (x, w, ...precision) =>
      isCompound(w) ? linearOf(simple, x, w, precision[0], segment) : simple.linear(x, w, ...precision),
  };
}

/**
 * The same operations, whose products of float32 matrices may round their operands to BF16 and add up in float32: those
 * of `linear` and `crossEntropy`, forward and backward. Where a backend cannot, or a weight is packed, nothing changes.
 * Of a tape it gives operations that the tape remembers as before.
 */
export function bf16Operations(ops: Operations): Operations {
  const run = ops as Record<string, (...args: readonly unknown[]) => ReturnType<Operations["add"]>>;
  return {
    ...operationsOver((name, args) => run[name](...args)),
    linear: (x, w) => ops.linear(x, w, 1),
    crossEntropy: (x, w, targets) => ops.crossEntropy(x, w, targets, 1),
  };
}
