import { InputError } from "../tensor/tensor.ts";

/** How a byte-level vocabulary cuts text into words before it merges; no merge crosses a cut. */
export interface PreTokenizer {
  /** Applied one after the other to what the one before left: every match is a word, and so is what lies between. */
  readonly stages: readonly (string | Cutter)[];
  /** A word that is a token as a whole is not put together by merges. */
  readonly ignoreMerges?: boolean;
  /** Whether a start token stands before a text when the file does not say. */
  readonly addBos?: boolean;
}

/** Ends of the words of a text, in order, for what no pattern says in linear time. */
export type Cutter = (text: string) => Generator<number>;

// The patterns stand as llama.cpp has them (src/llama-vocab.cpp, llm_tokenizer_bpe; September 2026), in the dialect
// that JavaScript, Oniguruma and tokenizer.json share; \s is Unicode's White_Space in all of them.
const GPT2 = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
const CONTRACTIONS = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])";
const LETTERS = "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+";
const OTHERS = " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*";
const SPACES = "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const LLAMA3 = `${CONTRACTIONS}|${LETTERS}|\\p{N}{1,3}|${OTHERS}|${SPACES}`;
const QWEN2 = `${CONTRACTIONS}|${LETTERS}|\\p{N}|${OTHERS}|${SPACES}`;
const QWEN35 = `${CONTRACTIONS}|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|${SPACES}`;
const ASCII_PUNCTUATION = "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~]";
const WORDS_WITH_MARKS = "[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+";
const DEEPSEEK3 = `${ASCII_PUNCTUATION}[A-Za-z]+|${WORDS_WITH_MARKS}| ?[\\p{P}\\p{S}]+[\\r\\n]*|${SPACES}`;
const CJK_AND_KANA = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+";
const CASED = (letter: string) =>
  [`*(?:(?=${letter})[^A-Z])+`, `+(?:(?=${letter})[^A-Z])*`].map(
    (rest) => `[^\\r\\n\\p{L}\\p{N}]?(?:(?=${letter})[^a-z])${rest}`,
  );
const GPT4O = (letter: string) =>
  `${CASED(letter)
    .map((words) => `${words}${CONTRACTIONS}?`)
    .join("|")}|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|${SPACES}`;
const TEKKEN = `${CASED("[\\p{L}]").join("|")}|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|${SPACES}`;
// llama.cpp knows one category of letters, so that two runs of differently cased ones are one.
const MARKED = `[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+${CONTRACTIONS}?`;
// Letters of DeepSeek's first tokenizers: those with case, as Unicode knew them then.
const CASED_LETTERS =
  "A-Za-z\u{b5}\u{c0}-\u{d6}\u{d8}-\u{f6}\u{f8}-\u{1ba}\u{1bc}-\u{1bf}\u{1c4}-\u{293}" +
  "\u{295}-\u{2af}\u{370}-\u{373}\u{376}\u{377}\u{37b}-\u{37d}\u{37f}\u{386}\u{388}-\u{38a}\u{38c}" +
  "\u{38e}-\u{3a1}\u{3a3}-\u{3f5}\u{3f7}-\u{481}\u{48a}-\u{52f}\u{531}-\u{556}\u{10a0}-\u{10c5}" +
  "\u{13a0}-\u{13f5}\u{13f8}-\u{13fd}\u{1c90}-\u{1cba}\u{1cbd}-\u{1cbf}\u{1d00}-\u{1d2b}" +
  "\u{1d6b}-\u{1d77}\u{1d79}-\u{1d9a}\u{1e00}-\u{1f15}\u{1f18}-\u{1f1d}\u{1f20}-\u{1f45}" +
  "\u{1f48}-\u{1f4d}\u{1f50}-\u{1f57}\u{1f59}\u{1f5b}\u{1f5d}\u{1f5f}-\u{1f7d}\u{1f80}-\u{1fb4}" +
  "\u{1fb6}-\u{1fbc}\u{1fbe}\u{1fc2}-\u{1fc4}\u{1fc6}-\u{1fcc}\u{1fd0}-\u{1fd3}\u{1fd6}-\u{1fdb}" +
  "\u{1fe0}-\u{1fec}\u{1ff2}-\u{1ff4}\u{1ff6}-\u{1ffc}\u{2102}\u{2107}\u{210a}-\u{2113}\u{2115}" +
  "\u{2119}-\u{211d}\u{2124}\u{2126}\u{2128}\u{212a}-\u{212d}\u{212f}-\u{2134}\u{2139}" +
  "\u{213c}-\u{213f}\u{2145}-\u{2149}\u{214e}\u{2183}\u{2184}\u{2c00}-\u{2c7b}\u{2c7e}-\u{2ce4}" +
  "\u{2ceb}-\u{2cee}\u{2cf2}\u{2cf3}\u{a640}-\u{a66d}\u{a680}-\u{a69b}\u{a722}-\u{a76f}" +
  "\u{a771}-\u{a787}\u{a78b}-\u{a78e}\u{ab70}-\u{abbf}\u{fb00}-\u{fb06}\u{fb13}-\u{fb17}" +
  "\u{ff21}-\u{ff3a}\u{ff41}-\u{ff5a}\u{10400}-\u{1044f}\u{104b0}-\u{104d3}\u{104d8}-\u{104fb}" +
  "\u{10c80}-\u{10cb2}\u{10cc0}-\u{10cf2}\u{118a0}-\u{118df}\u{1e900}-\u{1e943}";
