import { InputError } from "../tensor/tensor.ts";
import type { Piece, TokenizerData } from "../tokenizers/tokenizer.ts";

/** Twice the largest vocabularies of decoders; a stranger's piece may be two bytes of a file and fifty of memory. */
const MOST_PIECES = 2 ** 19;

/**
 * SentencePiece models, read from their protobuf
 * (https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto):
 *
 *   ModelProto      1 pieces*  2 trainer_spec  3 normalizer_spec
 *   SentencePiece   1 piece  2 score (float)  3 type: 1 normal 2 unknown 3 control 4 user 5 unused 6 byte
 *   TrainerSpec     3 model_type: 1 unigram 2 bpe  24 treat_whitespace_as_suffix  35 byte_fallback
 *                   40 unk_id  41 bos_id  42 eos_id (−1: none)
 *   NormalizerSpec  3 add_dummy_prefix  4 remove_extra_whitespaces
 *
 * The normalizer's own table (NFKC in some models) is not read.
 */
export function readSentencePiece(bytes: Uint8Array, file: string): TokenizerData {
  checkCount(countMessages(bytes), file);
  const pieces: Piece[] = [];
  const trainer = { model: 1, suffix: false, byteFallback: false, unknown: 0, bos: 1, eos: 2 };
  const normalizer = { addDummyPrefix: true, removeExtraWhitespaces: true };
  for (const field of fields(bytes, file)) {
    if (field.number === 1) pieces.push(readPiece(message(field, file), file, pieces.length));
    else if (field.number === 2) {
      for (const inner of fields(message(field, file), file)) {
        if (inner.number === 3) trainer.model = integer(inner, file);
        else if (inner.number === 24) trainer.suffix = integer(inner, file) !== 0;
        else if (inner.number === 35) trainer.byteFallback = integer(inner, file) !== 0;
        else if (inner.number === 40) trainer.unknown = integer(inner, file);
        else if (inner.number === 41) trainer.bos = integer(inner, file);
        else if (inner.number === 42) trainer.eos = integer(inner, file);
      }
    } else if (field.number === 3) {
      for (const inner of fields(message(field, file), file)) {
        if (inner.number === 3) normalizer.addDummyPrefix = integer(inner, file) !== 0;
        else if (inner.number === 4) normalizer.removeExtraWhitespaces = integer(inner, file) !== 0;
      }
    }
  }
  if (pieces.length === 0) throw new InputError(`${file}: not a SentencePiece model: it has no pieces`);
  if (trainer.model !== 1 && trainer.model !== 2) {
    throw new InputError(
      `${file}: SentencePiece model type ${trainer.model}; only unigram (1) and BPE (2) are read`,
    );
  }
  if (trainer.suffix) throw new InputError(`${file}: SentencePiece with whitespace as suffix is not read`);
  const within = (id: number) => (id >= 0 && id < pieces.length ? id : undefined);
  return {
    kind: "sentencepiece",
    model: trainer.model === 2 ? "bpe" : "unigram",
    pieces,
    addDummyPrefix: normalizer.addDummyPrefix,
    removeExtraWhitespaces: normalizer.removeExtraWhitespaces,
    byteFallback: trainer.byteFallback,
    unknown: within(trainer.unknown) ?? 0,
    bos: within(trainer.bos),
    eos: within(trainer.eos),
  };
}

const TYPES: readonly (Piece["type"] | undefined)[] = [
  undefined,
  "normal",
  "unknown",
  "control",
  "user",
  "unused",
  "byte",
];

function readPiece(bytes: Uint8Array, file: string, id: number): Piece {
  let piece = "";
  let score = 0;
  let type: Piece["type"] | undefined = "normal";
  for (const field of fields(bytes, file)) {
    if (field.number === 1) piece = text(message(field, file), file);
    else if (field.number === 2) score = float(field, file);
    else if (field.number === 3) type = TYPES[integer(field, file)];
  }
  if (type === undefined)
    throw new InputError(`${file}: piece ${id} has a type that SentencePiece does not know`);
  return { text: piece, score, type };
}

/**
 * llama2.c's tok*.bin: int32 max_token_length, then for each id float32 score,
 * int32 length, the bytes. It is a SentencePiece BPE vocabulary without types
 * and with spaces for U+2581; we put both back. Id 0 is unknown, 1 start, 2
 * end; `<0xHH>` at id HH+3 stands for a byte.
 */
