import type { Operations } from "../kernels/index.ts";
import type { RoundingRule } from "../kernels/round-rows.ts";
import type { Tensor } from "../tensor/tensor.ts";

/** How values are rounded before they are multiplied or kept, as `roundRows` does (kernels/round-rows.ts). */
export interface Activation {
  readonly bits: number;
  readonly rule: RoundingRule;
  /** Neighbours along a row that share a scale; a whole row unless told. */
  readonly group?: number;
  /** Share of a row's values that stay, the largest; the others are 0. */
  readonly share?: number;
  /** Values beyond this get no gradient. */
  readonly limit?: number;
}

/** What the linear layers of a block multiply: each place rounded in its own way, or not at all. */
export interface Activations {
  /** Input of q, k and v. */
  readonly attention?: Activation;
  /** Input of o. */
  readonly attentionOutput?: Activation;
  /** Input of gate and up. */
  readonly ffn?: Activation;
  /** Input of down. */
  readonly ffnOutput?: Activation;
}

/** The same rounding in all four places. */
export function everywhere(how: Activation): Activations {
  return { attention: how, attentionOutput: how, ffn: how, ffnOutput: how };
}

/** Numbers that shape a decoder, in our own words; `describe` reads them from a config in Hugging Face's words. */
export interface ModelConfig {
  readonly architecture: "llama";
  readonly vocabulary: number;
  readonly context: number;
  readonly dim: number;
  readonly layers: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly ffn: number;
  readonly normEpsilon: number;
  readonly ropeBase: number;
  /** Which elements of a head turn together: neighbours (0,1), (2,3) … or halves (0,n/2), (1,n/2+1) … */
  readonly ropePairing: "neighbours" | "halves";
  /** The output matrix is the embedding matrix. */
  readonly tiedHead: boolean;
  /** What follows gate in the feed-forward layer: silu(gate)⊙up unless told, or relu(gate)²⊙up. */
  readonly ffnActivation?: "silu" | "relu2";
  /** RMSNorms also before o and down (BitNet's SubLN). */
  readonly subNorm?: boolean;
  /** A norm without gains after each linear layer (OneBit). */
  readonly outputNorm?: boolean;
  readonly activations?: Activations;
  /** How keys and values are rounded before attention sees them. */
  readonly cacheRounding?: Activation;
}

export type Role = "embedding" | "norm" | "linear" | "head";

/** A tensor that an architecture needs, by its Hugging Face name. */
export interface TensorSpec {
  readonly name: string;
  readonly shape: readonly number[];
  readonly role: Role;
  /** Transformer block it belongs to; undefined for embedding, last norm and head. */
  readonly block?: number;
}

/** Weights on a backend, by name. */
export type Weights = ReadonlyMap<string, Tensor>;

/** Sees the input of a linear layer (calibration, hidden-state losses). */
export type Tap = (name: string, input: Tensor) => void;

/** Where in their sequences the rows of x stand: `batch` sequences of `time` tokens, the first at position `from`. */
export interface Span {
  readonly batch: number;
  readonly time: number;
  readonly from: number;
}

/** An architecture: its tensors, and its forward pass in three pieces so that blocks can come and go. */
export interface Model {
  readonly config: ModelConfig;
  readonly tensors: readonly TensorSpec[];
  /** ids (tokens) -> x (tokens, dim) */
  embed(ops: Operations, ids: Tensor, weights: Weights): Tensor;
  /** One transformer block: x (tokens, dim) -> x (tokens, dim). With a cache, keys and values of this span are appended. */
  block(
    ops: Operations,
    i: number,
    x: Tensor,
    weights: Weights,
    at: Span,
    rope: Tensor,
    cache?: KvCache,
    tap?: Tap,
  ): Tensor;
  /** Last norm: x (tokens, dim) -> hidden states (tokens, dim), to be multiplied by `headWeight`. */
  finalNorm(ops: Operations, x: Tensor, weights: Weights): Tensor;
  /** Name of the output matrix (vocabulary, dim). */
  readonly headWeight: string;
}

/** Keys and values of earlier tokens of one sequence, per block. */
export interface KvCache {
  /** Tokens held. */
  readonly length: number;
  readonly capacity: number;
  /**
   * Appends k and v (tokens, kvHeads·headDim) of block i at `length`; gives the tensors with all rows so far,
   * and maybe rows behind them that nothing was written into.
   */
  append(i: number, k: Tensor, v: Tensor): { keys: Tensor; values: Tensor; length: number };
  /** Moves `length` on after all blocks of a span were appended. */
  advance(tokens: number): void;
  /** Forgets all but the first `length` tokens. */
  truncate(length: number): void;
  free(): void;
}
