import type { Operations } from "../kernels/index.ts";
import { roundingRules } from "../kernels/round-rows.ts";
import { InputError, type Tensor } from "../tensor/tensor.ts";
import type { Activation, Model, ModelConfig, TensorSpec, Weights } from "./model.ts";

/**
 * The LLaMA decoder: pre-norm RMSNorm, rotary positions, grouped-head causal
 * attention, SwiGLU, no biases.
 *
 *   x ← x + Wo·attention(rope(Wq·n), rope(Wk·n), Wv·n),  n = rmsNorm(x)
 *   x ← x + Wdown·(silu(Wgate·n) ⊙ Wup·n),               n = rmsNorm(x)
 *
 * Touvron et al., 2023 (https://arxiv.org/abs/2302.13971), section 2.2;
 * tensor names as in Hugging Face's LlamaForCausalLM.
 *
 * What low-bit training changes in it (see `ModelConfig`) is computed here too, in training and afterwards alike: the
 * inputs of linear layers rounded, RMSNorms before o and down (named as in BitNetForCausalLM), relu² in the
 * feed-forward layer, a norm after each linear layer, and keys and values rounded as attention sees them, keys after
 * their rotation, so that a cache keeps nothing else.
 */
export function llama(config: ModelConfig): Model {
  const { dim, heads, kvHeads, headDim, normEpsilon } = config;
  const pairing = config.ropePairing === "halves" ? 1 : 0;
  const names = Array.from({ length: config.layers }, (_, i) => blockNames(i));
  const headWeight = config.tiedHead ? EMBEDDING : HEAD;
  const { activations = {}, cacheRounding, subNorm, outputNorm } = config;
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
        const y = ops.linear(input, get(weights, weight));
        return outputNorm ? ops.layerNorm(y, normEpsilon) : y;
      };
      const norm = (t: Tensor, gain: string) => ops.rmsNorm(t, get(weights, gain), normEpsilon);
      const turn = (t: Tensor) => ops.rope(t, rope, headDim, at.time, at.from, pairing);

      let input = rounded(ops, norm(x, name.attentionNorm), activations.attention);
      const q = turn(linear(input, name.q));
      const k = rounded(ops, turn(linear(input, name.k)), cacheRounding);
      const v = rounded(ops, linear(input, name.v), cacheRounding);
      const { keys, values } = cache ? cache.append(i, k, v) : { keys: k, values: v };
      const attended = ops.attention(q, keys, values, heads, kvHeads, at.batch, at.from);
      const mixed = subNorm ? norm(attended, name.attentionSubNorm) : attended;
      const middle = ops.add(x, linear(rounded(ops, mixed, activations.attentionOutput), name.o));

      input = rounded(ops, norm(middle, name.ffnNorm), activations.ffn);
      const [gate, up] = [linear(input, name.gate), linear(input, name.up)];
      const gated = config.ffnActivation === "relu2" ? ops.relu2glu(gate, up) : ops.swiglu(gate, up);
      const inner = subNorm ? norm(gated, name.ffnSubNorm) : gated;
      return ops.add(middle, linear(rounded(ops, inner, activations.ffnOutput), name.down));
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
        ...subNormOf(n.attentionSubNorm, heads * headDim, block),
        { name: n.o, shape: [dim, heads * headDim], role: "linear", block },
        { name: n.ffnNorm, shape: [dim], role: "norm", block },
        { name: n.gate, shape: [ffn, dim], role: "linear", block },
        { name: n.up, shape: [ffn, dim], role: "linear", block },
        ...subNormOf(n.ffnSubNorm, ffn, block),
        { name: n.down, shape: [dim, ffn], role: "linear", block },
      );
    }
    specs.push({ name: NORM, shape: [dim], role: "norm" });
    if (!config.tiedHead) specs.push({ name: HEAD, shape: [vocabulary, dim], role: "head" });
    return specs;
  }

  function subNormOf(name: string, width: number, block: number): TensorSpec[] {
    return subNorm ? [{ name, shape: [width], role: "norm", block }] : [];
  }
}

/** x as the codes stand for it, or as it is. */
function rounded(ops: Operations, x: Tensor, how: Activation | undefined): Tensor {
  if (!how) return x;
  const { bits, rule, group = 0, share = 1, limit = 0 } = how;
  return ops.roundRows(x, bits, roundingRules.indexOf(rule), group, share, limit);
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
    attentionSubNorm: name("self_attn.attn_sub_norm"),
    o: name("self_attn.o_proj"),
    ffnNorm: name("post_attention_layernorm"),
    gate: name("mlp.gate_proj"),
    up: name("mlp.up_proj"),
    ffnSubNorm: name("mlp.ffn_sub_norm"),
    down: name("mlp.down_proj"),
  };
}

function get(weights: Weights, name: string): Tensor {
  const weight = weights.get(name);
  if (!weight) throw new InputError(`llama: tensor ${name} is missing; is the file complete?`);
  return weight;
}
