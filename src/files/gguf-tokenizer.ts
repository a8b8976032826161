import { InputError } from "../tensor/tensor.ts";
import { huggingfaceTokenizerOf, sentencePieceOf } from "../tokenizers/index.ts";
import type { GgufVocabulary } from "../tokenizers/tokenizer.ts";
import type { NamedBytes } from "./file.ts";
import type { Gguf, GgufValue } from "./gguf.ts";
import type { GgufEntry } from "./write-gguf.ts";
import { sentencePieceBytes } from "./write-sentencepiece.ts";

/** Ids by their words here and in the file: `tokenizer.ggml.bos_token_id`. */
const IDS = {
  bos: "bos",
  eos: "eos",
  eot: "eot",
  unknown: "unknown",
  separator: "seperator", // so spelled by the specification
  padding: "padding",
} as const;
const FLAGS = {
  addBos: "add_bos_token",
  addEos: "add_eos_token",
  addSpacePrefix: "add_space_prefix",
  removeExtraWhitespaces: "remove_extra_whitespaces",
} as const;
const TEMPLATE = "tokenizer.chat_template";

/** An id of 2³²−1 (−1 in 32 bits) stands for none. */
const NO_ID = 2 ** 32 - 1;
const MOST_TYPE = 6;

/**
 * The vocabulary in a file's metadata; undefined when it has none. Lists are
 * as long as the tokens and ids are below their number, or an InputError
 * names the key.
 */
export async function ggufVocabularyOf(file: string, gguf: Gguf): Promise<GgufVocabulary | undefined> {
  const wrong = (key: string, what: string) => new InputError(`${file}: key ${key} ${what}`);
  const value = <T extends "string" | "number" | "boolean">(key: string, type: T): Typed[T] | undefined => {
    const met: GgufValue | undefined = gguf.metadata.get(key);
    if (met === undefined || typeof met === type) return met as Typed[T] | undefined;
    throw wrong(key, `must be a ${type}, is ${typeof met === "object" ? "an array" : typeof met}`);
  };
  const key = (name: string) => `tokenizer.ggml.${name}`;

  const tokens = await gguf.strings(key("tokens"));
  const model = value(key("model"), "string");
  if (tokens === undefined || model === undefined) return undefined;
  if (tokens.length === 0) throw wrong(key("tokens"), "is empty");
  const asLong = async (name: string) => {
    const list = await gguf.numbers(key(name));
    if (list && list.length !== tokens.length)
      throw wrong(key(name), `has ${list.length} elements for ${tokens.length} tokens`);
    return list;
  };
  const scores = await asLong("scores");
  const types = await asLong("token_type");
  const odd = types?.find((type) => !(Number.isInteger(type) && type >= 0 && type <= MOST_TYPE));
  if (odd !== undefined) throw wrong(key("token_type"), `holds ${odd}; types are 0 to ${MOST_TYPE}`);

  const ids: { -readonly [K in keyof typeof IDS]?: number } = {};
  for (const [word, name] of Object.entries(IDS) as [keyof typeof IDS, string][]) {
    const id = value(key(`${name}_token_id`), "number");
    if (id === undefined || id === NO_ID || id === -1) continue;
    if (!Number.isInteger(id) || id < 0 || id >= tokens.length)
      throw wrong(key(`${name}_token_id`), `is ${id}; there are ${tokens.length} tokens`);
    ids[word] = id;
  }
  const flags: { -readonly [K in keyof typeof FLAGS]?: boolean } = {};
  for (const [word, name] of Object.entries(FLAGS) as [keyof typeof FLAGS, string][]) {
    const flag = value(key(name), "boolean");
    if (flag !== undefined) flags[word] = flag;
  }
  const pre = value(key("pre"), "string");
  const merges = await mergesOf(file, gguf, key("merges"), tokens);
  const chatTemplate = value(TEMPLATE, "string");
  return {
    kind: "gguf",
    model,
    ...(pre === undefined ? {} : { pre }),
    tokens,
    ...(scores && { scores: Float32Array.from(scores) }),
    ...(types && { types: Uint8Array.from(types) }),
    ...(merges && { merges }),
    ...ids,
    ...flags,
    ...(chatTemplate === undefined ? {} : { chatTemplate }),
  };
}

/** The merges; there are at most as many as ways to cut a token in two, which is asked before they are read. */
async function mergesOf(file: string, gguf: Gguf, key: string, tokens: readonly string[]) {
  const array = gguf.metadata.get(key);
  const most = tokens.reduce((ways, { length }) => ways + Math.max(0, length - 1), 0);
  if (typeof array === "object" && array.count > most)
    throw new InputError(`${file}: key ${key} has ${array.count} merges; its tokens allow ${most} at most`);
  return gguf.strings(key);
}

