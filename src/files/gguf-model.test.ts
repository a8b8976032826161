import { describe, expect, test } from "vitest";
import { ggufBytes, TYPE } from "../../test/gguf-bytes.ts";
import { decodeWeight } from "../formats/index.ts";
import { openGgufModel } from "./gguf-model.ts";
import { memorySource } from "./memory.ts";

const b = ggufBytes();

/** Values of the keys of a tiny model: one block, width 4, two heads of 2, one kv head, inner width 3, two tokens. */
const keys = () =>
  new Map<string, Uint8Array | undefined>([
    ["general.architecture", b.key("general.architecture", TYPE.string, b.string("llama"))],
    ["llama.context_length", u32("llama.context_length", 8)],
    ["llama.embedding_length", u32("llama.embedding_length", 4)],
    ["llama.block_count", u32("llama.block_count", 1)],
    ["llama.feed_forward_length", u32("llama.feed_forward_length", 3)],
    ["llama.attention.head_count", u32("llama.attention.head_count", 2)],
    ["llama.attention.head_count_kv", u32("llama.attention.head_count_kv", 1)],
    ["epsilon", b.key("llama.attention.layer_norm_rms_epsilon", TYPE.f32, b.f32(1e-6))],
  ]);

function u32(name: string, value: number): Uint8Array {
  return b.key(name, TYPE.u32, b.u32(value));
}

const SHAPES: readonly (readonly [name: string, sizes: readonly number[]])[] = [
  ["token_embd.weight", [4, 2]],
  ["blk.0.attn_norm.weight", [4]],
  ["blk.0.attn_q.weight", [4, 4]],
  ["blk.0.attn_k.weight", [4, 2]],
  ["blk.0.attn_v.weight", [4, 2]],
  ["blk.0.attn_output.weight", [4, 4]],
  ["blk.0.ffn_norm.weight", [4]],
  ["blk.0.ffn_gate.weight", [4, 3]],
  ["blk.0.ffn_up.weight", [4, 3]],
  ["blk.0.ffn_down.weight", [3, 4]],
  ["output_norm.weight", [4]],
];

interface Change {
  readonly keys?: Readonly<Record<string, Uint8Array | undefined>>;
  /** Tensors beside the usual ones: ggml type, bytes. */
  readonly tensors?: Readonly<
    Record<string, readonly [sizes: readonly number[], type: number, bytes: number]>
  >;
}

/** The tiny model with some keys and tensors changed; float i of the usual tensors is i in all. */
function file({ keys: changed = {}, tensors = {} }: Change = {}): Uint8Array {
  const all = [...keys(), ...Object.entries(changed)];
  const stored = new Map(all);
  let offset = 0;
  const infos: Uint8Array[] = [];
  const put = (name: string, sizes: readonly number[], type: number, bytes: number) => {
    infos.push(b.tensor(name, sizes, type, offset));
    offset += Math.ceil(bytes / 32) * 32;
  };
  for (const [name, sizes] of SHAPES)
    if (!(name in tensors)) put(name, sizes, 0, 4 * sizes.reduce((product, size) => product * size, 1));
  for (const [name, [sizes, type, bytes]] of Object.entries(tensors)) put(name, sizes, type, bytes);
  const data = new Uint8Array(Float32Array.from({ length: offset / 4 }, (_, i) => i).buffer);
  return b.file({ keys: [...stored.values()].filter((key) => key !== undefined), tensors: infos, data });
}

const open = (change?: Change) => openGgufModel(memorySource(file(change), "x.gguf"));

test("the config in Hugging Face's words, tensors under Hugging Face's names", async () => {
  const model = await open();
  expect(model.config).toEqual({
    architectures: ["LlamaForCausalLM"],
    model_type: "llama",
    hidden_act: "silu",
    hidden_size: 4,
    intermediate_size: 3,
    num_hidden_layers: 1,
    num_attention_heads: 2,
    num_key_value_heads: 1,
    head_dim: 2,
    vocab_size: 2,
    max_position_embeddings: 8,
    rms_norm_eps: 1e-6,
    rope_theta: 10000,
    rope_pairing: "neighbours",
    tie_word_embeddings: true,
  });
  expect(model.container).toBe("GGUF version 3");
  expect(model.tokenizer).toBeUndefined();
  expect(await model.tokenizerFiles()).toEqual([]);
  expect(model.source.names).toContain("model.layers.0.mlp.down_proj.weight");
  expect(model.source.shape("model.layers.0.mlp.down_proj.weight")).toEqual([4, 3]);
  expect(decodeWeight(await model.source.read("model.embed_tokens.weight"))).toMatchObject({
    rows: 2,
    cols: 4,
    data: Float32Array.of(0, 1, 2, 3, 4, 5, 6, 7),
  });
});