export function readTokBin(bytes: Uint8Array, file: string): TokenizerData {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const longest = bytes.byteLength >= 4 ? view.getInt32(0, true) : 0;
  if (longest <= 0 || longest > bytes.byteLength) {
    throw new InputError(`${file}: not a llama2.c tokenizer: its longest token would have ${longest} bytes`);
  }
  checkCount(countTokens(view), file);
  const pieces: Piece[] = [];
  let bytePieces = 0;
  for (let at = 4; at < bytes.byteLength; ) {
    const id = pieces.length;
    if (at + 8 > bytes.byteLength) throw new InputError(`${file}: truncated at id ${id}`);
    const score = view.getFloat32(at, true);
    const length = view.getInt32(at + 4, true);
    if (length < 0 || at + 8 + length > bytes.byteLength) {
      throw new InputError(
        `${file}: id ${id} would have ${length} bytes, ${bytes.byteLength - at - 8} are left; truncated?`,
      );
    }
    const stored = text(bytes.subarray(at + 8, at + 8 + length), file);
    at += 8 + length;
    const isByte = id >= 3 && id < 259 && stored === byteName(id - 3);
    if (isByte) bytePieces++;
    pieces.push({
      // The exporter wraps the start and end tokens in line breaks.
      text: id === 1 || id === 2 ? stored.trim() : stored.replaceAll(" ", "\u2581"),
      score,
      type: id === 0 ? "unknown" : id < 3 ? "control" : isByte ? "byte" : "normal",
    });
  }
  if (pieces.length < 3)
    throw new InputError(`${file}: needs at least the ids 0, 1 and 2, met ${pieces.length}`);
  return {
    kind: "sentencepiece",
    model: "bpe",
    pieces,
    addDummyPrefix: true,
    removeExtraWhitespaces: false,
    byteFallback: bytePieces === 256,
    unknown: 0,
    bos: 1,
    eos: 2,
  };
}

function checkCount(count: number, file: string): void {
  if (count > MOST_PIECES)
    throw new InputError(`${file}: has ${count} pieces; no vocabulary in use has more than ${MOST_PIECES}`);
}

/** How many pieces a tok.bin says it has, before anything is made of them. */
function countTokens(view: DataView): number {
  let count = 0;
  for (let at = 4; at + 8 <= view.byteLength; count++) at += 8 + Math.max(0, view.getInt32(at + 4, true));
  return count;
}

/** How many pieces a model says it has, before anything is made of them. Other files have some count; the reader refuses them. */
function countMessages(bytes: Uint8Array): number {
  let at = 0;
  const varint = () => {
    let value = 0;
    for (let place = 1; at < bytes.byteLength; place *= 128) {
      const byte = bytes[at++];
      value += (byte & 0x7f) * place;
      if (byte < 0x80) break;
    }
    return value;
  };
  let count = 0;
  while (at < bytes.byteLength) {
    const wire = bytes[at] & 7;
    if (varint() === PIECE_KEY) count++;
    const length = wire === 1 ? 8 : wire === 5 ? 4 : varint();
    if (wire !== 0) at += length;
  }
  return count;
}

/** Field 1, bytes of a length. */
const PIECE_KEY = 10;

function byteName(byte: number): string {
  return `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`;
}

/** A protobuf field: its number, and its value as a varint or as bytes (also those of fixed width). */
interface Field {
  readonly number: number;
  readonly value: number | Uint8Array;
  readonly fixed: boolean;
}

/** The fields of a message, in order; every length is checked against what is left. */
function* fields(bytes: Uint8Array, file: string): Generator<Field> {
  let at = 0;
  /** Up to 10 bytes of 7 bits; the value as a signed 64-bit number, which doubles hold as far as ids and sizes go. */
  const varint = () => {
    let low = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      if (at >= bytes.byteLength) break;
      const byte = bytes[at++];
      low |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return Number(BigInt.asIntN(64, low));
    }
    throw new InputError(
      `${file}: not a SentencePiece model, or truncated: a number ends nowhere at byte ${at}`,
    );
  };
  while (at < bytes.byteLength) {
    const key = varint();
    const number = Math.floor(key / 8);
    const wire = key & 7;
    if (number <= 0) throw new InputError(`${file}: not a SentencePiece model: field number ${number}`);
    if (wire === 0) yield { number, value: varint(), fixed: false };
    else if (wire === 1 || wire === 2 || wire === 5) {
      const length = wire === 1 ? 8 : wire === 5 ? 4 : varint();
      if (length < 0 || length > bytes.byteLength - at) {
        throw new InputError(
          `${file}: not a SentencePiece model, or truncated: a field of ${length} bytes, ${bytes.byteLength - at} are left`,
        );
      }
      yield { number, value: bytes.subarray(at, at + length), fixed: wire !== 2 };
      at += length;
    } else throw new InputError(`${file}: not a SentencePiece model: wire type ${wire}`);
  }
}

function message({ value, fixed, number }: Field, file: string): Uint8Array {
  if (typeof value === "number" || fixed) throw wrongType(number, file);
  return value;
}

function integer({ value, number }: Field, file: string): number {
  if (typeof value !== "number") throw wrongType(number, file);
  return value;
}

function float({ value, fixed, number }: Field, file: string): number {
  if (typeof value === "number" || !fixed || value.byteLength !== 4) throw wrongType(number, file);
  return new DataView(value.buffer, value.byteOffset, 4).getFloat32(0, true);
}

function wrongType(number: number, file: string): InputError {
  return new InputError(`${file}: not a SentencePiece model: field ${number} has another type`);
}

function text(bytes: Uint8Array, file: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new InputError(`${file}: a token is not UTF-8`);
  }
}
