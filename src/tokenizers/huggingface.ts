import { Tokenizer as Library } from "@huggingface/tokenizers";
import { InputError } from "../tensor/tensor.ts";
import { byteLevelEncoder, type Encoder, spacedEncoder } from "./byte-pairs.ts";
import { BYTE_CHARACTERS, byteLevelBytes, byteName, byteOfPiece, joinBytes, textOf } from "./bytes.ts";
import { checkStages, hasPattern, inTime } from "./huggingface-checks.ts";
import { namesOf, stagesOf } from "./pre-tokenizers.ts";
import { isEnd, specialCutter } from "./special.ts";
import { drained, type Tokenizer, type TokenizerData } from "./tokenizer.ts";

export interface TokenizerJson {
  readonly added_tokens: readonly {
    readonly id: number;
    readonly content: string;
    readonly special?: boolean;
    readonly lstrip?: boolean;
    readonly rstrip?: boolean;
    readonly single_word?: boolean;
  }[];
  readonly decoder: Decoder | null;
  readonly normalizer?: unknown;
  readonly pre_tokenizer?: unknown;
  readonly model: {
    readonly type?: string;
    readonly vocab: Readonly<Record<string, number>> | readonly [string, number][];
    readonly merges?: unknown;
    readonly unk_token?: string | null;
    readonly ignore_merges?: boolean;
    readonly byte_fallback?: boolean;
    readonly dropout?: number | null;
    readonly continuing_subword_prefix?: string | null;
    readonly end_of_word_suffix?: string | null;
  };
}

interface Decoder {
  readonly type: string;
  readonly decoders?: readonly Decoder[];
  readonly content?: string;
  readonly start?: number;
  readonly prepend_scheme?: string;
  readonly add_prefix_space?: boolean;
}

const utf8 = new TextEncoder();

/** Ids that no token has, beyond all vocabularies in use; a list is made of as many places as the largest id says. */
const MOST_HOLES = 2 ** 16;

/**
 * A tokenizer.json: byte-pair encoding of the usual kinds by our own code,
 * which takes long texts, and all others by `@huggingface/tokenizers`, with the
 * same ids; bytes and decoding are ours, so that streamed bytes and decoded
 * text are the same thing.
 *
 * An added token's spelling inside a text (`</s>`) is read as that token, as
 * the library does, whatever `special` says. Special tokens stand for no bytes.
 */
export function huggingfaceTokenizer(data: TokenizerData & { kind: "huggingface" }): Tokenizer {
  const json = checked(data.tokenizer);
  const config = data.config as Readonly<Record<string, unknown>>;
  const library = open(data);
  const encode = (text: string) => Int32Array.from(library.encode(text, { add_special_tokens: false }).ids);
  const bounded = hasPattern(data.tokenizer) ? (text: string) => inTime(text, () => encode(text)) : encode;

  const entries = Array.isArray(json.model.vocab)
    ? json.model.vocab.map(([piece], id): [string, number] => [piece, id])
    : Object.entries(json.model.vocab as Readonly<Record<string, number>>);
  const pieces: string[] = [];
  for (const [piece, id] of entries) pieces[id] = piece;
  for (const { id, content } of json.added_tokens) pieces[id] = content;
  if (pieces.length === 0) throw new InputError("tokenizer.json: the vocabulary is empty");
  const added = new Set(json.added_tokens.map((token) => token.id));
  const special = new Map(json.added_tokens.filter((t) => t.special).map((t) => [t.content, t.id]));
  const specialIds = new Set(special.values());

  const decoders = json.decoder ? [json.decoder, ...(json.decoder.decoders ?? [])] : [];
  const byteLevel = decoders.some((d) => d.type === "ByteLevel");
  const stripsSpace = decoders.some(
    (d) =>
      (d.type === "Strip" && d.content === " " && (d.start ?? 0) > 0) ||
      (d.type === "Metaspace" && d.prepend_scheme !== "never" && d.add_prefix_space !== false),
  );

  const bytes = (id: number): Uint8Array => {
    const piece = pieces[id];
    if (piece === undefined || specialIds.has(id)) return new Uint8Array(0);
    if (added.has(id)) return utf8.encode(piece);
    if (byteLevel) return byteLevelBytes(piece);
    const byte = byteOfPiece(piece);
    return byte === undefined ? utf8.encode(piece.replaceAll("▁", " ")) : Uint8Array.of(byte);
  };

  const named = (key: string, usual: readonly string[]): number | undefined => {
    const token = config[key];
    if (token === null) return undefined; // the model was made without
    const content = typeof token === "string" ? token : (token as { content?: string } | undefined)?.content;
    if (content !== undefined) return library.token_to_id(content);
    return usual.map((spelling) => special.get(spelling)).find((id) => id !== undefined);
  };

  const bos = named("bos_token", ["<s>", "<bos>", "<|begin_of_text|>", "<|endoftext|>"]);
  const eos = named("eos_token", ["</s>", "<eos>", "<|end_of_text|>", "<|endoftext|>"]);
  const steps = ownSteps(json);
  const ends = [...specialIds].filter((id) => isEnd(pieces[id], true));
  const template = chatTemplateOf(config.chat_template);
  const spelling = (id: number | undefined) => (id === undefined ? "" : pieces[id]);
  return {
    vocabulary: pieces.length,
    bos,
    eos,
    ends: [...new Set(eos === undefined ? ends : [eos, ...ends])],
    chat: template === undefined ? undefined : { template, bosToken: spelling(bos), eosToken: spelling(eos) },
    encode: steps ? (text) => drained(steps(text)) : (text) => usable(() => bounded(text)),
    steps,
    bytes,
    decode(ids) {
      const text = textOf(joinBytes(Array.from(ids, bytes)));
      return stripsSpace && text.startsWith(" ") ? text.slice(1) : text;
    },
    piece: (id) => pieces[id] ?? "",
  };
}