interface Typed {
  readonly string: string;
  readonly number: number;
  readonly boolean: boolean;
}

/** A vocabulary as keys of a file: the inverse of `ggufVocabularyOf`. */
export function vocabularyEntries(vocabulary: GgufVocabulary): GgufEntry[] {
  const { model, pre, tokens, scores, types, merges, chatTemplate } = vocabulary;
  const entries: GgufEntry[] = [["tokenizer.ggml.model", "string", model]];
  if (pre !== undefined) entries.push(["tokenizer.ggml.pre", "string", pre]);
  entries.push(["tokenizer.ggml.tokens", "string[]", tokens]);
  if (scores) entries.push(["tokenizer.ggml.scores", "f32[]", scores]);
  if (types) entries.push(["tokenizer.ggml.token_type", "i32[]", types]);
  if (merges) entries.push(["tokenizer.ggml.merges", "string[]", merges]);
  for (const [word, name] of Object.entries(IDS) as [keyof typeof IDS, string][]) {
    const id = vocabulary[word];
    if (id !== undefined) entries.push([`tokenizer.ggml.${name}_token_id`, "u32", id]);
  }
  for (const [word, name] of Object.entries(FLAGS) as [keyof typeof FLAGS, string][]) {
    const flag = vocabulary[word];
    if (flag !== undefined) entries.push([`tokenizer.ggml.${name}`, "bool", flag]);
  }
  if (chatTemplate !== undefined) entries.push([TEMPLATE, "string", chatTemplate]);
  return entries;
}

/** The vocabulary as files of a Hugging Face folder: tokenizer.model or tokenizer.json, and tokenizer_config.json. */
export function vocabularyFiles(vocabulary: GgufVocabulary): NamedBytes[] {
  const json = (name: string, value: object) => ({
    name,
    bytes: new TextEncoder().encode(`${JSON.stringify(value, null, 1)}\n`),
  });
  if (vocabulary.model !== "llama" && vocabulary.model !== "t5") {
    const { tokenizer, config } = huggingfaceTokenizerOf(vocabulary);
    return [json("tokenizer.json", tokenizer), json("tokenizer_config.json", config)];
  }
  const model = sentencePieceOf(vocabulary);
  const token = (name: string, id: number | undefined) =>
    id === undefined ? {} : { [name]: vocabulary.tokens[id] };
  const { addBos, addEos, chatTemplate } = vocabulary;
  return [
    { name: "tokenizer.model", bytes: sentencePieceBytes(model) },
    json("tokenizer_config.json", {
      tokenizer_class: vocabulary.model === "llama" ? "LlamaTokenizer" : "T5Tokenizer",
      ...token("bos_token", model.bos),
      ...token("eos_token", model.eos),
      ...token("unk_token", model.unknown),
      ...(addBos === undefined ? {} : { add_bos_token: addBos }),
      ...(addEos === undefined ? {} : { add_eos_token: addEos }),
      ...(chatTemplate === undefined ? {} : { chat_template: chatTemplate }),
    }),
  ];
}

/** GGUF's numbers of the types of tokens. */
const NORMAL = 1;
const UNUSED = 5;

/**
 * A vocabulary of exactly as many tokens as the embedding has rows, which
 * llama.cpp needs: tokens that the model cannot take are left out, rows
 * without a token get an unused one. The ids must be among those kept.
 */
export function fittedVocabulary(vocabulary: GgufVocabulary, rows: number): GgufVocabulary {
  const { tokens, scores, types, merges } = vocabulary;
  const count = tokens.length;
  if (count === rows) return vocabulary;
  const resized = <T extends Float32Array | Uint8Array>(list: T, padding: number): T => {
    const fitted = new (list.constructor as new (n: number) => T)(rows).fill(padding) as T;
    fitted.set(list.subarray(0, rows));
    return fitted;
  };
  const kept = [
    ...tokens.slice(0, rows),
    ...Array.from({ length: Math.max(0, rows - count) }, (_, i) => `[PAD${count + i}]`),
  ];
  const known = new Set(kept);
  const ids: Partial<Record<keyof typeof IDS, undefined>> = {};
  for (const word of Object.keys(IDS) as (keyof typeof IDS)[]) {
    const id = vocabulary[word];
    if (id !== undefined && id >= rows) ids[word] = undefined;
  }
  return {
    ...vocabulary,
    ...ids,
    tokens: kept,
    ...(scores && { scores: resized(scores, 0) }),
    types: resized(types ?? new Uint8Array(count).fill(NORMAL), UNUSED),
    ...(merges && { merges: merges.filter((merge) => known.has(merge.replace(" ", ""))) }),
  } as GgufVocabulary;
}
