import { InputError } from "../tensor/tensor.ts";
import { byteLevelEncoder, type Encoder } from "./byte-pairs.ts";
import { byteLevelBytes, byteName, byteOfPiece, joinBytes, SPACE_MARK, textOf } from "./bytes.ts";
import { checkScores, mergeNeighbours, partsBetween, ScoredPieces } from "./merges.ts";
import { type PreTokenizer, preTokenizer } from "./pre-tokenizers.ts";
import { isEnd, type Special, specialCutter } from "./special.ts";
import {
  drained,
  type EncodeOptions,
  type GgufVocabulary,
  TOKEN_TYPES,
  type Tokenizer,
} from "./tokenizer.ts";

/** Longer tokens than this, in UTF-16 units, are in no vocabulary. */
const LONGEST_TOKEN = 2 ** 16;
const MOST_TOKENS = 2 ** 24;

const utf8 = new TextEncoder();

const { normal: NORMAL, unknown: UNKNOWN, control: CONTROL, user: USER, byte: BYTE } = TOKEN_TYPES;

/**
 * A GGUF file's vocabulary, with llama.cpp's ids
 * (https://github.com/ggml-org/llama.cpp/blob/master/src/llama-vocab.cpp):
 *
 *   llama   SentencePiece BPE: all neighbours that make a piece, the best-scored first; bytes for what is none
 *   gpt2    byte-level BPE by ranked merges, in the words of the pre-tokenizer `pre`
 *
 * User-defined tokens are found in all text, control tokens where the caller
 * asks. Throws an InputError for other models, for pre-tokenizers that are
 * not known and for vocabularies that contradict themselves.
 */
export function ggufTokenizer(file: GgufVocabulary): Tokenizer {
  const idOf = idsOfTokens(file);
  const types = file.types ?? new Uint8Array(file.tokens.length).fill(NORMAL);
  const spaced = file.model === "llama";
  let encoder: Encoder;
  let pre: PreTokenizer | undefined;
  if (file.model === "llama") encoder = scoredEncoder(file, idOf);
  else if (file.model === "gpt2") {
    pre = preTokenizer(file.pre ?? "default");
    encoder = byteLevelEncoder(idOf, file.merges ?? [], pre);
  } else {
    throw new InputError(
      `tokenizer: GGUF vocabularies of model ${JSON.stringify(file.model.slice(0, 60))} are not read, only "llama" and "gpt2"`,
    );
  }

  const tokens = Array.from(file.tokens, (text, id): Special => ({ id, text }));
  const isMarked = (id: number) => types[id] === CONTROL || types[id] === UNKNOWN || types[id] === USER;
  const isControl = ({ id, text }: Special) =>
    types[id] === CONTROL || types[id] === UNKNOWN || isEnd(text, isMarked(id));
  const controls = tokens.filter(isControl);
  const users = tokens.filter((token) => types[token.id] === USER && !isControl(token));
  const controlIds = new Set(controls.map(({ id }) => id));
  const cutUsers = specialCutter(users);
  const cutAll = specialCutter([...users, ...controls]);
  const prefix = spaced && (file.addSpacePrefix ?? true) ? " " : "";

  const bytes = (id: number): Uint8Array => {
    const token = file.tokens[id];
    if (token === undefined || controlIds.has(id)) return new Uint8Array(0);
    switch (types[id]) {
      case NORMAL:
        return spaced ? utf8.encode(token.replaceAll(SPACE_MARK, " ")) : byteLevelBytes(token);
      case USER:
        return utf8.encode(token);
      case BYTE:
        return Uint8Array.of(byteOfPiece(token) ?? 0);
      default:
        return new Uint8Array(0);
    }
  };

  function* steps(text: string, { special = false }: EncodeOptions = {}): Generator<void, Int32Array> {
    const ids: number[] = [];
    let begins = true; // the text, or what follows a special token
    for (const part of special ? cutAll(text) : cutUsers(text)) {
      if (typeof part === "number") ids.push(part);
      else yield* encoder(begins ? prefix + part : part, ids);
      begins = typeof part === "number";
    }
    return Int32Array.from(ids);
  }

  const start = idWithin(file, "bos", spaced ? 1 : 11);
  const eos = idWithin(file, "eos", spaced ? 2 : 11);
  const addBos = file.addBos ?? (spaced || pre?.addBos === true);
  const ends = [
    eos,
    idWithin(file, "eot"),
    ...controls.filter(({ text }) => isEnd(text, true)).map(({ id }) => id),
  ];
  const spelling = (id: number | undefined) => (id === undefined ? "" : file.tokens[id]);
  return {
    vocabulary: file.tokens.length,
    bos: addBos ? start : undefined,
    eos,
    ends: [...new Set(ends.filter((id) => id !== undefined))],
    chat:
      file.chatTemplate === undefined
        ? undefined
        : { template: file.chatTemplate, bosToken: spelling(start), eosToken: spelling(eos) },
    encode: (text, options) => drained(steps(text, options)),
    steps,
    bytes,
    decode(ids) {
      const text = textOf(joinBytes(Array.from(ids, bytes)));
      return prefix !== "" && text.startsWith(" ") ? text.slice(1) : text;
    },
    piece: (id) => file.tokens[id] ?? "",
  };
}

