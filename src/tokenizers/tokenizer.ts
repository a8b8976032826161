import { pauses } from "../record/pause.ts";
import type { Job } from "../record/record.ts";

/** Text ↔ ids. */
export interface Tokenizer {
  /** Number of ids: 0 … vocabulary−1. */
  readonly vocabulary: number;
  /** What stands before a text; undefined where the vocabulary has no such token or says that none is put there. */
  readonly bos?: number;
  /** End of a text, where the vocabulary has one. */
  readonly eos?: number;
  /** Ids at which a text or a turn is over, `eos` and others such as `<|im_end|>`. */
  readonly ends?: readonly number[];
  /** How conversations are written for the model, where a template came with the vocabulary. */
  readonly chat?: ChatFormat;
  /** Ids of a text, without start and end tokens. */
  encode(text: string, options?: EncodeOptions): Int32Array;
  /** The same in steps of a few milliseconds at most, for long texts; see `encodeLong`. */
  steps?(text: string, options?: EncodeOptions): Generator<void, Int32Array>;
  /** The bytes that an id stands for inside a text; a decoder puts them together and never splits a character. */
  bytes(id: number): Uint8Array;
  /** Text of ids, as the vocabulary's own rules join them (a leading space that `encode` put there is taken off). */
  decode(ids: ArrayLike<number>): string;
  /** The id's entry as the vocabulary spells it, for people. */
  piece(id: number): string;
}

export interface EncodeOptions {
  /**
   * Whether the spelling of a control token in the text (`<|im_start|>`, `</s>`) is read as that token.
   * Default: as the vocabulary's own library does: yes for tokenizer.json, no for all others.
   */
  readonly special?: boolean;
}

export interface ChatFormat {
  /** A Jinja template, as models' authors publish it. */
  readonly template: string;
  /** What the template's `bos_token` and `eos_token` stand for; empty where there is none. */
  readonly bosToken: string;
  readonly eosToken: string;
}

/** Ids of a text of any length: lets other work run, and throws the signal's reason once it is aborted. */
export async function encodeLong(
  tokenizer: Tokenizer,
  text: string,
  job: Job = {},
  options?: EncodeOptions,
): Promise<Int32Array> {
  const pause = pauses(job);
  await pause();
  if (!tokenizer.steps) return tokenizer.encode(text, options);
  const steps = tokenizer.steps(text, options);
  for (;;) {
    const { done, value } = steps.next();
    if (done) return value;
    await pause();
  }
}

/** Ids behind the start token, where the vocabulary has one. */
export function withStart({ bos }: Tokenizer, ids: Int32Array): Int32Array {
  if (bos === undefined) return ids;
  const all = new Int32Array(1 + ids.length); // too many for arguments of a call, maybe
  all[0] = bos;
  all.set(ids, 1);
  return all;
}

/** All steps at once. */
export function drained<T>(steps: Generator<void, T>): T {
  for (;;) {
    const { done, value } = steps.next();
    if (done) return value;
  }
}

/** What `files` reads from a tokenizer's file, before it is a Tokenizer. */
export type TokenizerData =
  /** tokenizer.json, and tokenizer_config.json where there is one. */
  | { readonly kind: "huggingface"; readonly tokenizer: object; readonly config: object }
  /** A SentencePiece model, or a llama2.c tok*.bin, which holds the same without types. */
  | {
      readonly kind: "sentencepiece";
      readonly model: "bpe" | "unigram";
      readonly pieces: readonly Piece[];
      readonly addDummyPrefix: boolean;
      readonly removeExtraWhitespaces: boolean;
      readonly byteFallback: boolean;
      readonly unknown: number;
      readonly bos?: number;
      readonly eos?: number;
    }
  | GgufVocabulary;

export interface Piece {
  readonly text: string;
  readonly score: number;
  readonly type: "normal" | "unknown" | "control" | "user" | "unused" | "byte";
}

/** What a token is, by GGUF's numbers (`tokenizer.ggml.token_type`). */
export const TOKEN_TYPES = {
  undefined: 0,
  normal: 1,
  unknown: 2,
  control: 3,
  user: 4,
  unused: 5,
  byte: 6,
};

/**
 * A vocabulary in the words of GGUF's `tokenizer.ggml.*` keys, as a file holds
 * it: its lists are equally long and its ids are ids, but what it spells is not judged.
 */
export interface GgufVocabulary {
  readonly kind: "gguf";
  /** `tokenizer.ggml.model`: llama, gpt2, … */
  readonly model: string;
  /** `tokenizer.ggml.pre`, how a text is cut before merging; absent in old files. */
  readonly pre?: string;
  readonly tokens: readonly string[];
  readonly scores?: Float32Array;
  /** Numbers of TOKEN_TYPES. */
  readonly types?: Uint8Array;
  /** `left right` */
  readonly merges?: readonly string[];
  readonly bos?: number;
  readonly eos?: number;
  /** End of a turn. */
  readonly eot?: number;
  readonly unknown?: number;
  readonly separator?: number;
  readonly padding?: number;
  readonly addBos?: boolean;
  readonly addEos?: boolean;
  readonly addSpacePrefix?: boolean;
  readonly removeExtraWhitespaces?: boolean;
  /** `tokenizer.chat_template` */
  readonly chatTemplate?: string;
}