/** The library's ids by our own code, where the file says nothing that it does not know; undefined where it does. */
function ownSteps(json: TokenizerJson): ((text: string) => Generator<void, Int32Array>) | undefined {
  const { model, normalizer, pre_tokenizer, added_tokens } = json;
  const simple =
    (model.type ?? "BPE") === "BPE" &&
    !Array.isArray(model.vocab) &&
    !model.dropout &&
    !model.continuing_subword_prefix &&
    !model.end_of_word_suffix &&
    added_tokens.every(({ lstrip, rstrip, single_word }) => !lstrip && !rstrip && !single_word);
  const merges = mergesOf(json);
  if (!simple || merges === undefined || merges.length === 0) return undefined;
  const idOf = new Map(Object.entries(model.vocab as Readonly<Record<string, number>>));
  const has = (pieces: readonly string[]) => pieces.every((piece) => idOf.has(piece));

  const stages = stagesOf(pre_tokenizer);
  const ignoreMerges = model.ignore_merges === true;
  const kind = JSON.stringify(normalizer ?? null);
  let encoder: Encoder;
  let prepare = (text: string) => text;
  if (stages && (kind === "null" || kind === NFC) && has(UTF8_BYTES.map((byte) => BYTE_CHARACTERS[byte]))) {
    if (namesOf(stages, ignoreMerges).length === 0) return undefined;
    encoder = byteLevelEncoder(idOf, merges, { stages, ignoreMerges });
    if (kind === NFC) prepare = (text) => text.normalize("NFC");
  } else if (!pre_tokenizer && kind === SPACED && model.byte_fallback && !ignoreMerges) {
    if (!has(UTF8_BYTES.map(byteName))) return undefined;
    encoder = spacedEncoder(idOf, merges);
    prepare = (text) => ` ${text}`;
  } else return undefined;

  const cut = specialCutter(
    added_tokens.map(({ id, content }) => ({ id, text: content })),
    "leftmost",
  );
  return function* (text) {
    const ids: number[] = [];
    for (const part of cut(text)) {
      if (typeof part === "number") ids.push(part);
      else yield* encoder(prepare(part), ids);
    }
    return Int32Array.from(ids);
  };
}

/** Bytes that occur in text: all but C0, C1 and F5 … FF. */
const UTF8_BYTES = Array.from({ length: 0xf5 }, (_, byte) => byte).filter((b) => b !== 0xc0 && b !== 0xc1);
const NFC = JSON.stringify({ type: "NFC" });
/** A space before the text, and `▁` for all spaces. */
const SPACED = JSON.stringify({
  type: "Sequence",
  normalizers: [
    { type: "Prepend", prepend: "▁" },
    { type: "Replace", pattern: { String: " " }, content: "▁" },
  ],
});

/** Merges as `left right`; undefined when a file has none, or tokens with spaces in them. */
export function mergesOf({ model: { merges } }: TokenizerJson): string[] | undefined {
  if (!Array.isArray(merges)) return undefined;
  const spelled = merges.map((merge) => (Array.isArray(merge) ? merge.join(" ") : String(merge)));
  return spelled.every((merge) => merge.indexOf(" ", 1) === merge.lastIndexOf(" ")) ? spelled : undefined;
}

/** A template, or the one called `default` of several with names. */
function chatTemplateOf(given: unknown): string | undefined {
  if (typeof given === "string") return given;
  if (!Array.isArray(given)) return undefined;
  const named = given.find((entry) => entry?.name === "default" && typeof entry.template === "string");
  return named?.template;
}

/** The library throws plain errors, at what a file lacks and at what it holds that the library does not know. */
function open(data: TokenizerData & { kind: "huggingface" }): Library {
  const { added_tokens = [], ...rest } = data.tokenizer as { added_tokens?: object[] };
  return usable(() => new Library({ ...rest, added_tokens }, data.config));
}

function usable<T>(work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (error instanceof InputError) throw error;
    throw new InputError(`tokenizer.json: cannot be used: ${(error as Error).message.split("\n", 1)[0]}`);
  }
}

/** A tokenizer.json whose parts are what they should be; an InputError for others. */
export function checked(tokenizer: object): TokenizerJson {
  const { model, added_tokens: added, decoder = null, ...rest } = tokenizer as Partial<TokenizerJson>;
  const added_tokens = added ?? [];
  const vocab: unknown = model?.vocab;
  if (typeof vocab !== "object" || vocab === null) {
    throw new InputError("tokenizer.json: needs a model with a vocab, found none; is it a tokenizer's file?");
  }
  const ids = [...(Array.isArray(vocab) ? vocab.keys() : Object.values(vocab))];
  const ends = ids.length + (Array.isArray(added_tokens) ? added_tokens.length : 0) + MOST_HOLES;
  const isId = (id: unknown) => Number.isInteger(id) && (id as number) >= 0 && (id as number) < ends;
  if (
    (Array.isArray(vocab) && !vocab.every((entry) => Array.isArray(entry) && typeof entry[0] === "string")) ||
    !ids.every(isId) ||
    !Array.isArray(added_tokens) ||
    !added_tokens.every((token) => isId(token?.id) && typeof token.content === "string")
  ) {
    throw new InputError(
      `tokenizer.json: needs pieces and added tokens with ids from 0 to ${ends - 1}, met others; damaged?`,
    );
  }
  checkStages(tokenizer);
  return { ...rest, added_tokens, decoder, model: model! };
}
