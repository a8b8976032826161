import type { Weight } from "../tensor/weight.ts";
import type { TokenizerData } from "../tokenizers/tokenizer.ts";

/** Bytes that can be read in pieces: a file, a URL, memory. */
export interface ByteSource {
  /** For error messages: a file's name, a URL. */
  readonly name: string;
  readonly byteLength: number;
  /** Bytes from … to−1; throws when they are not all there. */
  slice(from: number, to: number): Promise<Uint8Array>;
  close(): Promise<void>;
}

/** Weights by name, wherever they are kept. Reading one does not read the others. */
export interface TensorSource {
  readonly names: readonly string[];
  has(name: string): boolean;
  shape(name: string): readonly number[];
  /** Format of a tensor as it is stored (`f32`, `int4-g64`), known without reading its data. */
  format(name: string): string;
  /** Stored bytes of a tensor, all parts together. */
  bytes(name: string): number;
  read(name: string): Promise<Weight>;
  close(): Promise<void>;
}

export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };
export type JsonObject = { readonly [key: string]: Json };

/** A small file in memory. */
export interface NamedBytes {
  readonly name: string;
  readonly bytes: Uint8Array;
}

/** A model as it is kept: everything but the floats, and a way to read those one tensor at a time. */
export interface ModelFile {
  /** What a person would call it: a folder's or file's name. */
  readonly name: string;
  /** Hash of the weights' bytes and the config, for records; read once, on request. */
  fingerprint(): Promise<{ readonly bytes: number; readonly sha256: string }>;
  /** Stored bytes of the weights' files. */
  readonly bytes: number;
  /**
   * In the words of a Hugging Face config.json. GGUF and llama2.c files are translated
   * into them, with `rope_pairing: "neighbours"` beside (default "halves").
   */
  readonly config: JsonObject;
  readonly generation?: JsonObject;
  readonly source: TensorSource;
  readonly tokenizer?: TokenizerData;
  /** The tokenizer's own files, byte for byte, for a folder made from this model, or files that say what a GGUF says; read on request. */
  tokenizerFiles(): Promise<readonly NamedBytes[]>;
  /** How the weights are kept: `safetensors`, `llama2.c version 2, int8 in groups of 8, decoded to f32 when read`. */
  readonly container: string;
  /** The record.json that came with it, or what a GGUF file has in its place. */
  readonly record?: JsonObject;
  close(): Promise<void>;
}
