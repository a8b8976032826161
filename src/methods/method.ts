import type { Backend } from "../backends/backend.ts";
import type { TensorSource } from "../files/file.ts";
import type { Coded, GroupFormat } from "../formats/format.ts";
import type { Operations } from "../kernels/index.ts";
import type { Model, ModelConfig } from "../models/model.ts";
import type { Job } from "../record/record.ts";
import type { HostTensor, Matrix, Tensor } from "../tensor/tensor.ts";
import type { Weight } from "../tensor/weight.ts";

/** Where a paper is: authors, year, title or URL. */
interface Named {
  readonly name: string;
  readonly paper: string;
}

/** What a method may use beside the weights. */
export interface Context extends Job {
  readonly backend: Backend;
  /**
   * H = (2/n)·Σ x·xᵀ over the n calibration tokens that reach this layer,
   * (cols, cols) symmetric, on the backend; undefined without calibration.
   */
  readonly H?: Tensor;
}

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
export interface Decomposition<Options = object> extends Named {
  readonly kind: "decomposition";
  readonly calibrated: boolean;
  decompose(W: Matrix, context: Context, options?: Options): Promise<Weight>;
}

/** How the inputs of a linear layer are rounded, in training and by `linear` at inference alike. */
export interface Activation {
  readonly bits: number;
  readonly symmetric: boolean;
  readonly per: "token" | "tensor" | { readonly group: number };
  readonly rounding: "halfEven" | "halfAway";
  /** Share of the inputs that are set to 0. */
  readonly sparsity?: number;
}

/**
 * Rounding as a part of training: float weights are kept, and the forward pass
 * sees them rounded, with the scale as the format will store it. `forward` is
 * made of operations, whose own backward passes give the gradient; a method's
 * straight-through rule is the backward pass of its kernel.
 */
export interface TrainedRounding extends Named {
  readonly kind: "trained";
  /** What is trained for a matrix beside it, at its start; empty where nothing is. */
  parameters(W: Matrix): Readonly<Record<string, HostTensor>>;
  /** The matrix that the linear layer uses in this step: W (rows, cols) -> (rows, cols). */
  forward(ops: Operations, W: Tensor, parameters: Readonly<Record<string, Tensor>>, step: number): Tensor;
  readonly activation?: Activation;
  /** Other changes to the model that the method asks for. */
  modelChanges?(config: ModelConfig): ModelConfig;
  /** The trained matrix as it will be stored: decodes to what `forward` gives at the last step. */
  export(
    W: Matrix,
    format: GroupFormat,
    context: Context,
    parameters: Readonly<Record<string, HostTensor>>,
  ): Promise<Weight>;
}