// Where a range spans Unicode's spaces, llama.cpp has put others in their place before it looks.
const EAST_ASIAN = "(?:(?!\\s)[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff])+";
const SENTENCE_MARKS = " ?(?:(?!\\s)[^(|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)])+";
const HAN =
  "\u4e00-\u9fff\u3400-\u4dbf\u{20000}-\u{2a6df}\u{2a700}-\u{2ebef}\uf900-\ufaff\u{2f800}-\u{2fa1f}";
const KIMI = [
  `[${HAN}]+`,
  `[^\\r\\n\\p{L}\\p{N}]?(?:(?![${HAN}])\\p{L})+${CONTRACTIONS}?`,
  `\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*`,
  SPACES,
].join("|");
const SOUTH_EAST_ASIAN =
  "[\u4e00-\u9fff\u3400-\u4dbf\u8c48-\ufaff\u3040-\u309f\u30a0-\u30ff\uff65-\uff9f\u2f00-\u2fdf\u0e40-\u0e7f\u0e80-\u0eff" +
  "\u1780-\u17ff\u1000-\u109f\uaa60-\uaa7f\ua9e0-\ua9ff\uac00-\ud7af\u1100-\u11ff]+";

const gpt2: PreTokenizer = { stages: [GPT2] };
const digits: PreTokenizer = { stages: ["\\p{N}", GPT2] };
const llama3: PreTokenizer = { stages: [LLAMA3], ignoreMerges: true, addBos: true };
const qwen2: PreTokenizer = { stages: [QWEN2] };
const deepseek3: PreTokenizer = { stages: ["\\p{N}{1,3}", CJK_AND_KANA, DEEPSEEK3] };
const bloom: PreTokenizer = { stages: [SENTENCE_MARKS] };
const gpt4o: PreTokenizer = { stages: [GPT4O("[\\p{L}]")] };
const bailing: PreTokenizer = {
  stages: [
    `'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|${LETTERS}|\\p{N}|${OTHERS}|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+`,
  ],
};
const tinyAya: PreTokenizer = {
  stages: [digitGroups, `${MARKED}|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|${SPACES}`],
};

