import { InputError } from "../tensor/tensor.ts";
import type { JsonObject } from "./file.ts";
import type { Gguf, GgufTensor } from "./gguf.ts";
import type { DecoderSizes } from "./output.ts";
import type { GgufEntry } from "./write-gguf.ts";

/**
 * A LLaMA decoder in the words of GGUF and of Hugging Face
 * (https://github.com/ggml-org/llama.cpp/blob/master/src/llama-arch.cpp, LLM_ARCH_LLAMA). In GGUF
 * the rows of q and k stand so that neighbours turn together (`rope_pairing: "neighbours"`).
 */

const OUTSIDE: readonly (readonly [gguf: string, hf: string])[] = [
  ["token_embd.weight", "model.embed_tokens.weight"],
  ["output_norm.weight", "model.norm.weight"],
  ["output.weight", "lm_head.weight"],
];
const IN_BLOCK: readonly (readonly [gguf: string, hf: string])[] = [
  ["attn_norm.weight", "input_layernorm.weight"],
  ["attn_q.weight", "self_attn.q_proj.weight"],
  ["attn_k.weight", "self_attn.k_proj.weight"],
  ["attn_v.weight", "self_attn.v_proj.weight"],
  ["attn_output.weight", "self_attn.o_proj.weight"],
  ["ffn_norm.weight", "post_attention_layernorm.weight"],
  ["ffn_gate.weight", "mlp.gate_proj.weight"],
  ["ffn_up.weight", "mlp.up_proj.weight"],
  ["ffn_down.weight", "mlp.down_proj.weight"],
];
const hfOutside = new Map(OUTSIDE);
const hfInBlock = new Map(IN_BLOCK);
const toGguf = new Map([...OUTSIDE, ...IN_BLOCK].map(([gguf, hf]) => [hf, gguf]));

/** Hugging Face's name of a GGUF tensor; undefined for one that a LLaMA decoder does not have. */
function hfName(name: string): string | undefined {
  const [, block, rest] = /^blk\.(0|[1-9]\d{0,5})\.(.+)$/.exec(name) ?? [];
  if (block === undefined) return hfOutside.get(name);
  const found = hfInBlock.get(rest);
  return found && `model.layers.${block}.${found}`;
}

/** GGUF's name of a Hugging Face tensor; throws for one that a LLaMA decoder does not have. */
export function ggufName(name: string): string {
  const [, block, rest] = /^model\.layers\.(\d+)\.(.+)$/.exec(name) ?? [];
  const found = toGguf.get(rest ?? name);
  if (found === undefined) throw new InputError(`gguf: ${name} has no name in a llama GGUF file`);
  return block === undefined ? found : `blk.${block}.${found}`;
}

/** The file's tensors by their Hugging Face names; an InputError names one that our decoder would not use. */
export function llamaTensors(file: string, gguf: Gguf): Map<string, GgufTensor> {
  const tensors = new Map<string, GgufTensor>();
  for (const tensor of gguf.tensors.values()) {
    const name = hfName(tensor.name);
    if (name === undefined) {
      const what = tensor.name.startsWith("rope_freqs")
        ? "scales the rotary positions, which lowbit does not compute yet"
        : "is no part of the llama decoder that lowbit computes";
      throw new InputError(`${file}: tensor ${tensor.name} ${what}`);
    }
    tensors.set(name, tensor);
  }
  return tensors;
}