test("heads of their own width, counts by block that are all alike, an output matrix", async () => {
  const model = await open({
    keys: {
      "llama.attention.key_length": u32("llama.attention.key_length", 6),
      "llama.attention.value_length": u32("llama.attention.value_length", 6),
      "llama.rope.dimension_count": u32("llama.rope.dimension_count", 6),
      "llama.attention.head_count": b.array("llama.attention.head_count", TYPE.i32, [b.u32(2), b.u32(2)]),
      "llama.attention.head_count_kv": undefined,
      "llama.rope.scaling.type": b.key("llama.rope.scaling.type", TYPE.string, b.string("linear")),
      "llama.rope.scaling.factor": b.key("llama.rope.scaling.factor", TYPE.f32, b.f32(1)),
      "llama.rope.freq_base": b.key("llama.rope.freq_base", TYPE.f32, b.f32(500000)),
    },
    tensors: { "output.weight": [[4, 2], 0, 32] },
  });
  expect(model.config).toMatchObject({
    head_dim: 6,
    num_attention_heads: 2,
    num_key_value_heads: 2,
    rope_theta: 500000,
    tie_word_embeddings: false,
  });
});

test("types without a format here: exact ones become float32, grids are refused when they are read", async () => {
  const model = await open({
    tensors: { "blk.0.attn_v.weight": [[4, 2], 24, 8], "blk.0.ffn_up.weight": [[256, 3], 16, 198] },
  });
  expect(model.container).toBe("GGUF version 3, i8 decoded to f32 when read");
  const v = "model.layers.0.self_attn.v_proj.weight";
  expect(model.source.format(v)).toBe("f32");
  expect(model.source.bytes(v)).toBe(8);
  expect(decodeWeight(await model.source.read(v)).rows).toBe(2);
  const up = "model.layers.0.mlp.up_proj.weight";
  expect(model.source.format(up)).toBe("iq2_xxs");
  await expect(model.source.read(up)).rejects.toThrow(
    /^x\.gguf: tensor blk\.0\.ffn_up\.weight is stored as iq2_xxs: /,
  );
});

describe("what lowbit cannot run is refused by name", () => {
  const text = (name: string, value: string) => b.key(name, TYPE.string, b.string(value));
  const f32 = (name: string, value: number) => b.key(name, TYPE.f32, b.f32(value));
  const cases: Record<string, readonly [Change, RegExp]> = {
    "another architecture": [
      { keys: { "general.architecture": text("general.architecture", "qwen2") } },
      /general\.architecture is "qwen2"; lowbit runs "llama"/,
    ],
    "no architecture": [{ keys: { "general.architecture": undefined } }, /general\.architecture is none/],
    "one file of several": [
      { keys: { "split.count": u32("split.count", 3) } },
      /one of 3 files of a split model; join them/,
    ],
    "no width": [
      { keys: { "llama.embedding_length": undefined } },
      /needs llama\.embedding_length, found none/,
    ],
    "a width that is text": [
      { keys: { "llama.embedding_length": text("llama.embedding_length", "4") } },
      /llama\.embedding_length is 4; a number is needed/,
    ],
    "a width that is a list": [
      { keys: { "llama.embedding_length": b.array("llama.embedding_length", TYPE.u32, [b.u32(4)]) } },
      /llama\.embedding_length is an array; a number is needed/,
    ],
    "no heads": [{ keys: { "llama.attention.head_count": undefined } }, /needs llama\.attention\.head_count/],
    "heads that differ": [
      {
        keys: {
          "llama.attention.head_count": b.array("llama.attention.head_count", TYPE.i32, [b.u32(2), b.u32(4)]),
        },
      },
      /head_count is different from block to block/,
    ],
    "values of another width": [
      { keys: { value: u32("llama.attention.value_length", 8) } },
      /value_length is 8; keys have 2/,
    ],
    "heads that turn in part": [
      { keys: { rope: u32("llama.rope.dimension_count", 1) } },
      /rope\.dimension_count is 1; lowbit turns all 2/,
    ],
    experts: [{ keys: { experts: u32("llama.expert_count", 8) } }, /expert_count is 8; mixtures of experts/],
    "another scale of attention": [
      { keys: { scale: f32("llama.attention.scale", 0.5) } },
      /attention\.scale is 0\.5/,
    ],
    "scaled positions": [
      { keys: { type: text("llama.rope.scaling.type", "yarn") } },
      /rope\.scaling\.type is yarn; scaled rotary positions/,
    ],
    "positions scaled by a factor": [
      { keys: { factor: f32("llama.rope.scale_linear", 4) } },
      /rope\.scaling\.factor is 4; scaled rotary positions/,
    ],
    "frequencies in a tensor": [
      { tensors: { "rope_freqs.weight": [[1], 0, 4] } },
      /tensor rope_freqs\.weight scales the rotary positions/,
    ],
    biases: [
      { tensors: { "blk.0.attn_q.bias": [[4], 0, 16] } },
      /tensor blk\.0\.attn_q\.bias is no part of the llama decoder/,
    ],
    "the embedding inside a block": [
      { tensors: { "blk.0.token_embd.weight": [[4], 0, 16] } },
      /tensor blk\.0\.token_embd\.weight is no part of the llama decoder/,
    ],
    "a norm outside of the blocks": [
      { tensors: { "attn_norm.weight": [[4], 0, 16] } },
      /tensor attn_norm\.weight is no part of the llama decoder/,
    ],
    "a record that is no text": [
      { keys: { record: u32("lowbit.record", 1) } },
      /lowbit\.record must be a string/,
    ],
    "a record that is no JSON": [
      { keys: { record: text("lowbit.record", "{") } },
      /lowbit\.record: needs JSON/,
    ],
    "a retired type": [
      { tensors: { "blk.0.attn_v.weight": [[32], 31, 0] } },
      /is stored as q4_0_4_4: ggml gave it up/,
    ],
  };
  for (const [name, [change, message]] of Object.entries(cases)) {
    test(name, async () => {
      const work = async () => {
        const model = await open(change);
        for (const tensor of model.source.names) await model.source.read(tensor);
      };
      await expect(work()).rejects.toThrow(message);
      await expect(work()).rejects.toMatchObject({
        name: "InputError",
        message: expect.stringMatching(/^x\.gguf: /),
      });
    });
  }

  test("no tensors, or none of those needed to know its vocabulary", async () => {
    const only = (tensors: Uint8Array[]) =>
      b.file({
        keys: [...keys().values()].filter((key) => key !== undefined),
        tensors,
        data: new Uint8Array(64),
      });
    const opened = (bytes: Uint8Array) => openGgufModel(memorySource(bytes, "x.gguf"));
    await expect(opened(only([]))).rejects.toThrow("x.gguf: holds a vocabulary and no tensors");
    await expect(opened(only([b.tensor("output_norm.weight", [4], 0, 0)]))).rejects.toThrow(
      "x.gguf: needs token_embd.weight, found none",
    );
  });
});

