import { encodeSafetensors } from "../../src/files/safetensors.ts";
import { configJson, describe } from "../../src/models/index.ts";
import type { Part } from "../../src/tensor/weight.ts";
import { Writer } from "../fuzz/damage.ts";

/** The smallest models and vocabularies that run, with a place for each thing that a stranger may write otherwise. */

const utf8 = new TextEncoder();
export const VOCABULARY = ["<unk>", "<s>", "</s>", "▁", "a", "b", "▁a", "ab"];

/** Small weights; not zeros, so that a norm has something to divide by. */
function floats(count: number): Uint8Array {
  return new Uint8Array(Float32Array.from({ length: count }, (_, i) => 0.01 * ((i % 7) - 3)).buffer);
}

const sizeOf = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1);

/** A Hugging Face folder: dim 4, one block. */
export function folder(changes: {
  readonly config?: object;
  /** Config as it is written, in place of all others. */
  readonly configText?: string;
  /** Arrays in place of the model's own; null: it is missing. */
  readonly tensors?: Readonly<Record<string, Part | null>>;
  readonly safetensors?: Uint8Array;
  readonly tokenizer?: object | string;
}): Map<string, Uint8Array> {
  const config = configJson({
    architecture: "llama",
    vocabulary: VOCABULARY.length,
    context: 64,
    dim: 4,
    layers: 1,
    heads: 2,
    kvHeads: 1,
    headDim: 2,
    ffn: 4,
    normEpsilon: 1e-5,
    ropeBase: 10000,
    ropePairing: "halves",
    tiedHead: true,
  });
  const parts = new Map<string, Part>();
  for (const { name, shape } of describe(config).tensors)
    parts.set(name, { dtype: "f32", shape, bytes: floats(sizeOf(shape)) });
  for (const [name, part] of Object.entries(changes.tensors ?? {})) {
    if (part === null) parts.delete(name);
    else parts.set(name, part);
  }
  const { tokenizer = tokenizerJson({}) } = changes;
  return new Map([
    ["config.json", utf8.encode(changes.configText ?? JSON.stringify({ ...config, ...changes.config }))],
    ["model.safetensors", changes.safetensors ?? encodeSafetensors(parts)],
    ["tokenizer.json", utf8.encode(typeof tokenizer === "string" ? tokenizer : JSON.stringify(tokenizer))],
  ]);
}

/** A tokenizer.json in Llama's way. */
export function tokenizerJson(changes: object, model: object = {}): object {
  return {
    version: "1.0",
    added_tokens: VOCABULARY.slice(0, 3).map((content, id) => ({
      id,
      content,
      special: true,
      normalized: false,
    })),
    normalizer: {
      type: "Sequence",
      normalizers: [
        { type: "Prepend", prepend: "▁" },
        { type: "Replace", pattern: { String: " " }, content: "▁" },
      ],
    },
    pre_tokenizer: null,
    post_processor: null,
    decoder: { type: "Metaspace", replacement: "▁", prepend_scheme: "always" },
    model: {
      type: "BPE",
      vocab: Object.fromEntries(VOCABULARY.map((piece, id) => [piece, id])),
      merges: ["▁ a", "a b"],
      unk_token: "<unk>",
      ...model,
    },
    ...changes,
  };
}

/** A safetensors file with this header, and so many bytes of data. */
export function rawSafetensors(
  header: string,
  data = 0,
  length: bigint | number = header.length,
): Uint8Array {
  const bytes = new Uint8Array(8 + header.length + data);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(length), true);
  bytes.set(utf8.encode(header), 8);
  return bytes;
}

