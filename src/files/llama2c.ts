import { InputError, sizeOf } from "../tensor/tensor.ts";
import { packedWeight, type Weight } from "../tensor/weight.ts";
import type { ByteSource, JsonObject, TensorSource } from "./file.ts";

/**
 * llama2.c checkpoints (https://github.com/karpathy/llama2.c, export.py), all little-endian.
 *
 *   legacy     7 int32: dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size, seq_len (a negative
 *              vocab_size: the output matrix is a matrix of its own, at the end); then float32: embedding,
 *              att_norm, wq, wk, wv, wo, ffn_norm, w1, w2, w3, final_norm, two unused RoPE tables of
 *              seq_len·head_size/2, [output]
 *   version 1  u32 "ak42", int32 1, the 7 int32, u8 shared_classifier, zeros up to byte 256; then float32:
 *              att_norm, ffn_norm, final_norm, embedding, wq, wk, wv, wo, w1, w2, w3, [output]
 *   version 2  as version 1 with int32 2 and int32 group_size after shared_classifier; the three norms in
 *              float32, then embedding, wq, wk, wv, wo, w1, w2, w3, [output]: each matrix of each layer as int8
 *              values and one float32 scale for every group_size values of the flattened matrix
 *
 * Each tensor is one run over all layers; matrices are row-major [out, in].
 */
export interface Llama2c {
  readonly source: TensorSource;
  /** In the words of a Hugging Face config.json. */
  readonly config: JsonObject;
  /** `llama2.c legacy`, `llama2.c version 2, int8 in groups of 8, decoded to f32 when read`. */
  readonly container: string;
}

const MAGIC = 0x616b3432;
const LEGACY_HEADER_BYTES = 28;
const HEADER_BYTES = 256;
/** No real model has as many; each is nine names in memory, and may be a hundred bytes of a file. */
const MOST_LAYERS = 2 ** 12;

/** The numbers at the beginning of a file. */
export interface Header {
  readonly version: "legacy" | 1 | 2;
  readonly dim: number;
  readonly hidden: number;
  readonly layers: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly vocabulary: number;
  readonly context: number;
  readonly sharedHead: boolean;
  /** Values that share a scale, in version 2. */
  readonly group: number;
}

/** Where a tensor stands in the file. */
export interface Place {
  readonly shape: readonly number[];
  readonly from: number;
  readonly bytes: number;
  /** Values per scale; undefined for float32. */
  readonly group?: number;
}

/**
 * Opens a checkpoint of any of the three forms; reads its header only. The
 * sizes are checked against the file's length. An int8 matrix is read as
 * float32: its groups run over the flattened matrix and need not divide a
 * row, so none of our formats says it; `bytes` counts what the file stores.
 */
export async function openLlama2c(file: ByteSource): Promise<Llama2c> {
  const header = await readHeader(file);
  const needed = bytesOf(header);
  if (file.byteLength < needed) {
    throw new InputError(
      `${file.name}: truncated: its header asks for ${needed} bytes, the file has ${file.byteLength}`,
    );
  }
  if (file.byteLength > needed) {
    throw new InputError(
      `${file.name}: its header asks for ${needed} bytes, the file has ${file.byteLength}; not a llama2.c checkpoint of this shape`,
    );
  }
  const places = layOut(header);
  const place = (name: string) => {
    const found = places.get(name);
    if (found === undefined) throw new InputError(`${file.name}: has no tensor ${name}`);
    return found;
  };
  return {
    config: configOf(header),
    container:
      header.version === 2
        ? `llama2.c version 2, int8 in groups of ${header.group}, decoded to f32 when read`
        : `llama2.c ${header.version === 1 ? "version 1" : "legacy"}`,
    source: {
      names: [...places.keys()],
      has: (name) => places.has(name),
      shape: (name) => place(name).shape,
      format: () => "f32",
      bytes: (name) => place(name).bytes,
      read: async (name) => readTensor(file, place(name)),
      close: () => file.close(),
    },
  };
}

