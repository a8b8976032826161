import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { formats } from "../../src/formats/index.ts";
import type { Part } from "../../src/tensor/weight.ts";
import { nested } from "../fuzz/damage.ts";
import type { Seen } from "./child.ts";
import {
  folder,
  gguf,
  llama2c,
  rawSafetensors,
  sentencePiece,
  tokBin,
  tokenizerJson,
  VOCABULARY,
} from "./models.ts";

/**
 * Files that someone made to hurt, by name, through the real commands: one line on stderr that names the file, status 2,
 * in less than 2 s, with at most 64 MB above a process that does nothing.
 */

type Command = "inspect" | "generate" | "evaluate";
type Files = Uint8Array | ReadonlyMap<string, Uint8Array>;

interface Case {
  readonly name: string;
  /** A model: a file with this ending, or a folder. */
  readonly model: Files;
  /** Its tokenizer, where the model comes without one, and its ending. */
  readonly tokenizer?: readonly [ending: string, bytes: Uint8Array];
  readonly commands: readonly Command[];
  /** What the line says; undefined where the damage is none: the command must do its work. */
  readonly says?: RegExp;
}

const f32 = (
  shape: readonly number[],
  bytes = new Uint8Array(4 * shape.reduce((a, b) => a * b, 1)),
): Part => ({
  dtype: "f32",
  shape,
  bytes,
});
const every: readonly Command[] = ["inspect", "generate", "evaluate"];
const using: readonly Command[] = ["generate", "evaluate"];
const entry = (dtype: string, shape: unknown, from: unknown, to: unknown) =>
  JSON.stringify({ dtype, shape, data_offsets: [from, to] });
const header = (text: string, data = 0, length?: bigint | number) =>
  folder({ safetensors: rawSafetensors(text, data, length) });
const ofVocabulary = (tokenizer: object | string) => folder({ tokenizer });
const checkpoint = (changes: Parameters<typeof llama2c>[1], version: 0 | 1 | 2 = 1) =>
  llama2c(version, changes);
const block = (bytes: number, at: number) => {
  const data = new Uint8Array(bytes);
  new DataView(data.buffer).setFloat16(at, Number.NaN, true);
  return data;
};

/** A checkpoint of layers of dim 2, all there. */
function manyLayers(layers: number): Uint8Array {
  const bytes = new Uint8Array(256 + 4 * (layers * 2 * 11 + 2 + (2 * layers + 1) * 2));
  bytes.set(llama2c(1, { dim: 2, hidden: 1, layers, heads: 1, kvHeads: 1, vocabulary: 1 }).subarray(0, 256));
  return bytes;
}

/** An index that says that each of so many files has one tensor. */
function manyShards(count: number): string {
  const map = Array.from({ length: count }, (_, i) => [`t${i}`, `s${i}.safetensors`]);
  return JSON.stringify({ weight_map: Object.fromEntries(map) });
}

/** An int4 weight whose scale is not a number. */
const nanScale = (() => {
  const name = "model.layers.0.mlp.up_proj.weight";
  const scales = new Uint8Array(8);
  new DataView(scales.buffer).setUint16(2, 0x7e00, true);
  return folder({
    config: {
      quantization_config: {
        quant_method: "lowbit",
        version: 1,
        weights: { [name]: { format: "int4", shape: [4, 4] } },
      },
    },
    tensors: {
      [name]: null,
      [`${name}.codes`]: { dtype: "u8", shape: [4, 2], bytes: new Uint8Array(8) },
      [`${name}.scales`]: { dtype: "f16", shape: [4, 1], bytes: scales },
    },
  });
})();

