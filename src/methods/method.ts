import type { z } from "zod";
import type { Backend } from "../backends/backend.ts";
import type { TensorSource } from "../files/file.ts";
import type { Coded, GroupFormat } from "../formats/format.ts";
import type { Operations } from "../kernels/index.ts";
import type { Model, ModelConfig } from "../models/model.ts";
import type { Job } from "../record/record.ts";
import type { HostTensor, Matrix, Tensor } from "../tensor/tensor.ts";
import type { Weight } from "../tensor/weight.ts";
import type { Tunable } from "./tunable.ts";

/** Where a paper is: authors, year, title or URL. */
interface Named {
  readonly name: string;
  readonly paper: string;
}

/** What a method may use beside the weights. */
export interface Context extends Job {
  readonly backend: Backend;
  /** Of the matrix, as the model calls it. */
  readonly name?: string;
  /**
   * H = (2/n)·Σ x·xᵀ over the n calibration tokens that reach this layer,
   * (cols, cols) symmetric, on the backend; undefined without calibration.
   */
  readonly H?: Tensor;
  /**
   * F (rows·cols): squared gradients of the calibration loss by each weight, summed over the sequences
   * (methods/fisher.ts); for methods that need it.
   */
  readonly fisher?: Float32Array;
  /** The matrix as the model stores it, for methods that change what is stored. */
  readonly stored?: () => Promise<Weight>;
  /** Told which shapes were compared for this matrix, and which were left out and why. */
  readonly tried?: (shapes: readonly Tried[], left: readonly string[]) => void;
}

/** A shape that was tried for a matrix: what it stores for a weight, and its error. */
export interface Tried {
  readonly name: string;
  readonly bits: number;
  readonly error: number;
}

/** What a method may need to know beside the weights. */
export type Need = "H" | "fisher";

/** Changes a float model into another one that computes the same function and compresses better (smoothing, rotation). */
export interface Transform<Options = object> extends Named {
  readonly kind: "transform";
  apply(model: Model, source: TensorSource, context: Context, options?: Options): Promise<TensorSource>;
}

/** Chooses codes and group parameters of a format for one matrix; knows no bytes. */
export interface Rounding<Options = object> extends Named {
  readonly kind: "rounding";
  /** Whether `quantize` needs H. */
  readonly calibrated: boolean;
  /** W (rows, cols) -> a code for every weight, parameters for every group. W stays as it is. */
  quantize(W: Matrix, format: GroupFormat, context: Context, options?: Options): Promise<Coded>;
}

/** Puts one matrix together from several parts (low rank and a rest, codebooks). */
export interface Decomposition<Options = unknown> extends Named {
  readonly kind: "decomposition";
  /** Whether `decompose` needs H. */
  readonly calibrated: boolean;
  /** What it needs with these options. */
  needs?(options: Options): readonly Need[];
  /** What a person may set. */
  readonly options: z.ZodType<Options>;
  /** It gives sums whose last terms may be left away, each for a larger error: the file opens at any size (files/budget.ts). */
  stacked?(options: Options): StackMeasure;
  /** Throws an InputError where a matrix of this size cannot be put together so. */
  check(size: { readonly rows: number; readonly cols: number }, options: Options): void;
  /** Bytes of a matrix of this size at the least, where they are known before any work. */
  least?(size: { readonly rows: number; readonly cols: number }, options: Options): number;
  /** W (rows, cols) -> parts that stand for it. W stays as it is. */
  decompose(W: Matrix, context: Context, options: Options): Promise<Weight>;
  /** For methods whose matrices share something that is learned of them all. */
  readonly shared?: Shared<Options>;
}

/** All matrices are seen once, in float, before the first is put together, and what they share is learned of samples. */
export interface Shared<Options, Sample = unknown> {
  /** Whether these options share anything. */
  wanted(options: Options): boolean;
  /** What is kept of a matrix, whose H is that of the float model; it stands for so many. */
  sample(W: Matrix, context: Context, options: Options, count: number): Promise<Sample>;
  /** The options of all matrices. */
  learn(samples: readonly Sample[], context: Context, options: Options): Promise<Options>;
}

/** What is known of a block when all are put into one order: the error of its layer, or the loss of the model. */
export type StackMeasure = "error" | "loss";

/** Where a run stands. */
export interface Moment {
  /** Steps done before this one, from 0. */
  readonly step: number;
  /** Steps of the whole run. */
  readonly steps: number;
  /** Bits at which a model of several widths is read this time. */
  readonly bits?: number;
}

/** One of the widths of a model that is stored once and read at any of them. */
export interface Width {
  readonly bits: number;
  /** What its loss counts in the sum. */
  readonly share: number;
}

/** A matrix at the start of its training: latent weights and what is trained beside them, by name. */
export interface Start {
  readonly W: Matrix;
  readonly parameters: Readonly<Record<string, HostTensor>>;
}

/**
 * Rounding as a part of training: float weights are kept, and the forward pass
 * sees them rounded, with the scale as the format will store it. `forward` is
 * made of operations, whose own backward passes give the gradient; a method's
 * straight-through rule is the backward pass of its kernel.
 */
export interface TrainedRounding extends Named {
  readonly kind: "trained";
  /** Formats that can hold what it trains, the best first; the first that fits the model's sizes is the default. */
  readonly formats: readonly string[];
  /** What is trained in place of the float matrix W called `name`; default: W alone. */
  start?(W: Matrix, name: string): Start;
  /** The matrix that the linear layer uses: W (rows, cols) -> (rows, cols). */
  forward(ops: Operations, W: Tensor, parameters: Readonly<Record<string, Tensor>>, at: Moment): Tensor;
  /** Other changes to the model that the method asks for: rounding of activations, norms. */
  modelChanges?(config: ModelConfig): ModelConfig;
  /** The matrices stay as they start. */
  readonly frozen?: boolean;
  /** The model is trained at all of these widths together. */
  readonly widths?: readonly Width[];
  /** Step before which the optimizer's states begin anew. */
  readonly resetsOptimizerAt?: number;
  /** The trained matrix as it will be stored: decodes to what `forward` gives at that moment. */
  export(
    W: Matrix,
    format: GroupFormat,
    context: Context,
    parameters: Readonly<Record<string, HostTensor>>,
    at: Moment,
  ): Promise<Weight>;
}

/**
 * A stored matrix of which something is trained while the rest stays packed: what moves, how the layer computes with it,
 * and the weight that stores just that function.
 */
export interface Tuned extends Pick<Tunable, "parameters" | "open"> {
  /** The matrix with these values; what needs arithmetic as the layer does it asks the same backend. */
  stored(values: ReadonlyMap<string, Float32Array>, backend: Backend): Weight | Promise<Weight>;
}

/** A model as it is stored, and what of its matrices is trained; matrices that are not among these stay as they are. */
export interface TunedBase {
  readonly weights: ReadonlyMap<string, Weight>;
  readonly tuned: ReadonlyMap<string, Tuned>;
}

/** What is trained of the matrices of a model that is stored already; no matrix of floats is kept. */
export interface Tuning extends Named {
  readonly kind: "tuning";
  /** The matrix called `name` as it is trained; an InputError where this weight cannot be. */
  tuned(weight: Weight, name: string): Tuned;
}

/** A way to tune, with what a recipe may set under `options`. */
export interface TunedMethod<Options = unknown> extends Named {
  readonly options: z.ZodType<Options>;
  with(options: Options): Tuning;
}

/** A way to train, with what a recipe may set under `options`. */
export interface TrainedMethod<Options = unknown> extends Named {
  readonly options: z.ZodType<Options>;
  with(options: Options): TrainedRounding;
}