async function readHeader(file: ByteSource): Promise<Header> {
  if (file.byteLength < LEGACY_HEADER_BYTES) {
    throw new InputError(
      `${file.name}: truncated: a llama2.c header has ${LEGACY_HEADER_BYTES} bytes, the file ${file.byteLength}`,
    );
  }
  const bytes = await file.slice(0, Math.min(HEADER_BYTES, file.byteLength));
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const ints = (at: number) => Array.from({ length: 7 }, (_, i) => view.getInt32(at + 4 * i, true));
  let header: Header;
  if (view.getUint32(0, true) === MAGIC) {
    const version = view.getInt32(4, true);
    if (version !== 1 && version !== 2) {
      throw new InputError(
        `${file.name}: llama2.c version ${version}; versions 1 and 2 and the legacy form are known`,
      );
    }
    if (bytes.byteLength < HEADER_BYTES) {
      throw new InputError(
        `${file.name}: truncated: a header has ${HEADER_BYTES} bytes, the file ${file.byteLength}`,
      );
    }
    header = {
      ...numbers(ints(8)),
      version,
      sharedHead: view.getUint8(36) !== 0,
      group: version === 2 ? view.getInt32(37, true) : 0,
    };
  } else {
    const read = ints(0);
    header = {
      ...numbers(read),
      version: "legacy",
      vocabulary: Math.abs(read[5]),
      sharedHead: read[5] > 0,
      group: 0,
    };
  }
  check(file.name, header);
  return header;
}

function numbers([dim, hidden, layers, heads, kvHeads, vocabulary, context]: number[]) {
  return { dim, hidden, layers, heads, kvHeads, vocabulary, context };
}

function check(file: string, h: Header): void {
  const wrong = (what: string) => {
    const hint =
      h.version === "legacy"
        ? "not a llama2.c file (neither the magic ak42 nor a legacy header): "
        : "bad header: ";
    return new InputError(`${file}: ${hint}${what}`);
  };
  for (const name of ["dim", "hidden", "layers", "heads", "kvHeads", "vocabulary", "context"] as const) {
    if (h[name] <= 0) throw wrong(`${name} is ${h[name]}`);
  }
  if (h.layers > MOST_LAYERS) throw wrong(`${h.layers} layers; at most ${MOST_LAYERS} are read`);
  if (h.dim % h.heads !== 0 || (h.dim / h.heads) % 2 !== 0)
    throw wrong(`${h.heads} heads do not divide dim ${h.dim} into even heads`);
  if (h.heads % h.kvHeads !== 0) throw wrong(`${h.kvHeads} kv heads do not divide ${h.heads} heads`);
  if (h.version === 2) {
    const kvDim = (h.dim / h.heads) * h.kvHeads;
    const sizes = [h.vocabulary * h.dim, h.dim * h.dim, kvDim * h.dim, h.hidden * h.dim];
    const odd = sizes.find((size) => size % h.group !== 0);
    if (h.group <= 0 || odd !== undefined)
      throw wrong(`group size ${h.group} does not divide a matrix of ${odd} values`);
  }
}

/**
 * Bytes of a file with this header, by arithmetic alone: a header can ask for
 * more layers than there is memory to list.
 */
export function bytesOf(h: Header): number {
  const kvDim = (h.dim / h.heads) * h.kvHeads;
  const perLayer = h.dim * (2 * h.dim + 2 * kvDim + 3 * h.hidden);
  const matrices = h.layers * perLayer + h.vocabulary * h.dim * (h.sharedHead ? 1 : 2);
  const norms = (2 * h.layers + 1) * h.dim;
  if (h.version === "legacy")
    return LEGACY_HEADER_BYTES + 4 * (matrices + norms + (h.context * h.dim) / h.heads);
  return HEADER_BYTES + 4 * norms + (h.version === 1 ? 4 * matrices : matrices + (4 * matrices) / h.group);
}