/** The config in Hugging Face's words. Throws an InputError for what our decoder does not compute. */
export async function llamaConfig(
  file: string,
  gguf: Gguf,
  tensors: ReadonlyMap<string, GgufTensor>,
): Promise<JsonObject> {
  const { metadata } = gguf;
  const refuse = (key: string, met: unknown, why: string) =>
    new InputError(`${file}: ${key} is ${String(met)}; ${why}`);
  const number = (name: string): number | undefined => {
    const value = metadata.get(`llama.${name}`);
    if (value === undefined || typeof value === "number") return value;
    throw refuse(`llama.${name}`, typeof value === "object" ? "an array" : value, "a number is needed");
  };
  const needed = (name: string): number => {
    const value = number(name);
    if (value === undefined)
      throw new InputError(`${file}: needs llama.${name}, found none; is the file complete?`);
    return value;
  };
  /** Some files give one count for each block; ours are all alike. */
  const heads = async (name: string): Promise<number | undefined> => {
    const key = `llama.${name}`;
    if (typeof metadata.get(key) !== "object") return number(name);
    const counts = await gguf.numbers(key);
    const [first] = counts ?? [];
    if (counts?.some((count) => count !== first))
      throw refuse(key, "different from block to block", "lowbit has the same heads in every block");
    return first;
  };

  const dim = needed("embedding_length");
  const headCount = await heads("attention.head_count");
  if (headCount === undefined)
    throw new InputError(`${file}: needs llama.attention.head_count, found none; is the file complete?`);
  const headDim = number("attention.key_length") ?? dim / headCount;
  const same = (name: string, value: number, why: string) => {
    const met = number(name);
    if (met !== undefined && met !== value) throw refuse(`llama.${name}`, met, why);
  };
  same("attention.value_length", headDim, `keys have ${headDim}, and lowbit needs both alike`);
  same("rope.dimension_count", headDim, `lowbit turns all ${headDim} elements of a head`);
  same("expert_count", 0, "mixtures of experts are not computed yet");
  same("attention.scale", 0, "lowbit scales attention by 1/√head_dim");
  const scaling = metadata.get("llama.rope.scaling.type") ?? "none";
  const factor = number("rope.scaling.factor") ?? number("rope.scale_linear") ?? 1;
  if (scaling !== "none" && !(scaling === "linear" && (factor === 1 || factor === 0)))
    throw refuse("llama.rope.scaling.type", scaling, "scaled rotary positions are not computed yet");
  if (scaling === "none" && factor !== 1 && factor !== 0)
    throw refuse("llama.rope.scaling.factor", factor, "scaled rotary positions are not computed yet");

  const embedding = tensors.get("model.embed_tokens.weight");
  const list = metadata.get("tokenizer.ggml.tokens");
  const vocabulary =
    embedding?.shape[0] ?? number("vocab_size") ?? (typeof list === "object" ? list.count : undefined);
  if (vocabulary === undefined)
    throw new InputError(`${file}: needs token_embd.weight, found none; is the file complete?`);
  if (typeof list === "object" && list.count > 0 && list.count !== vocabulary)
    throw new InputError(
      `${file}: tokenizer.ggml.tokens has ${list.count} tokens for ${vocabulary} embeddings`,
    );
  const id = (name: string): number | undefined => {
    const value = metadata.get(`tokenizer.ggml.${name}_token_id`);
    return typeof value === "number" && value >= 0 && value < vocabulary ? value : undefined;
  };
  const [bos, eos] = [id("bos"), id("eos")];
  return {
    architectures: ["LlamaForCausalLM"],
    model_type: "llama",
    hidden_act: "silu",
    hidden_size: dim,
    intermediate_size: needed("feed_forward_length"),
    num_hidden_layers: needed("block_count"),
    num_attention_heads: headCount,
    num_key_value_heads: (await heads("attention.head_count_kv")) ?? headCount,
    head_dim: headDim,
    vocab_size: vocabulary,
    max_position_embeddings: needed("context_length"),
    rms_norm_eps: decimal(needed("attention.layer_norm_rms_epsilon")),
    rope_theta: decimal(number("rope.freq_base") ?? 10000),
    rope_pairing: "neighbours",
    tie_word_embeddings: !tensors.has("lm_head.weight"),
    ...(bos === undefined ? {} : { bos_token_id: bos }),
    ...(eos === undefined ? {} : { eos_token_id: eos }),
  };
}

/** The decimal that a float32 was written as: 1e-5 for the 9.999999747378752e-6 that the file holds. */
function decimal(value: number): number {
  const short = Number(value.toPrecision(7));
  return Math.fround(short) === Math.fround(value) ? short : value;
}

/** What llama.cpp needs to know of a decoder, as keys of a file. */
export function llamaEntries(sizes: DecoderSizes): GgufEntry[] {
  const u32 = (name: string, value: number): GgufEntry => [`llama.${name}`, "u32", value];
  const f32 = (name: string, value: number): GgufEntry => [`llama.${name}`, "f32", value];
  const { headDim } = sizes;
  return [
    u32("vocab_size", sizes.vocabulary),
    u32("context_length", sizes.context),
    u32("embedding_length", sizes.dim),
    u32("block_count", sizes.layers),
    u32("feed_forward_length", sizes.ffn),
    u32("attention.head_count", sizes.heads),
    u32("attention.head_count_kv", sizes.kvHeads),
    ...(headDim * sizes.heads === sizes.dim
      ? []
      : [u32("attention.key_length", headDim), u32("attention.value_length", headDim)]),
    f32("attention.layer_norm_rms_epsilon", sizes.normEpsilon),
    u32("rope.dimension_count", headDim),
    f32("rope.freq_base", sizes.ropeBase),
  ];
}