function idsOfTokens({ tokens }: GgufVocabulary): Map<string, number> {
  if (tokens.length === 0) throw new InputError("tokenizer: the vocabulary is empty");
  if (tokens.length > MOST_TOKENS) {
    throw new InputError(`tokenizer: ${tokens.length} tokens; vocabularies have at most ${MOST_TOKENS}`);
  }
  const idOf = new Map<string, number>();
  for (const [id, token] of tokens.entries()) {
    if (token.length > LONGEST_TOKEN) {
      throw new InputError(
        `tokenizer: token ${id} has ${token.length} characters; at most ${LONGEST_TOKEN} are read`,
      );
    }
    if (token === "") continue; // takes an id, is found in no text
    const before = idOf.get(token);
    if (before !== undefined) {
      throw new InputError(
        `tokenizer: tokens ${before} and ${id} are both ${JSON.stringify(token.slice(0, 60))}`,
      );
    }
    idOf.set(token, id);
  }
  return idOf;
}

/** An id of the file, or what llama.cpp takes when it holds none and the vocabulary is large enough. */
function idWithin(
  file: GgufVocabulary,
  name: "bos" | "eos" | "eot" | "unknown",
  usual?: number,
): number | undefined {
  const id = file[name];
  const { length } = file.tokens;
  if (id === undefined) return usual !== undefined && usual < length ? usual : undefined;
  if (!Number.isInteger(id) || id < 0 || id >= length) {
    throw new InputError(`tokenizer: its ${name} token is ${id}, the vocabulary has ${length}`);
  }
  return id;
}

function scoredEncoder(file: GgufVocabulary, idOf: ReadonlyMap<string, number>): Encoder {
  const scores = file.scores ?? new Float32Array(file.tokens.length);
  checkScores(scores);
  const merges = new ScoredPieces(idOf, scores);
  const partsOf = partsBetween(idOf.keys(), SPACE_MARK);
  const unknown = idWithin(file, "unknown", 0)!;
  const byteIds = Array.from({ length: 256 }, (_, byte) => {
    return (
      idOf.get(byteName(byte)) ?? (byte < 0x80 ? idOf.get(String.fromCharCode(byte)) : undefined) ?? unknown
    );
  });
  return function* (text, ids) {
    for (const part of partsOf(text.replaceAll(" ", SPACE_MARK))) {
      yield;
      const symbols = merges.symbols(part);
      const count = yield* mergeNeighbours(symbols, merges);
      for (const symbol of symbols.subarray(0, count)) {
        if (symbol < merges.ids) ids.push(symbol);
        else for (const byte of utf8.encode(merges.text(symbol))) ids.push(byteIds[byte]);
      }
    }
  };
}
