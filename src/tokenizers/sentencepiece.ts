import { byteOfPiece, joinBytes, SPACE_MARK, textOf } from "./bytes.ts";
import { checkScores, mergeNeighbours, partsBetween, ScoredPieces } from "./merges.ts";
import { isEnd, type Special, specialCutter } from "./special.ts";
import { drained, type EncodeOptions, type Tokenizer, type TokenizerData } from "./tokenizer.ts";

type Model = TokenizerData & { kind: "sentencepiece" };

/** A span of the text, from … to−1 in UTF-16 units. */
interface Span {
  readonly from: number;
  readonly to: number;
}

/** What an unknown piece stands for in decoded text: SentencePiece's default `unk_surface`. */
const UNKNOWN_SURFACE = " \u2047 ";

const utf8 = new TextEncoder();

/**
 * SentencePiece vocabularies, and llama2.c's, which are the same without types
 * (Kudo and Richardson, 2018, https://arxiv.org/abs/1808.06226).
 *
 *   bpe      neighbours whose concatenation is the best-scored piece are merged, leftmost first among equals
 *   unigram  the segmentation of highest total score (Viterbi)
 *
 * Spaces are kept as spaces here: `▁` in pieces and text is the same thing.
 * Text is taken as it is: a model's own Unicode normalization is not applied.
 */
export function sentencePieceTokenizer(model: Model): Tokenizer {
  checkScores(model.pieces.map((piece) => piece.score));
  const spellings = model.pieces.map((piece) => piece.text.replaceAll(SPACE_MARK, " "));
  const idOf = new Map<string, number>(); // pieces that text can contain
  const byteIds = new Map<number, number>();
  const users: Special[] = [];
  for (const [id, piece] of model.pieces.entries()) {
    const byte = byteOfPiece(piece.text);
    if (piece.type === "byte" && byte !== undefined) byteIds.set(byte, id);
    else if (piece.type === "normal" && !idOf.has(spellings[id])) idOf.set(spellings[id], id);
    else if (piece.type === "user") {
      idOf.set(spellings[id], id);
      users.push({ id, text: spellings[id] });
    }
  }
  const segment = model.model === "bpe" ? mergeByScore(model, idOf) : viterbi(model, idOf, spellings);
  const cutUsers = specialCutter(users, "leftmost");
  const controls = [...model.pieces.entries()]
    .filter(([, { type }]) => type === "control" || type === "unknown")
    .map(([id, { text }]) => ({ id, text }));
  const cutControls = specialCutter(controls);

  const bytes = (id: number): Uint8Array => {
    const piece = model.pieces[id];
    switch (piece?.type) {
      case "byte":
        return Uint8Array.of(byteOfPiece(piece.text) ?? 0);
      case "normal":
      case "user":
        return utf8.encode(spellings[id]);
      case "unknown":
        return utf8.encode(UNKNOWN_SURFACE);
      default:
        return new Uint8Array(0);
    }
  };

  function* steps(text: string, { special = false }: EncodeOptions = {}): Generator<void, Int32Array> {
    const ids: number[] = [];
    let unknownBefore = false;
    for (const part of special ? cutControls(text) : [text]) {
      if (typeof part === "number") {
        ids.push(part);
        unknownBefore = false;
        continue;
      }
      const clean = normalized(part, model);
      const emit = (span: Span) => {
        const id = idOf.get(clean.slice(span.from, span.to));
        if (id !== undefined) ids.push(id);
        else if (model.byteFallback) {
          for (const byte of utf8.encode(clean.slice(span.from, span.to)))
            ids.push(byteIds.get(byte) ?? model.unknown); // a damaged vocabulary lacks some
        } else if (!unknownBefore) ids.push(model.unknown); // neighbours that are unknown are one piece
        unknownBefore = id === undefined;
      };
      let from = 0;
      for (const piece of cutUsers(clean)) {
        const to = from + (typeof piece === "number" ? spellings[piece] : piece).length;
        for (const span of typeof piece === "number" ? [{ from, to }] : yield* segment(clean, from, to))
          emit(span);
        from = to;
      }
    }
    return Int32Array.from(ids);
  }

  const ends = controls.filter(({ text }) => isEnd(text, true)).map(({ id }) => id);
  return {
    vocabulary: model.pieces.length,
    bos: model.bos,
    eos: model.eos,
    ends: [...new Set(model.eos === undefined ? ends : [model.eos, ...ends])],
    encode: (text, options) => drained(steps(text, options)),
    steps,
    bytes,

    decode(ids) {
      const text = textOf(joinBytes(Array.from(ids, bytes)));
      return model.addDummyPrefix && text.startsWith(" ") ? text.slice(1) : text;
    },

    piece: (id) => model.pieces[id]?.text ?? "",
  };
}

function normalized(text: string, model: Model): string {
  let clean = text.replaceAll(SPACE_MARK, " ");
  if (model.removeExtraWhitespaces) clean = clean.replace(/ {2,}/g, " ").replace(/^ | $/g, "");
  return model.addDummyPrefix && clean !== "" ? ` ${clean}` : clean;
}

/** Cuts text[from…to) into pieces and characters that are none. */
type Segment = (text: string, from: number, to: number) => Generator<void, Span[]>;

function mergeByScore(model: Model, idOf: ReadonlyMap<string, number>): Segment {
  const merges = new ScoredPieces(
    idOf,
    model.pieces.map((piece) => piece.score),
  );
  const partsOf = partsBetween(idOf.keys(), " ");
  return function* (text, from, to) {
    const spans: Span[] = [];
    let at = from;
    for (const part of partsOf(text.slice(from, to))) {
      yield;
      const symbols = merges.symbols(part);
      const count = yield* mergeNeighbours(symbols, merges);
      for (const symbol of symbols.subarray(0, count)) {
        const end = at + merges.text(symbol).length;
        spans.push({ from: at, to: end });
        at = end;
      }
    }
    return spans;
  };
}

/** A code point that is no piece costs 10 more than the worst piece, as in SentencePiece. */
const UNKNOWN_PENALTY = 10;

/** Characters between pauses: about a millisecond. */
const BETWEEN_PAUSES = 4096;

function viterbi(model: Model, idOf: ReadonlyMap<string, number>, spellings: readonly string[]): Segment {
  const scores = [...idOf.values()].map((id) => model.pieces[id].score);
  const unknownScore = scores.reduce((least, score) => Math.min(least, score), 0) - UNKNOWN_PENALTY;
  const longest = [...idOf.values()].reduce((length, id) => Math.max(length, spellings[id].length), 1);

  return function* (text, from, to) {
    let work = 0;
    const best = new Float64Array(to - from + 1).fill(Number.NEGATIVE_INFINITY);
    const before = new Int32Array(to - from + 1);
    best[0] = 0;
    for (let at = from; at < to; ) {
      if (++work % BETWEEN_PAUSES === 0) yield;
      const width = text.codePointAt(at)! > 0xffff ? 2 : 1;
      for (let end = at + 1; end <= Math.min(to, at + Math.max(longest, width)); end++) {
        const id = idOf.get(text.slice(at, end));
        if (id === undefined && end !== at + width) continue;
        const score = best[at - from] + (id === undefined ? unknownScore : model.pieces[id].score);
        if (score > best[end - from]) {
          best[end - from] = score;
          before[end - from] = at;
        }
      }
      at += width;
    }
    const spans: Span[] = [];
    for (let end = to; end > from; end = before[end - from])
      spans.push({ from: before[end - from], to: end });
    return spans.reverse();
  };
}
