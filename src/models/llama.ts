import { InputError, type Tensor } from "../tensor/tensor.ts";
import type { Model, ModelConfig, TensorSpec, Weights } from "./model.ts";

/**
 * The LLaMA decoder: pre-norm RMSNorm, rotary positions, grouped-head causal
 * attention, SwiGLU, no biases.
 *
 *   x ← x + Wo·attention(rope(Wq·n), rope(Wk·n), Wv·n),  n = rmsNorm(x)
 *   x ← x + Wdown·(silu(Wgate·n) ⊙ Wup·n),               n = rmsNorm(x)
 *
 * Touvron et al., 2023 (https://arxiv.org/abs/2302.13971), section 2.2;
 * tensor names as in Hugging Face's LlamaForCausalLM.
 */
export function llama(config: ModelConfig): Model {
  const { dim, heads, kvHeads, headDim, normEpsilon } = config;
  const pairing = config.ropePairing === "halves" ? 1 : 0;
  const names = Array.from({ length: config.layers }, (_, i) => blockNames(i));
  const headWeight = config.tiedHead ? EMBEDDING : HEAD;
  return {
    config,
    tensors: tensorsOf(config),
    headWeight,

    embed(ops, ids, weights) {
      return ops.embedding(get(weights, EMBEDDING), ids);
    },

    block(ops, i, x, weights, at, rope, cache, tap) {
      const name = names[i];
      const linear = (input: Tensor, weight: string) => {
        tap?.(weight, input);
        return ops.linear(input, get(weights, weight));
      };
      const turn = (t: Tensor) => ops.rope(t, rope, headDim, at.time, at.from, pairing);

      let normed = ops.rmsNorm(x, get(weights, name.attentionNorm), normEpsilon);
      const q = turn(linear(normed, name.q));
      const k = turn(linear(normed, name.k));
      const v = linear(normed, name.v);
      const { keys, values } = cache ? cache.append(i, k, v) : { keys: k, values: v };
      const attended = ops.attention(q, keys, values, heads, kvHeads, at.batch, at.from);
      const middle = ops.add(x, linear(attended, name.o));

      normed = ops.rmsNorm(middle, get(weights, name.ffnNorm), normEpsilon);
      const gated = ops.swiglu(linear(normed, name.gate), linear(normed, name.up));
      return ops.add(middle, linear(gated, name.down));
    },

    finalNorm(ops, x, weights) {
      return ops.rmsNorm(x, get(weights, NORM), normEpsilon);
    },
  };

  function tensorsOf({ vocabulary, layers, ffn }: ModelConfig): TensorSpec[] {
    const specs: TensorSpec[] = [{ name: EMBEDDING, shape: [vocabulary, dim], role: "embedding" }];
    for (let block = 0; block < layers; block++) {
      const n = names[block];
      specs.push(
        { name: n.attentionNorm, shape: [dim], role: "norm", block },
        { name: n.q, shape: [heads * headDim, dim], role: "linear", block },
        { name: n.k, shape: [kvHeads * headDim, dim], role: "linear", block },
        { name: n.v, shape: [kvHeads * headDim, dim], role: "linear", block },
        { name: n.o, shape: [dim, heads * headDim], role: "linear", block },
        { name: n.ffnNorm, shape: [dim], role: "norm", block },
        { name: n.gate, shape: [ffn, dim], role: "linear", block },
        { name: n.up, shape: [ffn, dim], role: "linear", block },
        { name: n.down, shape: [dim, ffn], role: "linear", block },
      );
    }
    specs.push({ name: NORM, shape: [dim], role: "norm" });
    if (!config.tiedHead) specs.push({ name: HEAD, shape: [vocabulary, dim], role: "head" });
    return specs;
  }
}

const EMBEDDING = "model.embed_tokens.weight";
const NORM = "model.norm.weight";
const HEAD = "lm_head.weight";

function blockNames(i: number) {
  const name = (rest: string) => `model.layers.${i}.${rest}.weight`;
  return {
    attentionNorm: name("input_layernorm"),
    q: name("self_attn.q_proj"),
    k: name("self_attn.k_proj"),
    v: name("self_attn.v_proj"),
    o: name("self_attn.o_proj"),
    ffnNorm: name("post_attention_layernorm"),
    gate: name("mlp.gate_proj"),
    up: name("mlp.up_proj"),
    down: name("mlp.down_proj"),
  };
}

function get(weights: Weights, name: string): Tensor {
  const weight = weights.get(name);
  if (!weight) throw new InputError(`llama: tensor ${name} is missing; is the file complete?`);
  return weight;
}