const cases: Readonly<Record<string, readonly Case[]>> = {
  safetensors: [
    {
      name: "header length of 2^60",
      model: header("{}", 0, 2n ** 60n),
      commands: every,
      says: /header length 1152921504606846976 is beyond/,
    },
    {
      name: "header length of 2^64−1",
      model: header("{}", 0, 2n ** 64n - 1n),
      commands: every,
      says: /is beyond/,
    },
    {
      name: "counts of 2^60 in a shape",
      model: header(`{"a":${entry("F32", [2 ** 60], 0, 4)}}`, 4),
      commands: every,
      says: /tensor a: needs dtype, shape/,
    },
    {
      name: "a shape whose product wraps",
      model: header(`{"a":${entry("U8", [2 ** 32, 2 ** 32], 0, 4)}}`, 4),
      commands: every,
      says: /tensor a: needs dtype, shape/,
    },
    {
      name: "offsets that wrap",
      model: header(`{"a":${entry("U8", [4], 2 ** 64 - 4, 0)}}`, 4),
      commands: every,
      says: /tensor a: needs dtype/,
    },
    {
      name: "offsets that run backwards",
      model: header(`{"a":${entry("U8", [4], 4, 0)}}`, 4),
      commands: every,
      says: /bytes 4…0 leave the file/,
    },
    {
      name: "overlapping tensors",
      model: header(`{"a":${entry("U8", [4], 0, 4)},"b":${entry("U8", [4], 2, 6)}}`, 6),
      commands: every,
      says: /overlap/,
    },
    {
      name: "unknown type",
      model: header(`{"a":${entry("Q77", [4], 0, 4)}}`, 4),
      commands: every,
      says: /unknown dtype "Q77"/,
    },
    {
      name: "metadata nested a thousand deep",
      model: header(`{"__metadata__":${nested(1000)}}`),
      commands: every,
      says: /nested deeper than 100/,
    },
    {
      name: "metadata of a million empty lists",
      model: header(`{"a":[${"[],".repeat(1e6)}[]]}`),
      commands: every,
      says: /header/,
    },
    {
      name: "300,000 names",
      model: header(`{${Array.from({ length: 3e5 }, (_, i) => `"${i}":0`).join()}}`),
      commands: every,
      says: /its JSON would take/,
    },
    {
      name: "90,000 names",
      model: header(`{${Array.from({ length: 9e4 }, (_, i) => `"${i}":0`).join()}}`),
      commands: every,
      says: /needs dtype/,
    },
    {
      name: "zero dimensions",
      model: folder({ tensors: { "model.norm.weight": f32([0, 4]) } }),
      commands: every,
      says: /model\.norm\.weight must have shape 4 by its config, has 0×4/,
    },
    {
      name: "NaN in a tensor",
      model: folder({ tensors: { "model.norm.weight": f32([4], new Uint8Array(16).fill(0xff)) } }),
      commands: using,
      says: /model\.norm\.weight.* has NaN/,
    },
  ],
  folder: [
    {
      name: "a config that does not match its tensors",
      model: folder({ config: { hidden_size: 8, head_dim: 4 } }),
      commands: every,
      says: /must have shape 8×8 by its config, has 8×4/,
    },
    {
      name: "a config of 2^60 blocks",
      model: folder({ config: { num_hidden_layers: 2 ** 60 } }),
      commands: every,
      says: /num_hidden_layers must be/,
    },
    {
      name: "a config with a context of 2^25",
      model: folder({ config: { max_position_embeddings: 2 ** 25 } }),
      commands: every,
      says: /max_position_embeddings must be/,
    },
    {
      name: "zero dimensions",
      model: folder({ config: { hidden_size: 0 } }),
      commands: every,
      says: /hidden_size must be a whole number/,
    },
    {
      name: "a config nested a thousand deep",
      model: folder({ configText: `{"a":${nested(1000)}}` }),
      commands: every,
      says: /config\.json: JSON nested deeper than 100/,
    },
    { name: "NaN scales", model: nanScale, commands: using, says: /up_proj\.weight \(scales\) has NaN/ },
    {
      name: "a weight of an unknown format",
      model: folder({
        config: {
          quantization_config: {
            quant_method: "lowbit",
            version: 1,
            weights: { w: { format: "int5", shape: [4, 4] } },
          },
        },
      }),
      commands: every,
      says: /no format is called "int5"/,
    },
    {
      name: "an index of 5,000 files",
      model: new Map([
        ...[...folder({})].filter(([name]) => name !== "model.safetensors"),
        ["model.safetensors.index.json", new TextEncoder().encode(manyShards(5000))],
      ]),
      commands: every,
      says: /names 5000 files; at most 500 are opened/,
    },
    {
      name: "a weight nested a thousand deep",
      model: folder({
        configText: `{"quantization_config":{"quant_method":"lowbit","version":1,"weights":{"w":${'{"kind":"sum","shape":[4,4],"terms":['.repeat(1000)}${"]}".repeat(1000)}}}}`,
      }),
      commands: every,
      says: /nested deeper/,
    },
  ],
  "llama2.c": [
    {
      name: "counts of 2^31−1",
      model: checkpoint({ hidden: 2 ** 31 - 1, vocabulary: 2 ** 31 - 1 }),
      commands: every,
      says: /truncated: its header asks for/,
    },
    { name: "counts below zero", model: checkpoint({ layers: -1 }), commands: every, says: /layers is -1/ },
    { name: "zero dimensions", model: checkpoint({ dim: 0 }), commands: every, says: /dim is 0/ },
    {
      name: "a size that is not the file's",
      model: checkpoint({ hidden: 5 }),
      commands: every,
      says: /its header asks for/,
    },
    {
      name: "unknown version",
      model: checkpoint({ version: 77 }),
      commands: every,
      says: /llama2\.c version 77/,
    },
    { name: "another magic", model: checkpoint({ magic: 7 }), commands: every, says: /not a llama2\.c file/ },
    {
      name: "100,000 layers that are there",
      model: manyLayers(100_000),
      commands: every,
      says: /100000 layers; at most 4096 are read/,
    },
    {
      name: "groups that divide nothing",
      model: checkpoint({ group: 7 }, 2),
      commands: every,
      says: /group size 7/,
    },
    { name: "NaN scales", model: llama2c(2, {}, Number.NaN), commands: using, says: /has NaN/ },
    { name: "cut in its last tensor", model: llama2c(1).subarray(0, -3), commands: every, says: /truncated/ },
  ],
  gguf: [
    {
      name: "2^60 tensors",
      model: gguf({ tensorCount: 2 ** 60 }),
      commands: every,
      says: /number of tensors is 1152921504606846976/,
    },
    {
      name: "2^60 keys",
      model: gguf({ pairCount: 2 ** 60 }),
      commands: every,
      says: /number of keys is 1152921504606846976/,
    },
    { name: "2^16 keys that are not there", model: gguf({ pairCount: 2 ** 16 }), commands: every, says: /./ },
    {
      name: "a vocabulary of 2^60",
      model: gguf({ tokenCount: 2 ** 60 }),
      commands: every,
      says: /tokenizer\.ggml\.tokens/,
    },
    {
      name: "a key longer than the file",
      model: gguf({ keyLength: 2 ** 30 }),
      commands: every,
      says: /length of key 0/,
    },
    {
      name: "a key of 2^64−1 bytes",
      model: gguf({ keyLength: -1 }),
      commands: every,
      says: /length of key 0/,
    },
    {
      name: "a token longer than the file",
      model: gguf({ tokenLength: 2 ** 30 }),
      commands: every,
      says: /tokenizer\.ggml\.tokens/,
    },
    {
      name: "a token of 2^63 bytes",
      model: gguf({ tokenLength: 2 ** 63 }),
      commands: every,
      says: /tokenizer\.ggml\.tokens/,
    },
    {
      name: "a dimension of 2^60",
      model: gguf({
        tensors: [{ name: "output_norm.weight", dims: [2 ** 60], type: 0, bytes: new Uint8Array(128) }],
      }),
      commands: every,
      says: /output_norm\.weight/,
    },
    {
      name: "dimensions whose product wraps",
      model: gguf({
        tensors: [
          { name: "output_norm.weight", dims: [2 ** 32, 2 ** 32], type: 0, bytes: new Uint8Array(128) },
        ],
      }),
      commands: every,
      says: /output_norm\.weight/,
    },
    {
      name: "zero dimensions",
      model: gguf({
        tensors: [{ name: "output_norm.weight", dims: [0], type: 0, bytes: new Uint8Array(0) }],
      }),
      commands: every,
      says: /dimension of 0/,
    },
    {
      name: "nine dimensions",
      model: gguf({
        tensors: [{ name: "output_norm.weight", dims: Array(9).fill(1), type: 0, bytes: new Uint8Array(4) }],
      }),
      commands: every,
      says: /9 dimensions/,
    },
    {
      name: "an offset that wraps",
      model: gguf({
        tensors: [
          {
            name: "output_norm.weight",
            dims: [32],
            type: 0,
            bytes: new Uint8Array(128),
            offset: 2 ** 64 - 2048,
          },
        ],
      }),
      commands: every,
      says: /offset of tensor output_norm\.weight/,
    },
    {
      name: "overlapping tensors",
      model: gguf({
        tensors: [{ name: "output_norm.weight", dims: [32], type: 0, bytes: new Uint8Array(128), offset: 0 }],
      }),
      commands: every,
      says: /overlap/,
    },
    {
      name: "an offset that is not aligned",
      model: gguf({
        tensors: [{ name: "output_norm.weight", dims: [32], type: 0, bytes: new Uint8Array(128), offset: 4 }],
      }),
      commands: every,
      says: /alignment 32/,
    },
    {
      name: "alignment of 3",
      model: gguf({ pairs: [["general.alignment", "u32", 3]] }),
      commands: every,
      says: /general\.alignment must be a power of two/,
    },
    {
      name: "alignment of 0",
      model: gguf({ pairs: [["general.alignment", "u32", 0]] }),
      commands: every,
      says: /general\.alignment/,
    },
    {
      name: "alignment of 2^31",
      model: gguf({ pairs: [["general.alignment", "u32", 2 ** 31]] }),
      commands: every,
      says: /general\.alignment/,
    },
    {
      name: "unknown type of a tensor",
      model: gguf({
        tensors: [{ name: "output_norm.weight", dims: [32], type: 77, bytes: new Uint8Array(128) }],
      }),
      commands: every,
      says: /ggml type 77/,
    },
    {
      name: "unknown type of a value",
      model: gguf({ pairs: [["zzz", 77, new Uint8Array(8)]] }),
      commands: every,
      says: /key zzz has type 77/,
    },
    {
      name: "arrays nested a thousand deep",
      model: gguf({ pairs: [["zzz", "array", nestedArrays(1000)]] }),
      commands: every,
      says: /zzz is an array of arrays/,
    },
    {
      name: "a key twice",
      model: gguf({
        pairs: [
          ["zzz", "u32", 1],
          ["zzz", "u32", 1],
        ],
      }),
      commands: every,
      says: /zzz occurs twice/,
    },
    {
      name: "a config that does not match its tensors",
      model: gguf({ pairs: [["llama.embedding_length", "u32", 64]] }),
      commands: every,
      says: /must have shape/,
    },
    {
      name: "an empty vocabulary",
      model: gguf({
        pairs: [
          ["tokenizer.ggml.tokens", "array", []],
          ["tokenizer.ggml.scores", "array", [], "f32"],
          ["tokenizer.ggml.token_type", "array", [], "i32"],
        ],
      }),
      commands: using,
      says: /token/,
    },
    {
      name: "a cyclic vocabulary: merges that make what they are made of",
      model: gguf({
        pairs: [
          ["tokenizer.ggml.model", "string", "gpt2"],
          ["tokenizer.ggml.pre", "string", "gpt-2"],
          ["tokenizer.ggml.tokens", "array", ["a", "b", "ab", "ba", "aba", "", "bab", "abab"], "string"],
          ["tokenizer.ggml.merges", "array", ["a b", "ab a", "a ba", "b a", " a", "a ", " "], "string"],
        ],
      }),
      commands: using,
      says: /merge/,
    },
    {
      name: "two million scores",
      model: gguf({ pairs: [["tokenizer.ggml.scores", "array", byteArray(2 ** 21)]] }),
      commands: every,
      says: /scores has 2097152 numbers; too many/,
    },
    {
      name: "two million counts of heads",
      model: gguf({ pairs: [["llama.attention.head_count", "array", byteArray(2 ** 21)]] }),
      commands: every,
      says: /head_count has 2097152 numbers; too many/,
    },
    {
      name: "one merge a thousand times",
      model: gguf({ pairs: [["tokenizer.ggml.merges", "array", Array(1000).fill("a b"), "string"]] }),
      commands: every,
      says: /has 1000 merges; its tokens allow 11 at most/,
    },
    {
      name: "NaN scores",
      model: gguf({ pairs: [["tokenizer.ggml.scores", "array", VOCABULARY.map(() => Number.NaN), "f32"]] }),
      commands: using,
      says: /score|NaN/,
    },
    {
      name: "a start token of 2^31",
      model: gguf({ pairs: [["tokenizer.ggml.bos_token_id", "u32", 2 ** 31]] }),
      commands: using,
      says: /bos_token_id/,
    },
    {
      name: "NaN scales of q4_0",
      model: gguf({
        tensors: [{ name: "blk.0.ffn_up.weight", dims: [32, 32], type: 2, bytes: block(32 * 18, 18) }],
      }),
      commands: using,
      says: /up_proj\.weight \(q4_0\) has NaN or infinity among the scales of block 1/,
    },
    {
      name: "NaN scales of tq2_0 in a tensor that needs other rows",
      model: gguf({
        tensors: [{ name: "blk.0.ffn_up.weight", dims: [32, 32], type: 35, bytes: block(66 * 4, 64) }],
      }),
      commands: every,
      says: /whole blocks of 256/,
    },
    { name: "cut in its last tensor", model: gguf().subarray(0, -3), commands: every, says: /truncated/ },
    { name: "cut in its header", model: gguf().subarray(0, 100), commands: every, says: /./ },
  ],
  "tokenizer.json": [
    {
      name: "an empty vocabulary",
      model: ofVocabulary(tokenizerJson({ added_tokens: [] }, { vocab: {}, merges: [] })),
      commands: using,
      says: /tokenizer.json: the vocabulary is empty/,
    },
    {
      name: "ids of 2^60",
      model: ofVocabulary(tokenizerJson({}, { vocab: { a: 2 ** 60 } })),
      commands: using,
      says: /ids from 0 to/,
    },
    {
      name: "a cyclic vocabulary: a merge of nothing with itself",
      model: ofVocabulary(
        tokenizerJson(
          {},
          {
            vocab: { ...Object.fromEntries(VOCABULARY.map((p, i) => [p, i])), "": 8 },
            merges: [
              ["", ""],
              ["", "a"],
              ["a", ""],
              ["▁", "a"],
            ],
          },
        ),
      ),
      commands: using,
    },
    {
      name: "a decoder nested a thousand deep",
      model: ofVocabulary(
        JSON.stringify(tokenizerJson({})).replace(
          '"post_processor":null',
          `"post_processor":${'{"type":"Sequence","processors":['.repeat(1000)}${"]}".repeat(1000)}`,
        ),
      ),
      commands: using,
      says: /nested deeper than 100/,
    },
    {
      name: "an unknown kind of stage",
      model: ofVocabulary(tokenizerJson({ normalizer: { type: "Telepathy" } })),
      commands: using,
      says: /cannot be used/,
    },
    {
      name: "a stage without end",
      model: ofVocabulary(tokenizerJson({ pre_tokenizer: { type: "FixedLength", length: 0 } })),
      commands: using,
      says: /length must be a whole number from 1/,
    },
    {
      name: "an expression without end",
      model: ofVocabulary(
        tokenizerJson({
          pre_tokenizer: { type: "Split", pattern: { Regex: "([ab]+)+!" }, behavior: "Isolated" },
        }),
      ),
      commands: using,
      says: /regular expressions take too long/,
    },
    {
      name: "replacements that fill the memory",
      model: ofVocabulary(
        tokenizerJson({
          normalizer: {
            type: "Sequence",
            normalizers: Array(9).fill({
              type: "Replace",
              pattern: { String: "a" },
              content: "a".repeat(100),
            }),
          },
        }),
      ),
      commands: using,
      says: /times as long/,
    },
    {
      name: "a name that breaks the line",
      model: ofVocabulary(tokenizerJson({ normalizer: { type: "a\nb\u001b[2J" } })),
      commands: using,
      says: /Unknown Normalizer type: a$/m,
    },
  ],
  SentencePiece: [
    {
      name: "a piece longer than the file",
      model: llama2c(1),
      tokenizer: ["model", sentencePiece([["a", 0, 1, 2 ** 30]])],
      commands: using,
      says: /truncated/,
    },
    {
      name: "a piece of 2^60 bytes",
      model: llama2c(1),
      tokenizer: ["model", sentencePiece([["a", 0, 1, 2 ** 60]])],
      commands: using,
      says: /truncated/,
    },
    {
      name: "an empty vocabulary",
      model: llama2c(1),
      tokenizer: ["model", sentencePiece([])],
      commands: using,
      says: /it has no pieces/,
    },
    {
      name: "a cyclic vocabulary: pieces of nothing, and the mark alone in all ways",
      model: llama2c(1),
      tokenizer: [
        "model",
        sentencePiece(
          [...VOCABULARY.slice(0, 4), "", "", "▁▁", "▁▁▁"].map((p, i) => [p, 9 - i, i % 2 ? 4 : 1]),
        ),
      ],
      commands: using,
    },
    {
      name: "a million pieces of nothing",
      model: llama2c(1),
      tokenizer: ["model", new Uint8Array(2 ** 21).map((_, i) => (i % 2 === 0 ? 10 : 0))],
      commands: using,
      says: /has 1048\d\d\d pieces/,
    },
    {
      name: "an unknown type of piece",
      model: llama2c(1),
      tokenizer: ["model", sentencePiece([["a", 0, 77]])],
      commands: using,
      says: /piece 0 has a type/,
    },
    {
      name: "an unknown type of model",
      model: llama2c(1),
      tokenizer: ["model", sentencePiece(undefined, 77)],
      commands: using,
      says: /model type 77/,
    },
    {
      name: "NaN scores",
      model: llama2c(1),
      tokenizer: ["model", sentencePiece(VOCABULARY.map((p) => [p, Number.NaN]))],
      commands: using,
      says: /score|NaN/,
    },
    {
      name: "fewer pieces than the model has",
      model: llama2c(1),
      tokenizer: ["model", sentencePiece([["a"]])],
      commands: using,
      says: /larger than the tokenizer's 1/,
    },
  ],
  "tok.bin": [
    {
      name: "a token longer than the file",
      model: llama2c(1),
      tokenizer: ["bin", tokBin([["a", 0, 2 ** 30]])],
      commands: using,
      says: /id 0 would have 1073741824 bytes/,
    },
    {
      name: "a million tokens of nothing",
      model: llama2c(1),
      tokenizer: ["bin", new Uint8Array(2 ** 23).fill(1, 0, 1)],
      commands: using,
      says: /has 1048\d\d\d pieces/,
    },
    {
      name: "a token of −1 bytes",
      model: llama2c(1),
      tokenizer: ["bin", tokBin([["a", 0, -1]])],
      commands: using,
      says: /id 0 would have -1 bytes/,
    },
    {
      name: "an empty vocabulary",
      model: llama2c(1),
      tokenizer: ["bin", tokBin([])],
      commands: using,
      says: /longest token|ids 0, 1 and 2/,
    },
    {
      name: "NaN scores",
      model: llama2c(1),
      tokenizer: ["bin", tokBin(VOCABULARY.map((p) => [p, Number.NaN]))],
      commands: using,
      says: /score|NaN/,
    },
  ],
};