/** Every tensor's place, in the order of the file, under its Hugging Face name. */
export function layOut(h: Header): ReadonlyMap<string, Place> {
  const headDim = h.dim / h.heads;
  const kvDim = headDim * h.kvHeads;
  const tensors = new Map<string, Place>();
  let at = h.version === "legacy" ? LEGACY_HEADER_BYTES : HEADER_BYTES;

  const put = (name: string, shape: readonly number[], group?: number) => {
    const size = sizeOf(shape);
    const bytes = group === undefined ? 4 * size : size + 4 * (size / group);
    tensors.set(name, { shape, from: at, bytes, group });
    at += bytes;
  };
  const perLayer = (name: string, shape: readonly number[], group?: number) => {
    for (let i = 0; i < h.layers; i++) put(`model.layers.${i}.${name}.weight`, shape, group);
  };
  const group = h.version === 2 ? h.group : undefined;
  const pieces = {
    embedding: () => put("model.embed_tokens.weight", [h.vocabulary, h.dim], group),
    attentionNorm: () => perLayer("input_layernorm", [h.dim]),
    attention: () => {
      perLayer("self_attn.q_proj", [h.dim, h.dim], group);
      perLayer("self_attn.k_proj", [kvDim, h.dim], group);
      perLayer("self_attn.v_proj", [kvDim, h.dim], group);
      perLayer("self_attn.o_proj", [h.dim, h.dim], group);
    },
    ffnNorm: () => perLayer("post_attention_layernorm", [h.dim]),
    ffn: () => {
      perLayer("mlp.gate_proj", [h.hidden, h.dim], group);
      perLayer("mlp.down_proj", [h.dim, h.hidden], group);
      perLayer("mlp.up_proj", [h.hidden, h.dim], group);
    },
    finalNorm: () => put("model.norm.weight", [h.dim]),
    ropeTables: () => {
      at += 4 * h.context * headDim;
    },
    head: () => {
      if (!h.sharedHead) put("lm_head.weight", [h.vocabulary, h.dim], group);
    },
  };
  const order: (keyof typeof pieces)[] =
    h.version === "legacy"
      ? ["embedding", "attentionNorm", "attention", "ffnNorm", "ffn", "finalNorm", "ropeTables", "head"]
      : ["attentionNorm", "ffnNorm", "finalNorm", "embedding", "attention", "ffn", "head"];
  for (const piece of order) pieces[piece]();
  return tensors;
}

async function readTensor(file: ByteSource, { shape, from, bytes, group }: Place): Promise<Weight> {
  const stored = await file.slice(from, from + bytes);
  if (group === undefined)
    return packedWeight(shape, "f32", { data: { dtype: "f32", shape, bytes: stored } });
  // w = q·s, one s for `group` values of the flattened matrix; the scales follow the values at any alignment.
  const size = sizeOf(shape);
  const q = new Int8Array(stored.buffer, stored.byteOffset, size);
  const scales = new DataView(stored.buffer, stored.byteOffset + size);
  const w = new Float32Array(size);
  for (let i = 0; i < size; i++) w[i] = q[i] * scales.getFloat32(4 * Math.floor(i / group), true);
  return packedWeight(shape, "f32", { data: { dtype: "f32", shape, bytes: new Uint8Array(w.buffer) } });
}

function configOf(h: Header): JsonObject {
  return {
    architectures: ["LlamaForCausalLM"],
    model_type: "llama",
    hidden_size: h.dim,
    intermediate_size: h.hidden,
    num_hidden_layers: h.layers,
    num_attention_heads: h.heads,
    num_key_value_heads: h.kvHeads,
    head_dim: h.dim / h.heads,
    vocab_size: h.vocabulary,
    max_position_embeddings: h.context,
    hidden_act: "silu",
    rms_norm_eps: 1e-5,
    rope_theta: 10000,
    rope_pairing: "neighbours",
    tie_word_embeddings: h.sharedHead,
    bos_token_id: 1,
    eos_token_id: 2,
  };
}