describe("the vocabulary", () => {
  const words = (name: string, ...list: string[]) =>
    b.array(`tokenizer.ggml.${name}`, TYPE.string, list.map(b.string));
  const usual = {
    model: b.key("tokenizer.ggml.model", TYPE.string, b.string("llama")),
    tokens: words("tokens", "<unk>", "a"),
  };
  const id = (name: string, value: number) => u32(`tokenizer.ggml.${name}_token_id`, value);

  test("as it stands in the file", async () => {
    const { tokenizer, config } = await open({
      keys: {
        ...usual,
        scores: b.array("tokenizer.ggml.scores", TYPE.f32, [b.f32(0), b.f32(-1)]),
        types: b.array("tokenizer.ggml.token_type", TYPE.i32, [b.u32(2), b.u32(1)]),
        bos: id("bos", 1),
        eos: id("eos", 2 ** 32 - 1),
        add: b.key("tokenizer.ggml.add_bos_token", TYPE.bool, b.u8(1)),
        template: b.key("tokenizer.chat_template", TYPE.string, b.string("{{ x }}")),
      },
    });
    expect(tokenizer).toEqual({
      kind: "gguf",
      model: "llama",
      tokens: ["<unk>", "a"],
      scores: Float32Array.of(0, -1),
      types: Uint8Array.of(2, 1),
      bos: 1,
      addBos: true,
      chatTemplate: "{{ x }}",
    });
    expect(config).toMatchObject({ bos_token_id: 1 });
    expect(config).not.toHaveProperty("eos_token_id");
  });

  const cases: Record<string, readonly [Record<string, Uint8Array>, RegExp]> = {
    "no tokens": [{ ...usual, tokens: words("tokens") }, /tokenizer\.ggml\.tokens is empty/],
    "a model that is a number": [
      { ...usual, model: u32("tokenizer.ggml.model", 1) },
      /model must be a string, is number/,
    ],
    "too few scores": [
      { ...usual, scores: b.array("tokenizer.ggml.scores", TYPE.f32, [b.f32(0)]) },
      /scores has 1 elements for 2 tokens/,
    ],
    "a type that is none": [
      { ...usual, types: b.array("tokenizer.ggml.token_type", TYPE.i32, [b.u32(2), b.u32(7)]) },
      /token_type holds 7; types are 0 to 6/,
    ],
    "an id beyond the tokens": [
      { ...usual, bos: id("bos", 2 ** 31) },
      /bos_token_id is 2147483648; there are 2 tokens/,
    ],
    "a flag that is a list": [
      { ...usual, add: b.array("tokenizer.ggml.add_bos_token", TYPE.u8, []) },
      /add_bos_token must be a boolean, is an array/,
    ],
  };
  for (const [name, [changed, message]] of Object.entries(cases))
    test(name, async () => {
      await expect(open({ keys: changed })).rejects.toMatchObject({
        name: "InputError",
        message: expect.stringMatching(message),
      });
    });
});