/** The bytes of `depth` arrays of one element each, the outermost's element type first. */
function nestedArrays(depth: number): Uint8Array {
  const bytes = new Uint8Array(12 * depth);
  const view = new DataView(bytes.buffer);
  for (let i = 0; i < depth; i++) {
    view.setUint32(12 * i, 9, true);
    view.setBigUint64(12 * i + 4, 1n, true);
  }
  return bytes;
}

/** An array of so many bytes, all 0. */
function byteArray(count: number): Uint8Array {
  const bytes = new Uint8Array(12 + count);
  new DataView(bytes.buffer).setBigUint64(4, BigInt(count), true);
  return bytes;
}

const root = join(import.meta.dirname, "..", "..");
const TEXT = `abab ab ${"a".repeat(40)}\n`;
let place = "";
let idle = 0;

/** Writes a case's files; gives the command line that opens them. */
function commandLine(
  { model, tokenizer }: Omit<Case, "name" | "says">,
  command: Command,
  name: string,
): string[] {
  const at = join(place, name);
  mkdirSync(at, { recursive: true });
  const isGguf =
    model instanceof Uint8Array && new TextDecoder("latin1").decode(model.subarray(0, 4)) === "GGUF";
  const path = model instanceof Uint8Array ? join(at, isGguf ? "bad.gguf" : "bad.bin") : at;
  if (model instanceof Uint8Array) writeFileSync(path, model);
  else for (const [file, bytes] of model) writeFileSync(join(at, file), bytes);
  if (command === "inspect") return ["inspect", path, "--quiet"];
  const [ending, bytes] = tokenizer ?? ["bin", tokBin()];
  const vocabulary = join(at, `vocabulary.${ending}`);
  const own = model instanceof Uint8Array && !isGguf;
  if (own) writeFileSync(vocabulary, bytes);
  const options = ["--quiet", "--backend", "reference", ...(own ? ["--tokenizer", vocabulary] : [])];
  return command === "generate"
    ? ["generate", path, TEXT, "--tokens", "2", ...options]
    : ["evaluate", path, "--text", join(place, "text.txt"), ...options];
}