/** A llama2.c checkpoint: the seven numbers of its header, then as many floats as dim 4, hidden 4, one layer, two heads need. */
export function llama2c(
  version: 0 | 1 | 2,
  changes: Partial<
    Record<
      | "magic"
      | "version"
      | "dim"
      | "hidden"
      | "layers"
      | "heads"
      | "kvHeads"
      | "vocabulary"
      | "context"
      | "group",
      number
    >
  > = {},
  scale = 0.01,
): Uint8Array {
  const h = {
    magic: 0x616b3432,
    version,
    dim: 4,
    hidden: 4,
    layers: 1,
    heads: 2,
    kvHeads: 1,
    vocabulary: 8,
    context: 64,
    group: 2,
    ...changes,
  };
  const out = new Writer();
  if (version > 0) out.u32(h.magic).u32(h.version);
  for (const n of [h.dim, h.hidden, h.layers, h.heads, h.kvHeads, h.vocabulary, h.context]) out.u32(n);
  if (version > 0) out.u8(1);
  if (version === 2) out.u32(h.group);
  if (version > 0) out.raw(new Uint8Array(256 - out.length));
  const matrices = [8 * 4, 4 * 4, 2 * 4, 2 * 4, 4 * 4, 4 * 4, 4 * 4, 4 * 4];
  const norms = 3 * 4;
  if (version !== 2)
    return out.raw(floats(matrices.reduce((a, b) => a + b) + norms + (version === 0 ? 128 : 0))).bytes();
  out.raw(floats(norms));
  for (const size of matrices) {
    out.raw(new Uint8Array(size).fill(3));
    for (let i = 0; i < size / 2; i++) out.f32(scale);
  }
  return out.bytes();
}

/** llama2.c's tokenizer; a token's own length may be given in place of the true one. */
export function tokBin(
  tokens: readonly (readonly [text: string, score?: number, length?: number])[] = VOCABULARY.map(
    (text, i) => [text.replace("▁", " "), -i],
  ),
  longest = 1,
): Uint8Array {
  const out = new Writer().u32(longest);
  for (const [text, score = 0, length] of tokens) {
    const bytes = utf8.encode(text);
    out
      .f32(score)
      .u32(length ?? bytes.length)
      .raw(bytes);
  }
  return out.bytes();
}

/** A SentencePiece model of these pieces. */
export function sentencePiece(
  pieces: readonly (readonly [
    text: string,
    score?: number,
    type?: number,
    length?: number,
  ])[] = VOCABULARY.map((text, i) => [text, -i, [2, 3, 3][i] ?? 1]),
  modelType = 2,
): Uint8Array {
  const out = new Writer();
  for (const [text, score = 0, type = 1, length] of pieces) {
    const bytes = utf8.encode(text);
    const piece = new Writer()
      .varint(10)
      .varint(length ?? bytes.length)
      .raw(bytes)
      .varint(21)
      .f32(score)
      .varint(24)
      .varint(type);
    out.varint(10).varint(piece.length).raw(piece.bytes());
  }
  const trainer = new Writer().varint(24).varint(modelType);
  return out.varint(18).varint(trainer.length).raw(trainer.bytes()).bytes();
}

const GGUF_TYPES = { u8: 0, u32: 4, i32: 5, f32: 6, bool: 7, string: 8, array: 9, u64: 10 } as const;
export type GgufPair = readonly [
  key: string,
  type: keyof typeof GGUF_TYPES | number,
  value: unknown,
  element?: "u32" | "i32" | "f32" | "string",
];

export interface CraftedTensor {
  readonly name: string;
  /** Fastest first, as the file has them. */
  readonly dims: readonly number[];
  /** ggml's number: 0 f32, 2 q4_0, 12 q4_k. */
  readonly type: number;
  readonly bytes: Uint8Array;
  readonly offset?: number;
}

const ggufTensors: readonly CraftedTensor[] = [
  ["token_embd.weight", [32, 8]],
  ["blk.0.attn_norm.weight", [32]],
  ["blk.0.attn_q.weight", [32, 32]],
  ["blk.0.attn_k.weight", [32, 16]],
  ["blk.0.attn_v.weight", [32, 16]],
  ["blk.0.attn_output.weight", [32, 32]],
  ["blk.0.ffn_norm.weight", [32]],
  ["blk.0.ffn_gate.weight", [32, 32]],
  ["blk.0.ffn_up.weight", [32, 32]],
  ["blk.0.ffn_down.weight", [32, 32]],
  ["output_norm.weight", [32]],
].map(([name, dims]) => ({ name, dims, type: 0, bytes: floats(sizeOf(dims as number[])) }) as CraftedTensor);

