import { SPACE_MARK } from "./bytes.ts";
import { namesOf, preTokenizer, stagesOf, type Words, wordsOf } from "./pre-tokenizers.ts";
import { type GgufVocabulary, TOKEN_TYPES, type TokenizerData } from "./tokenizer.ts";

/** A place where a long text may be cut: what ends there, and where the rest begins, which lacks a space in between where the tokenizer puts one itself. */
export interface Cut {
  readonly end: number;
  readonly next: number;
}

/**
 * The last cut of a text that lies behind `from`, undefined for none: the ids of text[0…end) followed by those of
 * text[next…) are the ids of the whole text.
 */
export type Cuts = (text: string, from?: number) => Cut | undefined;

const LETTER = /[A-Za-z]/;
const BEFORE_LINE = /[^\s\p{White_Space}]/u; // JavaScript and Unicode differ in what a space is
const AFTER_LINE = /^\p{L}/u;

/**
 * Where texts for a tokenizer may be cut without a change of any id; undefined
 * where no such place is known, and a text must be encoded as a whole.
 *
 *   byte-level   between a letter and a space that a letter follows, and behind a single line feed before a letter,
 *                where all stages of the pre-tokenizer end a word there
 *   scored, spaced   before a space between letters, where no piece has a space behind something else
 *
 * Letters beside a space are ASCII. Stages are looked at by what they do with
 * samples (`endsWords`): their patterns are alternatives of runs of classes, so
 * that the characters on both sides decide. Unigram vocabularies are never cut:
 * their best path depends on sums over the text, and so on rounding.
 */
export function cutsOf(data: TokenizerData): Cuts | undefined {
  switch (data.kind) {
    case "huggingface":
      return cutsOfJson(data.tokenizer as Json);
    case "gguf":
      return cutsOfGguf(data);
    case "sentencepiece": {
      const { pieces, addDummyPrefix, removeExtraWhitespaces, byteFallback, model } = data;
      const found = pieces.filter(({ type }) => type === "normal" || type === "user").map(({ text }) => text);
      if (model !== "bpe" || (removeExtraWhitespaces && !addDummyPrefix)) return undefined;
      // Neighbours that are unknown become one id; a space that is known stands between them.
      if (!byteFallback && !found.includes(SPACE_MARK)) return undefined;
      return spaced(found, [], addDummyPrefix);
    }
  }
}

/** Cuts of texts for `trainByteLevelBpe` and the tokenizers that it makes. */
export function trainerCuts(): Cuts {
  return byteLevel(wordsOf(preTokenizer("gpt-2")), [])!;
}

interface Json {
  readonly added_tokens?: readonly {
    readonly content: string;
    readonly lstrip?: boolean;
    readonly rstrip?: boolean;
    readonly single_word?: boolean;
  }[];
  readonly normalizer?: unknown;
  readonly pre_tokenizer?: unknown;
  readonly model: {
    readonly type?: string;
    readonly vocab: object;
    readonly ignore_merges?: boolean;
    readonly byte_fallback?: boolean;
    readonly dropout?: number | null;
  };
}

function cutsOfJson({ added_tokens = [], normalizer, pre_tokenizer, model }: Json): Cuts | undefined {
  if (added_tokens.some(({ lstrip, rstrip, single_word }) => lstrip || rstrip || single_word))
    return undefined;
  if ((model.type ?? "BPE") !== "BPE" || model.dropout || Array.isArray(model.vocab)) return undefined;
  const added = added_tokens.map(({ content }) => content);
  const kind = (normalizer ?? null) as {
    readonly type?: string;
    readonly normalizers?: readonly object[];
  } | null;
  const stages = stagesOf(pre_tokenizer);
  if (stages && namesOf(stages, model.ignore_merges === true).length > 0) {
    return kind === null || kind.type === "NFC" ? byteLevel(wordsOf({ stages }), added) : undefined;
  }
  const isSpaced =
    !pre_tokenizer && model.byte_fallback && JSON.stringify(kind?.normalizers) === PREPEND_AND_REPLACE;
  return isSpaced ? spaced(Object.keys(model.vocab), added, true) : undefined;
}