/** By the names of `tokenizer.ggml.pre`. */
const PRE_TOKENIZERS: Readonly<Record<string, PreTokenizer>> = {
  default: { stages: ["[\\p{P}\\$\\+<=>\\^~\\|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]"] },

  "gpt-2": gpt2,
  "phi-2": gpt2,
  "jina-es": gpt2,
  "jina-de": gpt2,
  "jina-v1-en": gpt2,
  "jina-v2-es": gpt2,
  "jina-v2-de": gpt2,
  "jina-v2-code": gpt2,
  "roberta-bpe": gpt2,
  "a.x-4.0": gpt2,
  "modern-bert": gpt2,
  "granite-docling": gpt2,
  gigachat: gpt2,
  mellum: gpt2,
  mpt: gpt2,
  olmo: gpt2,
  jais: gpt2,
  trillion: gpt2,
  exaone4: gpt2,

  starcoder: digits,
  refact: digits,
  "command-r": digits,
  smollm: digits,
  codeshell: digits,
  exaone: digits,
  "minerva-7b": digits,
  mellum2: digits,

  "llama-bpe": llama3,
  "llama-v3": llama3,
  llama3,
  falcon3: llama3,
  "falcon-h1": llama3,
  pixtral: llama3,
  "midm-2.0": llama3,
  lfm2: llama3,
  "jina-v5-nano": llama3,
  dbrx: { stages: [LLAMA3] },
  "smaug-bpe": { stages: [LLAMA3] },
  glm4: { stages: [LLAMA3] },
  "chatglm-bpe": { stages: [LLAMA3] },
  "jais-2": {
    stages: [
      `${CONTRACTIONS}|${LETTERS}|\\p{N}{1,3}|${OTHERS}|\\s*[\\r\\n]+|${[
        512,
        256,
        128,
        64,
        32,
        16,
        8,
        4,
        "1,2",
      ]
        .map((n) => `\\s{${n}}(?!\\S)`)
        .join("|")}|\\s{1}`,
    ],
  },
  minicpm5: {
    stages: ["\\p{N}{1,3}", `${CONTRACTIONS}|${LETTERS}|\\p{N}+|${OTHERS}|${SPACES}`],
    ignoreMerges: true,
  },

  qwen2,
  "deepseek-r1-qwen": qwen2,
  kormo: qwen2,
  f2llmv2: qwen2,
  megrez: qwen2,
  stablelm2: qwen2,
  hunyuan: qwen2,
  "solar-open": qwen2,
  "grok-2": qwen2,
  qwen35: { stages: [QWEN35] },
  laguna: { stages: ["[^\\n]+|[\\n]+", QWEN2] },
  ufakzeka: { stages: [`${LETTERS}|\\p{N}|${OTHERS}|${SPACES}`] },
  bailingmoe: bailing,
  bailingmoe2: bailing,
  "llada-moe": bailing,
  "seed-coder": {
    stages: [`${CONTRACTIONS}|${LETTERS}|\\p{N}{1}| ?[^\\s\\p{L}\\p{N}\\r\\n]+|${SPACES}`],
  },
  "exaone-moe": {
    stages: [
      `${CONTRACTIONS}|[^\\r\\n\\p{L}\\p{N}]?(?:\\p{L}\\p{M}*(?: \\p{L}\\p{M}*)*)+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]?|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+`,
    ],
  },

  "deepseek-llm": {
    stages: [
      "[\\r\\n]",
      `\\s?[${CASED_LETTERS}]+`,
      "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3001\u3002]+",
      "\\s+$",
      EAST_ASIAN,
      "\\p{N}+",
    ],
  },
  "deepseek-coder": { stages: ["[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", EAST_ASIAN, "\\p{N}"] },
  "deepseek-v3": deepseek3,
  "hunyuan-dense": deepseek3,
  hy_v4: deepseek3,
  "joyai-llm": deepseek3,
  spark2_5: {
    stages: [
      "\\p{N}{1,3}",
      CJK_AND_KANA,
      `${ASCII_PUNCTUATION}[A-Za-z]+|${WORDS_WITH_MARKS}| ?[\\p{P}\\p{S}]+|[\\r\\n]|\\s+(?!\\S)|\\s+`,
      "\\p{N}",
    ],
  },
  youtu: {
    stages: [
      `[\uac00-\ud7a3\u3131-\u318e]+|[\uff01\u2026\u201c\u201d\u2018\u2019\u2014\uff1a\uff1b\uff0c\u3001-\u303f\ufe30-\ufe4f]+|[\u3105-\u312f]+|${CJK_AND_KANA}`,
      `${MARKED}|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|${SPACES}`,
    ],
    ignoreMerges: true,
  },
  afmoe: { stages: [digitGroups, SOUTH_EAST_ASIAN, DEEPSEEK3] },
  "kimi-k2": { stages: [KIMI] },

  falcon: { stages: ["[\\p{P}\\$\\+<=>\\^~\\|`]+", GPT2, "[0-9][0-9][0-9]"] },
  chameleon: {
    stages: [
      "<sentinel:[0-9]+>",
      "IMGIMG[A-I]{1,4}Z",
      "[\\t\\n]|    |  ",
      "\\p{N}",
      "[\\p{P}!-/:-@\\[-`{-~]",
      GPT2,
    ],
    addBos: true,
  },
  bloom,
  "poro-chat": bloom,
  "gpt3-finnish": bloom,
  viking: { stages: [SENTENCE_MARKS, "\\p{N}"] },

  tekken: { stages: [TEKKEN], ignoreMerges: true, addBos: true },
  "gpt-4o": gpt4o,
  llama4: gpt4o,
  kanana2: gpt4o,
  talkie: gpt4o,
  "minimax-m2": gpt4o,
  "granite-embed-multi-97m": { stages: [GPT4O("[\\p{L}\\p{M}]")], ignoreMerges: true },
  tiny_aya: tinyAya,
  cohere2moe: tinyAya,
};

interface PreTokenizerJson {
  readonly type?: unknown;
  readonly pretokenizers?: readonly PreTokenizerJson[];
  readonly add_prefix_space?: boolean;
  readonly use_regex?: boolean;
  readonly individual_digits?: boolean;
  readonly pattern?: { readonly Regex?: string };
  readonly behavior?: string;
  readonly invert?: boolean;
}

/**
 * Patterns of a tokenizer.json's pre-tokenizer in the spelling of this file;
 * undefined when it is not byte-level or does more than cut.
 */
