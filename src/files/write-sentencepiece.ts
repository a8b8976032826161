import { InputError } from "../tensor/tensor.ts";
import type { Piece, TokenizerData } from "../tokenizers/tokenizer.ts";

type SentencePiece = TokenizerData & { kind: "sentencepiece" };

/** Types of pieces by their numbers, in SentencePiece and in GGUF. */
const TYPES: readonly Piece["type"][] = ["normal", "normal", "unknown", "control", "user", "unused", "byte"];

const MARK = "\u2581"; // ▁, how vocabularies spell a space
const utf8 = new TextEncoder();

/** A SentencePiece model's protobuf: the inverse of `readSentencePiece`, whose comment lists the fields. */
export function sentencePieceBytes(model: SentencePiece): Uint8Array {
  const out = new Bytes();
  for (const { text, score, type } of model.pieces) {
    const piece = new Bytes();
    piece.field(1, utf8.encode(text));
    piece.float(2, score);
    if (type !== "normal") piece.number(3, TYPES.indexOf(type));
    out.field(1, piece.done());
  }
  const trainer = new Bytes();
  trainer.number(3, model.model === "bpe" ? 2 : 1);
  trainer.number(35, model.byteFallback ? 1 : 0);
  trainer.number(40, model.unknown);
  trainer.number(41, model.bos ?? -1);
  trainer.number(42, model.eos ?? -1);
  out.field(2, trainer.done());
  const normalizer = new Bytes();
  normalizer.number(3, model.addDummyPrefix ? 1 : 0);
  normalizer.number(4, model.removeExtraWhitespaces ? 1 : 0);
  out.field(3, normalizer.done());
  return out.done();
}

/**
 * llama2.c's tok*.bin: the inverse of `readTokBin`. The format has no types and fixed ids, so an InputError names what
 * a vocabulary has that it cannot say. That extra spaces are removed is lost, as by llama2.c's own exporter.
 */
export function tokBinBytes(model: SentencePiece): Uint8Array {
  const cannot = (what: string) => new InputError(`tokenizer: llama2.c's tok.bin cannot hold it: ${what}`);
  // Where every piece is one character, nothing is ever merged.
  const isCharacter = ({ text, type }: Piece) => type !== "normal" || Array.from(text).length === 1;
  if (model.model !== "bpe" && !model.pieces.every(isCharacter))
    throw cannot("its pieces are not merged by score");
  if (model.unknown !== 0 || model.bos !== 1 || model.eos !== 2) {
    throw cannot(
      `unknown, start and end must be the ids 0, 1 and 2, are ${model.unknown}, ${model.bos ?? "none"} and ${model.eos ?? "none"}`,
    );
  }
  if (!model.addDummyPrefix) throw cannot("it puts no space in front of a text");
  const texts = model.pieces.map(({ text, type }, id) => {
    if ((type === "control") !== (id === 1 || id === 2))
      throw cannot(`piece ${id} (${text}) is a ${type} piece`);
    return utf8.encode(id === 1 || id === 2 ? `\n${text}\n` : text.replaceAll(MARK, " "));
  });
  const out = new Bytes();
  out.i32(texts.reduce((longest, { byteLength }) => Math.max(longest, byteLength), 0));
  for (const [id, text] of texts.entries()) {
    out.f32(model.pieces[id].score);
    out.i32(text.byteLength);
    out.put(text);
  }
  return out.done();
}

/** Bytes that grow at their end. */
class Bytes {
  #bytes = new Uint8Array(64);
  #length = 0;

  put(bytes: Uint8Array): void {
    if (this.#length + bytes.byteLength > this.#bytes.byteLength) {
      const larger = new Uint8Array(2 * (this.#length + bytes.byteLength));
      larger.set(this.#bytes.subarray(0, this.#length));
      this.#bytes = larger;
    }
    this.#bytes.set(bytes, this.#length);
    this.#length += bytes.byteLength;
  }

  i32(value: number): void {
    this.put(new Uint8Array(Int32Array.of(value).buffer));
  }

  f32(value: number): void {
    this.put(new Uint8Array(Float32Array.of(value).buffer));
  }

  /** A protobuf number of 64 bits, 7 in each byte, the lowest first. */
  varint(value: number): void {
    let left = BigInt.asUintN(64, BigInt(value));
    for (; left >= 128n; left >>= 7n) this.put(Uint8Array.of(Number(left & 127n) | 128));
    this.put(Uint8Array.of(Number(left)));
  }

  number(field: number, value: number): void {
    this.varint(field * 8);
    this.varint(value);
  }

  float(field: number, value: number): void {
    this.varint(field * 8 + 5);
    this.f32(value);
  }

  field(field: number, bytes: Uint8Array): void {
    this.varint(field * 8 + 2);
    this.varint(bytes.byteLength);
    this.put(bytes);
  }

  done(): Uint8Array {
    return this.#bytes.slice(0, this.#length);
  }
}
