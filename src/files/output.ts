import { InputError } from "../tensor/tensor.ts";
import type { Parts } from "../tensor/weight.ts";
import type { ModelFile } from "./file.ts";

/** Sizes of a decoder; a `ModelConfig` of `models` fits. */
export interface DecoderSizes {
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
  readonly tiedHead: boolean;
  readonly ffnActivation?: string;
  readonly subNorm?: boolean;
  readonly outputNorm?: boolean;
  readonly activations?: object;
  readonly cacheRounding?: object;
}

/** Throws an InputError for a decoder that is no plain LLaMA, which is all that a container describes. */
export function needPlain(container: string, sizes: DecoderSizes): void {
  const { ffnActivation = "silu", subNorm, outputNorm, activations, cacheRounding } = sizes;
  const differences = [
    ...(ffnActivation === "silu" ? [] : [`${ffnActivation} in its feed-forward layers`]),
    ...(subNorm ? ["norms before o and down"] : []),
    ...(outputNorm ? ["norms after its linear layers"] : []),
    ...(activations ? ["rounded activations"] : []),
    ...(cacheRounding ? ["rounded keys and values"] : []),
  ];
  if (differences.length > 0) {
    throw new InputError(
      `convert: ${container} cannot hold this model: it has ${differences.join(", ")}; keep it as a folder`,
    );
  }
}

/** A tensor that a model needs, and the format in which it is stored. */
export interface NeededTensor {
  readonly name: string;
  readonly shape: readonly number[];
  readonly role: "embedding" | "norm" | "linear" | "head";
  readonly format: string;
}

/** A model to be written in another container. */
export interface Convertible {
  readonly file: ModelFile;
  readonly sizes: DecoderSizes;
  readonly tensors: readonly NeededTensor[];
}

/** What becomes of a tensor. */
export interface PlannedTensor {
  readonly name: string;
  readonly format: string;
  /** Why it is not the format asked for, or not the one that it had. */
  readonly note?: string;
}

/** A model under way in one container. */
export interface ModelOutput {
  /** `GGUF version 3` */
  readonly container: string;
  /** How the rows of q and k stand in it. */
  readonly pairing: "neighbours" | "halves";
  /** In the order in which they are best written. */
  readonly tensors: readonly PlannedTensor[];
  /** Bytes of the weights' files, headers included. */
  readonly bytes: number;
  /** What a person should know of it. */
  readonly warnings: readonly string[];
  /** Appends whole rows, in the planned format; rows of one tensor come in order. */
  write(name: string, parts: Parts): Promise<void>;
  /** Puts everything at its place and gives the names of the files. */
  finish(record: object): Promise<readonly string[]>;
  /** Removes what was written; does nothing after `finish`. */
  discard(): Promise<void>;
}
