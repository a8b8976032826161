import type { JsonObject } from "../files/file.ts";
import { InputError } from "../tensor/tensor.ts";
import { llama } from "./llama.ts";
import { lowBitJson, readLowBit } from "./low-bit.ts";
import type { Model, ModelConfig } from "./model.ts";

/**
 * Architectures by their `model_type` in a Hugging Face config. `lowbit_llama` is a LLaMA with what stands under
 * `lowbit`: a name of its own, so that no reader of plain ones takes it for one of them.
 */
export const architectures = { llama, lowbit_llama: llama };

export type { Model, ModelConfig, TensorSpec } from "./model.ts";

/**
 * The model that a config.json describes, in Hugging Face's words
 * (`hidden_size`, `num_hidden_layers`, …). Throws an InputError that names
 * what is missing, out of range or not supported.
 */
export function describe(config: { readonly [key: string]: unknown }): Model {
  const type = config.model_type ?? "llama";
  if (typeof type !== "string" || !Object.hasOwn(architectures, type)) {
    const known = Object.keys(architectures).join(", ");
    throw new InputError(`config: model_type ${JSON.stringify(type)} is not supported; known: ${known}`);
  }
  refuse(config, "attention_bias", [undefined, null, false]);
  refuse(config, "mlp_bias", [undefined, null, false]);
  refuse(config, "hidden_act", [undefined, null, "silu", "swish", "relu2"]);
  refuse(config, "rope_scaling", [undefined, null]);

  const dim = count(config, "hidden_size");
  const heads = count(config, "num_attention_heads");
  const kvHeads = count(config, "num_key_value_heads", heads);
  const headDim = count(config, "head_dim", dim / heads);
  if (heads % kvHeads !== 0) {
    throw new InputError(
      `config: num_attention_heads ${heads} is not a multiple of num_key_value_heads ${kvHeads}`,
    );
  }
  if (headDim % 2 !== 0)
    throw new InputError(`config: head_dim must be even for rotary positions, got ${headDim}`);
  const pairing = config.rope_pairing ?? "halves";
  if (pairing !== "halves" && pairing !== "neighbours") {
    throw new InputError(
      `config: rope_pairing must be "halves" or "neighbours", got ${JSON.stringify(pairing)}`,
    );
  }
  const sizes = {
    vocabulary: count(config, "vocab_size"),
    context: count(config, "max_position_embeddings"),
    dim,
    layers: count(config, "num_hidden_layers", undefined, MOST_LAYERS),
    heads,
    kvHeads,
    headDim,
    ffn: count(config, "intermediate_size"),
    normEpsilon: positive(config, "rms_norm_eps", 1e-6),
    ropeBase: positive(config, "rope_theta", 10000),
    ropePairing: pairing,
    tiedHead: config.tie_word_embeddings === true,
  } as const;
  return architectures[type as keyof typeof architectures]({
    architecture: "llama",
    ...sizes,
    ...(config.hidden_act === "relu2" ? { ffnActivation: "relu2" } : {}),
    ...readLowBit(config.lowbit, sizes),
  });
}

/** The config.json of a model, for writing: the inverse of `describe`. */
export function configJson(config: ModelConfig): JsonObject {
  const lowbit = lowBitJson(config);
  return {
    architectures: [lowbit ? "LowbitLlamaForCausalLM" : "LlamaForCausalLM"],
    model_type: lowbit ? "lowbit_llama" : "llama",
    hidden_act: config.ffnActivation ?? "silu",
    vocab_size: config.vocabulary,
    max_position_embeddings: config.context,
    hidden_size: config.dim,
    num_hidden_layers: config.layers,
    num_attention_heads: config.heads,
    num_key_value_heads: config.kvHeads,
    head_dim: config.headDim,
    intermediate_size: config.ffn,
    rms_norm_eps: config.normEpsilon,
    rope_theta: config.ropeBase,
    tie_word_embeddings: config.tiedHead,
    ...(config.ropePairing === "halves" ? {} : { rope_pairing: config.ropePairing }),
    ...(lowbit ? { lowbit } : {}),
  };
}

// No real model has a dimension above this; a hostile config must not make us allocate for one.
const LARGEST = 2 ** 24;
// Nor has one as many blocks; each is nine names before the file is asked for them.
const MOST_LAYERS = 2 ** 12;

function count(
  config: { readonly [key: string]: unknown },
  key: string,
  fallback?: number,
  most = LARGEST,
): number {
  const value = config[key] ?? fallback;
  if (typeof value !== "number" || !Number.isInteger(value) || value < 1 || value > most) {
    throw new InputError(
      `config: ${key} must be a whole number from 1 to ${most}, got ${JSON.stringify(value)}`,
    );
  }
  return value;
}

function positive(config: { readonly [key: string]: unknown }, key: string, fallback: number): number {
  const value = config[key] ?? fallback;
  if (typeof value !== "number" || !(value > 0) || !Number.isFinite(value)) {
    throw new InputError(`config: ${key} must be a positive number, got ${JSON.stringify(value)}`);
  }
  return value;
}

function refuse(config: { readonly [key: string]: unknown }, key: string, allowed: readonly unknown[]): void {
  if (!allowed.includes(config[key])) {
    throw new InputError(`config: ${key} ${JSON.stringify(config[key])} is not supported`);
  }
}