const ggufPairs: readonly GgufPair[] = [
  ["general.architecture", "string", "llama"],
  ["llama.context_length", "u32", 64],
  ["llama.embedding_length", "u32", 32],
  ["llama.block_count", "u32", 1],
  ["llama.feed_forward_length", "u32", 32],
  ["llama.attention.head_count", "u32", 2],
  ["llama.attention.head_count_kv", "u32", 1],
  ["llama.attention.layer_norm_rms_epsilon", "f32", 1e-5],
  ["tokenizer.ggml.model", "string", "llama"],
  ["tokenizer.ggml.tokens", "array", VOCABULARY, "string"],
  ["tokenizer.ggml.scores", "array", VOCABULARY.map((_, i) => -i), "f32"],
  ["tokenizer.ggml.token_type", "array", VOCABULARY.map((_, i) => [2, 3, 3][i] ?? 1), "i32"],
  ["tokenizer.ggml.bos_token_id", "u32", 1],
  ["tokenizer.ggml.eos_token_id", "u32", 2],
];

/** A GGUF file, with pairs added or in place of those of the same key, tensors likewise, and counts of their own. */
export function gguf(
  changes: {
    readonly version?: number;
    readonly pairs?: readonly GgufPair[];
    readonly tensors?: readonly CraftedTensor[];
    readonly pairCount?: number;
    readonly tensorCount?: number;
    /** Length of the first key, or of the first string of the vocabulary. */
    readonly keyLength?: number;
    readonly tokenLength?: number;
    readonly tokenCount?: number;
  } = {},
): Uint8Array {
  const { version = 3, pairs = [], tensors = [] } = changes;
  const out = new Writer();
  const text = (s: string, length?: number) => {
    const bytes = utf8.encode(s);
    out.u64(length ?? bytes.length).raw(bytes);
  };
  const keys = new Set(pairs.map(([key]) => key));
  const all = [...ggufPairs.filter(([key]) => !keys.has(key)), ...pairs];
  const names = new Set(tensors.map(({ name }) => name));
  const stored = [...ggufTensors.filter(({ name }) => !names.has(name)), ...tensors];
  out
    .u32(0x46554747)
    .u32(version)
    .u64(changes.tensorCount ?? stored.length)
    .u64(changes.pairCount ?? all.length);
  const scalar = (type: string, value: unknown, length?: number) => {
    if (type === "string") text(String(value), length);
    else if (type === "f32") out.f32(Number(value));
    else if (type === "u64") out.u64(Number(value));
    else if (type === "u8" || type === "bool") out.u8(Number(value));
    else out.u32(Number(value));
  };
  for (const [i, [key, type, value, element = "string"]] of all.entries()) {
    text(key, i === 0 ? changes.keyLength : undefined);
    out.u32(typeof type === "number" ? type : GGUF_TYPES[type]);
    if (value instanceof Uint8Array) out.raw(value);
    else if (type !== "array") scalar(String(type), value);
    else {
      const list = value as readonly unknown[];
      const isTokens = key === "tokenizer.ggml.tokens";
      out.u32(GGUF_TYPES[element]).u64((isTokens ? changes.tokenCount : undefined) ?? list.length);
      for (const [j, item] of list.entries())
        scalar(element, item, isTokens && j === 0 ? changes.tokenLength : undefined);
    }
  }
  const alignment = 32;
  const padded = (n: number) => Math.ceil(n / alignment) * alignment;
  let offset = 0;
  for (const tensor of stored) {
    text(tensor.name);
    out.u32(tensor.dims.length);
    for (const n of tensor.dims) out.u64(n);
    out.u32(tensor.type).u64(tensor.offset ?? offset);
    offset += padded(tensor.bytes.length);
  }
  out.raw(new Uint8Array(padded(out.length) - out.length));
  for (const { bytes } of stored) out.raw(bytes).raw(new Uint8Array(padded(bytes.length) - bytes.length));
  return out.bytes();
}