function inChild(lines: readonly (readonly string[])[]): Seen[] {
  const { stdout, stderr, status } = spawnSync(
    process.execPath,
    ["--expose-gc", join(import.meta.dirname, "child.ts")],
    {
      input: JSON.stringify(lines),
      encoding: "utf8",
      maxBuffer: 1 << 28,
      timeout: 100_000,
    },
  );
  expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
  return JSON.parse(stdout);
}

/** Runs the real command in a process of its own; its peak of memory and its time of the processor are written as it ends. */
function alone(...args: string[]) {
  const measure = `process.on("exit", () => {
    const { maxRSS, userCPUTime, systemCPUTime } = process.resourceUsage();
    require("node:fs").writeSync(3, [maxRSS, (userCPUTime + systemCPUTime) / 1e6].join());
  });`;
  const path = join(place, "measure.cjs");
  writeFileSync(path, measure);
  const { status, stdout, stderr, output } = spawnSync(
    process.execPath,
    ["--require", path, join(root, "bin", "lowbit.mjs"), ...args],
    {
      encoding: "utf8",
      stdio: ["ignore", "pipe", "pipe", "pipe"],
      env: { ...process.env, LOWBIT_DEBUG: "" },
    },
  );
  const [kilobytes, seconds] = String(output[3]).split(",").map(Number);
  return { status, stdout, stderr, seconds, peak: 1024 * kilobytes };
}