export function stagesOf(json: unknown): string[] | undefined {
  const { type, pretokenizers, ...step } = (json ?? {}) as PreTokenizerJson;
  const steps = Array.isArray(pretokenizers) ? pretokenizers : [{ type, ...step }];
  const last = steps.at(-1);
  if (last?.type !== "ByteLevel" || last.add_prefix_space !== false) return undefined;
  const stages: string[] = [];
  for (const { type, individual_digits, pattern, behavior, invert } of steps.slice(0, -1)) {
    if (type === "Digits") stages.push(individual_digits ? "\\p{N}" : "\\p{N}+");
    else if (type === "Split" && typeof pattern?.Regex === "string" && behavior === "Isolated" && !invert)
      stages.push(spelledHere(pattern.Regex));
    else return undefined;
  }
  return last.use_regex === false ? stages : [...stages, GPT2];
}

/** Patterns as their authors publish them, where the table has them otherwise. */
const PUBLISHED: readonly (readonly [string, string])[] = [
  [
    "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+",
    "(?:(?=[\\p{L}])[^a-z])*(?:(?=[\\p{L}])[^A-Z])+",
  ],
  [
    "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*",
    "(?:(?=[\\p{L}])[^a-z])+(?:(?=[\\p{L}])[^A-Z])*",
  ],
  ["(?i:'s|'t|'re|'ve|'m|'ll|'d)", CONTRACTIONS],
];

function spelledHere(pattern: string): string {
  return PUBLISHED.reduce((text, [theirs, ours]) => text.replaceAll(theirs, ours), pattern)
    .replaceAll("\r", "\\r")
    .replaceAll("\n", "\\n");
}

/** Names under which a pre-tokenizer of these patterns goes, the first one the most usual. */
export function namesOf(stages: readonly string[], ignoreMerges: boolean): string[] {
  return Object.keys(PRE_TOKENIZERS).filter((name) => {
    const known = PRE_TOKENIZERS[name];
    return (known.ignoreMerges ?? false) === ignoreMerges && known.stages.join("\n") === stages.join("\n");
  });
}

/** All names that `preTokenizer` knows. */
export const preTokenizerNames: readonly string[] = Object.keys(PRE_TOKENIZERS);

/** The pre-tokenizer of a name; an InputError for one that is not known, since a guess would give other ids. */
export function preTokenizer(name: string): PreTokenizer {
  if (Object.hasOwn(PRE_TOKENIZERS, name)) return PRE_TOKENIZERS[name];
  throw new InputError(
    `tokenizer: the pre-tokenizer ${JSON.stringify(name.slice(0, 60))} is not known; use a file converted with another one`,
  );
}

/** Words of a text, in order; together they are the text. */
export type Words = (text: string) => Iterable<string>;

/** The stages from one on as a function: O(length of the text). */
export function wordsOf({ stages }: PreTokenizer, from = 0, to = stages.length): Words {
  let words: Words = (text) => (text === "" ? [] : [text]);
  for (const stage of stages.slice(from, to)) {
    const before = words;
    const cut = typeof stage === "string" ? matches(stage) : stage;
    words = function* (text) {
      for (const word of before(text)) {
        let from = 0;
        for (const to of cut(word)) {
          if (to > from) yield word.slice(from, to);
          from = Math.max(from, to);
        }
        if (from < word.length) yield word.slice(from);
      }
    };
  }
  return words;
}

/** Ends of a pattern's matches, and of what lies between them. */
function matches(pattern: string): Cutter {
  const unicode = pattern.replaceAll("\\s", "\\p{White_Space}").replaceAll("\\S", "\\P{White_Space}");
  const expression = new RegExp(unicode, "gu");
  return function* (text) {
    for (let at = 0; at < text.length; ) {
      const match = matchFrom(expression, text, at);
      if (match === null) return;
      yield match.index;
      at = match.index + match[0].length;
      yield at;
    }
  };
}

function matchFrom(expression: RegExp, text: string, at: number): RegExpExecArray | null {
  expression.lastIndex = at;
  try {
    return expression.exec(text);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    // The engine remembers every character of a run, up to a few millions.
    throw new InputError("tokenizer: a word of the text has millions of characters; split it");
  }
}

/**
 * Cuts numbers into groups of three from their ends: 1234567 is 1, 234, 567.
 * What stands before a number stays with its first group, as in llama.cpp; the next stage cuts it off.
 */
function* digitGroups(text: string): Generator<number> {
  for (const { index, 0: number } of text.matchAll(/\p{N}+/gu)) {
    const ends: number[] = [];
    let at = index;
    for (const digit of number) ends.push((at += digit.length));
    for (let i = ((ends.length + 2) % 3) + 1; i <= ends.length; i += 3) yield ends[i - 1];
  }
}