const PREPEND_AND_REPLACE = JSON.stringify([
  { type: "Prepend", prepend: SPACE_MARK },
  { type: "Replace", pattern: { String: " " }, content: SPACE_MARK },
]);

function cutsOfGguf({ model, pre, tokens, types, addSpacePrefix }: GgufVocabulary): Cuts | undefined {
  const users = tokens.filter((_, id) => types?.[id] === TOKEN_TYPES.user);
  if (model === "gpt2") return byteLevel(wordsOf(preTokenizer(pre ?? "default")), users);
  return model === "llama" ? spaced(tokens, users, addSpacePrefix ?? true) : undefined;
}

/** Cuts before a space; `prefixed`: the tokenizer puts a space before a text, so the one at the cut is left out. */
function spaced(pieces: readonly string[], specials: readonly string[], prefixed: boolean): Cuts | undefined {
  const crosses = (piece: string) => /[^ ] /.test(piece.replaceAll(SPACE_MARK, " "));
  if (pieces.some(crosses) || specials.some(crosses)) return undefined;
  return (text, from = 0) => lastSpace(text, from, prefixed ? 1 : 0);
}

function byteLevel(words: Words, specials: readonly string[]): Cuts | undefined {
  const atSpaces = !specials.some((text) => /[A-Za-z] /.test(text)) && endsWords(words, SPACES);
  const atLines = !specials.some((text) => /\n\p{L}/u.test(text)) && endsWords(words, LINES);
  if (!atSpaces && !atLines) return undefined;
  return (text, from = 0) => {
    const space = atSpaces ? lastSpace(text, from, 0) : undefined;
    return atLines ? (lastLine(text, Math.max(from, space?.end ?? 0)) ?? space) : space;
  };
}

function lastSpace(text: string, from: number, skipped: 0 | 1): Cut | undefined {
  for (let at = text.lastIndexOf(" ", text.length - 2); at > from; at = text.lastIndexOf(" ", at - 1)) {
    if (LETTER.test(text[at - 1]) && LETTER.test(text[at + 1])) return { end: at, next: at + skipped };
  }
  return undefined;
}

function lastLine(text: string, from: number): Cut | undefined {
  for (
    let at = text.lastIndexOf("\n", text.length - 3);
    at >= from && at > 0;
    at = text.lastIndexOf("\n", at - 1)
  ) {
    if (BEFORE_LINE.test(text[at - 1]) && AFTER_LINE.test(text.slice(at + 1, at + 3)))
      return { end: at + 1, next: at + 1 };
  }
  return undefined;
}

const BEFORE = [
  "",
  "a ",
  "B",
  "1",
  "12",
  "!",
  " .",
  "\n",
  "\n\n",
  "  ",
  "a's",
  "\u4e2d",
  "e\u0301",
  "\t",
  "aB",
];
const AFTER = ["", " c", "'s", "1", ".", "\n", "  ", "\u0301", "\u4e2d", "/", "\r\n", "B"];
interface Sides {
  readonly lefts: readonly string[];
  readonly rights: readonly string[];
}
const SPACES: Sides = { lefts: ["a", "Z"], rights: [" a", " Z", " s"] };
const LINES: Sides = {
  lefts: ["a\n", "1\n", ".\n", "/\n", "\u4e2d\n", "\u0301\n"],
  rights: ["a", "Z", "s", "\u4e2d", "\u00e9"],
};

/** Whether texts cut at such places have the words of the whole. */
function endsWords(words: Words, { lefts, rights }: Sides): boolean {
  const joined = (...texts: string[]) => texts.flatMap((text) => [...words(text)]).join("\0");
  for (const left of BEFORE.flatMap((before) => lefts.map((end) => before + end))) {
    for (const right of AFTER.flatMap((after) => rights.map((start) => start + after))) {
      if (joined(left, right) !== joined(left + right)) return false;
    }
  }
  return true;
}