const ABOVE_IDLE = 64 * 2 ** 20;

beforeAll(() => {
  place = mkdtempSync(join(tmpdir(), "lowbit-crafted-"));
  writeFileSync(join(place, "text.txt"), TEXT);
  idle = alone("--version").peak;
});
afterAll(() => rmSync(place, { recursive: true, force: true }));

describe("crafted files", () => {
  test("undamaged ones are read, by every command", () => {
    const models: readonly Omit<Case, "name" | "says">[] = [
      { model: folder({}), commands: every },
      { model: gguf(), commands: every },
      { model: llama2c(0), commands: every },
      { model: llama2c(1), commands: every },
      { model: llama2c(2), tokenizer: ["model", sentencePiece()], commands: every },
    ];
    const lines = models.flatMap((one, i) =>
      one.commands.map((command) => commandLine(one, command, `good-${i}`)),
    );
    for (const [i, { status, stderr }] of inChild(lines).entries())
      expect({ line: lines[i].join(" "), status, stderr }).toMatchObject({ status: 0, stderr: "" });
  });

  test.each(Object.entries(cases))("%s", (reader, list) => {
    const lines = list.flatMap((one, i) =>
      one.commands.map((command) => ({
        one,
        command,
        line: commandLine(one, command, `${reader.replaceAll(".", "-")}-${i}`),
      })),
    );
    const seen = inChild(lines.map(({ line }) => line));
    const wrong: unknown[] = [];
    for (const [i, { status, stderr, stdout, seconds, peak }] of seen.entries()) {
      const { one, command } = lines[i];
      const refused = status === 2 && stdout === "" && /^lowbit: [^\n]{1,300}\n$/.test(stderr);
      const done = one.says ? refused && one.says.test(stderr) : status === 0 && stderr === "";
      if (done && seconds < 2 && peak - idle <= ABOVE_IDLE) continue;
      wrong.push({
        case: one.name,
        command,
        status,
        stderr,
        stdout,
        seconds,
        megabytesAboveIdle: (peak - idle) / 2 ** 20,
      });
    }
    expect(wrong).toEqual([]);
  });

  test.each(Object.entries(cases))("%s, in a process of its own", (reader, list) => {
    for (const [i, one] of list.filter(({ says }, at) => says && at % (list.length - 1) === 0).entries()) {
      const command = one.commands[one.commands.length - 1];
      const { status, stderr, stdout, seconds, peak } = alone(
        ...commandLine(one, command, `alone-${reader.length}-${i}`),
      );
      expect({ status, stdout, lines: stderr.trimEnd().split("\n").length }, stderr).toEqual({
        status: 2,
        stdout: "",
        lines: 1,
      });
      expect(stderr).toMatch(one.says!);
      expect(seconds).toBeLessThan(2);
      expect(peak - idle).toBeLessThan(ABOVE_IDLE);
    }
  });
});

describe("NaN among the scales of a block", () => {
  for (const format of formats.values()) {
    if (format.kind !== "group" || !format.firstNotFinite) continue;
    test(format.name, () => {
      const [{ shape }] = format.parts(2, 256);
      const part = (bytes: Uint8Array) => ({ codes: { dtype: "u8", shape, bytes } as Part });
      expect(format.firstNotFinite!(part(new Uint8Array(shape[0] * shape[1])))).toBe(-1);
      // Each byte that can make a scale NaN does so for the format's own reader, and none that is missed does.
      for (let at = 0; at + 2 <= shape[0] * shape[1]; at++) {
        const parts = part(block(shape[0] * shape[1], at));
        const groups = format.unpack(parts, 2, 256).parameters;
        const first = groups.findIndex(
          ({ scale, offset }) => !Number.isFinite(scale) || !Number.isFinite(offset),
        );
        expect(format.firstNotFinite!(parts), `byte ${at}`).toBe(first);
      }
    });
  }
});
