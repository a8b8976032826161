import { Tokenizer as Library } from "@huggingface/tokenizers";
import { InputError } from "../tensor/tensor.ts";
import { byteLevelBytes, byteOfPiece, joinBytes, textOf } from "./bytes.ts";
import type { Tokenizer, TokenizerData } from "./tokenizer.ts";

interface TokenizerJson {
  readonly added_tokens: readonly {
    readonly id: number;
    readonly content: string;
    readonly special?: boolean;
  }[];
  readonly decoder: Decoder | null;
  readonly model: { readonly vocab: Readonly<Record<string, number>> | readonly [string, number][] };
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

/** Beyond all vocabularies in use; a list is made of as many places as the largest id says. */
const LARGEST_VOCABULARY = 2 ** 24;

/**
 * A tokenizer.json, encoded by `@huggingface/tokenizers`; bytes and decoding
 * are ours, so that streamed bytes and decoded text are the same thing.
 *
 * An added token's spelling inside a text (`</s>`) is read as that token, as
 * the library does. Special tokens stand for no bytes.
 */
export function huggingfaceTokenizer(data: TokenizerData & { kind: "huggingface" }): Tokenizer {
  const json = checked(data.tokenizer);
  const config = data.config as Readonly<Record<string, unknown>>;
  const library = open(data);

  const entries = Array.isArray(json.model.vocab)
    ? json.model.vocab.map(([piece], id): [string, number] => [piece, id])
    : Object.entries(json.model.vocab as Readonly<Record<string, number>>);
  const pieces: string[] = [];
  for (const [piece, id] of entries) pieces[id] = piece;
  for (const { id, content } of json.added_tokens) pieces[id] = content;
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

  return {
    vocabulary: pieces.length,
    bos: named("bos_token", ["<s>", "<bos>", "<|begin_of_text|>", "<|endoftext|>"]),
    eos: named("eos_token", ["</s>", "<eos>", "<|end_of_text|>", "<|endoftext|>"]),
    encode: (text) => Int32Array.from(library.encode(text, { add_special_tokens: false }).ids),
    bytes,
    decode(ids) {
      const text = textOf(joinBytes(Array.from(ids, bytes)));
      return stripsSpace && text.startsWith(" ") ? text.slice(1) : text;
    },
    piece: (id) => pieces[id] ?? "",
  };
}

/** The library throws plain errors, at what a file lacks and at what it holds that the library does not know. */
function open(data: TokenizerData & { kind: "huggingface" }): Library {
  try {
    return new Library(data.tokenizer, data.config);
  } catch (error) {
    throw new InputError(`tokenizer.json: cannot be used: ${(error as Error).message.split("\n", 1)[0]}`);
  }
}

function checked(tokenizer: object): TokenizerJson {
  const { model, added_tokens: added, decoder = null } = tokenizer as Partial<TokenizerJson>;
  const added_tokens = added ?? [];
  const vocab: unknown = model?.vocab;
  if (typeof vocab !== "object" || vocab === null) {
    throw new InputError("tokenizer.json: needs a model with a vocab, found none; is it a tokenizer's file?");
  }
  const ids = Array.isArray(vocab) ? vocab.keys() : Object.values(vocab);
  const isId = (id: unknown) =>
    Number.isInteger(id) && (id as number) >= 0 && (id as number) < LARGEST_VOCABULARY;
  if (
    (Array.isArray(vocab) && !vocab.every((entry) => Array.isArray(entry) && typeof entry[0] === "string")) ||
    ![...ids].every(isId) ||
    !Array.isArray(added_tokens) ||
    !added_tokens.every((token) => isId(token?.id) && typeof token.content === "string")
  ) {
    throw new InputError(
      `tokenizer.json: needs pieces and added tokens with ids from 0 to ${LARGEST_VOCABULARY - 1}, met others; damaged?`,
    );
  }
  return { added_tokens, decoder, model: model! };
}
