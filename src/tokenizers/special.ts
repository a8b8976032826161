/** A token that is found in text by its spelling, before anything else is looked at. */
export interface Special {
  readonly id: number;
  readonly text: string;
}

/**
 * Cuts a text at the spellings of special tokens. Of overlapping ones counts
 *
 *   longest    the longest wherever it stands, then the leftmost: llama.cpp
 *   leftmost   the leftmost, of those at one place the longest: Hugging Face
 *
 * Gives texts and ids in their order, no empty text.
 */
export function specialCutter(
  specials: readonly Special[],
  first: "longest" | "leftmost" = "longest",
): (text: string) => (string | number)[] {
  const sorted = specials.filter(({ text }) => text !== "").sort((a, b) => b.text.length - a.text.length);
  const cut = first === "longest" ? longestFirst(sorted) : leftmostFirst(sorted);
  return (text) => cut(text).filter((part) => part !== "");
}

type Cut = (text: string) => (string | number)[];

function longestFirst(specials: readonly Special[]): Cut {
  return (text) => {
    let parts: (string | number)[] = [text];
    for (const { id, text: spelling } of specials) {
      if (!text.includes(spelling)) continue;
      const after: (string | number)[] = [];
      for (const part of parts) {
        if (typeof part === "number") after.push(part);
        else for (const [i, rest] of part.split(spelling).entries()) after.push(...(i > 0 ? [id] : []), rest);
      }
      parts = after;
    }
    return parts;
  };
}

function leftmostFirst(specials: readonly Special[]): Cut {
  if (specials.length === 0) return (text) => [text];
  const idOf = new Map<string, number>();
  const lengthsOf = new Map<string, Set<number>>(); // by the first unit, the greatest first
  for (const { id, text } of specials) {
    if (!idOf.has(text)) idOf.set(text, id);
    const lengths = lengthsOf.get(text[0]);
    if (lengths) lengths.add(text.length);
    else lengthsOf.set(text[0], new Set([text.length]));
  }
  const firsts = new RegExp(`[${[...lengthsOf.keys()].map(escaped).join("")}]`, "g");
  return (text) => {
    const parts: (string | number)[] = [];
    let from = 0;
    firsts.lastIndex = 0;
    for (let match = firsts.exec(text); match; match = firsts.exec(text)) {
      const at = match.index;
      for (const length of lengthsOf.get(match[0])!) {
        const id = idOf.get(text.slice(at, at + length));
        if (id === undefined) continue;
        parts.push(text.slice(from, at), id);
        from = firsts.lastIndex = at + length;
        break;
      }
    }
    parts.push(text.slice(from));
    return parts;
  };
}

/** A UTF-16 unit inside a character class. */
function escaped(unit: string): string {
  return `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`;
}

/**
 * Spellings of tokens at which a model ends its text or its turn. Files mark
 * them badly, so that llama.cpp knows them by name
 * (https://github.com/ggml-org/llama.cpp/blob/master/src/llama-vocab.cpp), and we do.
 */
const ENDS = new Set([
  "<|eot_id|>",
  "<|im_end|>",
  "<|end|>",
  "<|return|>",
  "<|call|>",
  "<|eom_id|>",
  "<|endoftext|>",
  "<|end_of_text|>",
  "<｜end▁of▁sentence｜>",
]);
/** The same where the file marks them as special; without a mark they may be pieces of ordinary text. */
const MARKED_ENDS = new Set([
  "<end_of_turn>",
  "<end_of_utterance>",
  "<eos>",
  "</s>",
  "<EOT>",
  "_<EOT>",
  "[EOT]",
  "[EOS]",
]);

/** Whether a token is an end by its name. */
export function isEnd(text: string, marked: boolean): boolean {
  return ENDS.has(text) || (marked && MARKED_ENDS.has(text));
}
