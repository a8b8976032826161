import { openGguf } from "../../src/files/gguf.ts";
import { openGgufModel } from "../../src/files/gguf-model.ts";
import { checkTensors, memorySource } from "../../src/files/index.ts";
import { ggmlTypes } from "../../src/formats/ggml.ts";
import { describe } from "../../src/models/index.ts";
import { naming } from "../../src/tensor/tensor.ts";
import { TYPE } from "../gguf-bytes.ts";
import { type Damage, joined, nested, Writer } from "./damage.ts";
import { randomBytes, readEvery } from "./safetensors.ts";
import { fileOf, type Target } from "./target.ts";
import { pieces, useTokenizer } from "./vocabularies.ts";

type Scalar = "u8" | "u16" | "u32" | "i32" | "f32" | "bool" | "string" | "u64" | "f64";

/** Writes keys and values of one file; counts and lengths are u32 in version 1, else u64. */
class GgufWriter {
  readonly out: Writer;
  readonly #d: Damage;
  readonly #version: number;

  constructor(d: Damage, version: number, little: boolean) {
    this.out = new Writer(little);
    this.#d = d;
    this.#version = version;
  }

  size(n: number): void {
    if (this.#version === 1) this.out.u32(this.#d.number(n));
    else this.out.u64(this.#d.number(n));
  }

  text(s: string): void {
    const bytes = new TextEncoder().encode(this.#d.text(s));
    this.size(bytes.length);
    this.out.raw(this.#d.fires() ? bytes.fill(0xff, 0, 1) : bytes);
  }

  value(type: Scalar, value: unknown): void {
    const { out } = this;
    const number = typeof value === "number" ? this.#d.number(value) : 0;
    if (type === "string") this.text(String(value));
    else if (type === "bool") out.u8(value ? 1 : 0);
    else if (type === "u8") out.u8(number);
    else if (type === "u16") out.u16(number);
    else if (type === "f32") out.f32(this.#d.float(Number(value)));
    else if (type === "f64") out.f64(this.#d.float(Number(value)));
    else if (type === "u64") out.u64(number);
    else out.u32(number);
  }

  pair(key: string, type: Scalar | "array", value: unknown, element: Scalar = "string"): void {
    const d = this.#d;
    this.text(key);
    // Another type with bytes of its own: now and then the whole pair still ends where it should.
    if (d.fires()) {
      const other = d.pick(["u8", "u32", "u64", "string", "f32", "bool"] as const);
      this.out.u32(TYPE[other]);
      this.value(other, d.pick([0, 1, 7, 2 ** 40]));
      return;
    }
    this.out.u32(d.number(TYPE[type]));
    if (type !== "array") {
      this.value(type, value);
      return;
    }
    if (d.fires(0.3)) {
      // Arrays in arrays, as deep as it goes.
      for (let depth = d.pick([1, 2, 1000]); depth > 0; depth--) {
        this.out.u32(TYPE.array);
        this.size(1);
      }
    }
    const list = d.list(value as readonly unknown[]);
    this.out.u32(d.number(TYPE[element]));
    this.size(list.length);
    for (const item of list) this.value(element, item);
  }
}

/** Types whose blocks go into a small row, and those that need rows of 256. */
const SMALL_TYPES = ["f32", "f16", "bf16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "iq4_nl", "i8", "f64"];
const LARGE_TYPES = ["q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "tq1_0", "tq2_0", "iq2_xxs", "q8_k"];

export const gguf: Target = {
  name: "gguf",
  begins: /^(fuzz\.gguf|tokenizer): /,
  make(d) {
    const version = d.pick([1, 2, 3, 3, 3]);
    const little = !d.chance(0.1);
    const writer = new GgufWriter(d, version, little);
    const { out } = writer;
    const types = new Map([...ggmlTypes.values()].map((type) => [type.name as string, type]));
    const available = (names: readonly string[]) => names.filter((name) => types.has(name));

    const dim = d.chance(0.05) ? 256 : 32;
    const [heads, kvHeads, layers, ffn] = [2, d.whole(1, 2), 1, dim];
    const vocabulary = ["<unk>", "<s>", "</s>", ...pieces(d, d.pick(["▁", "Ġ"]))];
    const tied = d.chance(0.5);
    const kv = (dim / heads) * kvHeads;
    const matrices: [string, number[]][] = [
      ["token_embd.weight", [dim, vocabulary.length]],
      ["blk.0.attn_norm.weight", [dim]],
      ["blk.0.attn_q.weight", [dim, dim]],
      ["blk.0.attn_k.weight", [dim, kv]],
      ["blk.0.attn_v.weight", [dim, kv]],
      ["blk.0.attn_output.weight", [dim, dim]],
      ["blk.0.ffn_norm.weight", [dim]],
      ["blk.0.ffn_gate.weight", [dim, ffn]],
      ["blk.0.ffn_up.weight", [dim, ffn]],
      ["blk.0.ffn_down.weight", [ffn, dim]],
      ["output_norm.weight", [dim]],
      ...(tied ? [] : [["output.weight", [dim, vocabulary.length]] as [string, number[]]]),
    ];
    const tensors = d.list(matrices).map(([name, shape]) => {
      const plain = shape.length === 1 || !little;
      const names = plain ? ["f32"] : available(dim === 256 && d.chance(0.5) ? LARGE_TYPES : SMALL_TYPES);
      const usual = names.filter((other) => d.rate > 0 || types.get(other)!.reading.kind !== "refused");
      const type = types.get(d.pick(usual))!;
      const bytes = (shape.reduce((a, b) => a * b, 1) / type.weights) * type.bytes;
      return { name, shape, type, bytes: randomBytes(d, bytes) };
    });

    const alignment = d.pick([8, 32, 32, 64]);
    const pairs: [string, Scalar | "array", unknown, Scalar?][] = [
      ["general.architecture", "string", "llama"],
      ["general.name", "string", "fuzz"],
      ...(alignment === 32 ? [] : [["general.alignment", "u32", alignment] as [string, Scalar, unknown]]),
      ["general.file_type", "u32", 0],
      ["llama.context_length", "u32", 16],
      ["llama.embedding_length", "u32", dim],
      ["llama.block_count", "u32", layers],
      ["llama.feed_forward_length", "u32", ffn],
      d.chance(0.8)
        ? ["llama.attention.head_count", "u32", heads]
        : ["llama.attention.head_count", "array", [heads], "u32"],
      ["llama.attention.head_count_kv", "u32", kvHeads],
      ["llama.attention.layer_norm_rms_epsilon", "f32", 1e-5],
      ["llama.rope.dimension_count", "u32", dim / heads],
      ["llama.rope.freq_base", "f32", 10000],
    ];
    const merges = ["a b", "T h", "Th e", "b a", "ab ab"];
    const possible = (merge: string) =>
      [...merge.split(" "), merge.replace(" ", "")].every((piece) => vocabulary.includes(piece));
    if (d.chance(0.9)) {
      const bpe = d.chance(0.5) && (d.rate > 0 || merges.some(possible));
      pairs.push(
        ["tokenizer.ggml.model", "string", bpe ? "gpt2" : "llama"],
        ["tokenizer.ggml.tokens", "array", vocabulary, "string"],
        ["tokenizer.ggml.scores", "array", vocabulary.map((_, i) => -i), "f32"],
        [
          "tokenizer.ggml.token_type",
          "array",
          vocabulary.map((_, i) => (i === 0 ? 2 : i < 3 ? 3 : 1)),
          "i32",
        ],
        ["tokenizer.ggml.bos_token_id", "u32", 1],
        ["tokenizer.ggml.eos_token_id", "u32", 2],
        ["tokenizer.ggml.unknown_token_id", "u32", 0],
        ["tokenizer.ggml.add_bos_token", "bool", true],
        [
          "tokenizer.chat_template",
          "string",
          "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}",
        ],
      );
      if (bpe) {
        pairs.push(
          ["tokenizer.ggml.pre", "string", d.pick(["gpt-2", "default", "llama-bpe"])],
          ["tokenizer.ggml.merges", "array", d.rate > 0 ? merges : merges.filter(possible), "string"],
        );
      }
    }
    if (d.chance(0.05))
      pairs.push(["lowbit.record", "string", d.rate > 0 ? nested(d.pick([3, 1000])) : "{}"]);
    const kept = d.list(pairs);

    out.u32(d.number(little ? 0x46554747 : 0x47475546)).u32(d.number(version));
    writer.size(tensors.length);
    writer.size(kept.length);
    for (const [key, type, value, element] of kept) writer.pair(key, type, value, element);
    let offset = 0;
    const data: Uint8Array[] = [];
    for (const { name, shape, type, bytes } of tensors) {
      writer.text(name);
      const sizes = d.list(shape);
      out.u32(d.number(sizes.length));
      for (const n of sizes) writer.size(n);
      out.u32(d.number(type.id)).u64(d.number(offset));
      const padded = new Uint8Array(Math.ceil(bytes.length / alignment) * alignment);
      padded.set(bytes);
      data.push(padded);
      offset += padded.length;
    }
    out.raw(new Uint8Array((alignment - (out.length % alignment)) % alignment));
    return joined(d.bytes(out.bytes(), out.marks), ...d.list(data));
  },
  async read(made) {
    const file = memorySource(fileOf(made), "fuzz.gguf");
    const { metadata, strings, numbers } = await openGguf(file);
    for (const [key, value] of metadata) {
      if (typeof value !== "object") continue;
      if (value.element === "string") await strings(key);
      else await numbers(key);
    }
    const { config, source, tokenizer, tokenizerFiles } = await openGgufModel(file);
    checkTensors("fuzz.gguf", source, naming("fuzz.gguf", () => describe(config)).tensors);
    if (tokenizer) {
      useTokenizer(tokenizer);
      await tokenizerFiles();
    }
    await readEvery("fuzz.gguf", source);
  },
};
