import { readSentencePiece, readTokBin } from "../../src/files/sentencepiece.ts";
import { readTokenizerJson } from "../../src/files/tokenizer-files.ts";
import { tokenizerFrom } from "../../src/tokenizers/index.ts";
import type { TokenizerData } from "../../src/tokenizers/tokenizer.ts";
import { type Damage, Entries, jsonText, Writer } from "./damage.ts";
import { fileOf, type Target } from "./target.ts";

const TEXTS = ["", "a", "abab  ba\n", "The <s>cat</s> é漢\u{1f600} 12", " ".repeat(40), "ab".repeat(200)];

/** Makes the tokenizer and uses all of it. */
export function useTokenizer(data: TokenizerData): void {
  const tokenizer = tokenizerFrom(data);
  for (const text of TEXTS) tokenizer.decode(tokenizer.encode(text));
  for (const id of [-1, 0, 1, 2, 300, tokenizer.vocabulary - 1, tokenizer.vocabulary, tokenizer.bos ?? 0]) {
    tokenizer.bytes(id);
    tokenizer.piece(id);
  }
}

/** Pieces of a small vocabulary, with what real ones hold: bytes, words with a mark, characters of several bytes. */
export function pieces(d: Damage, mark: string): string[] {
  const letters = [
    "a",
    "b",
    "T",
    "h",
    "e",
    mark,
    "é",
    "漢",
    "ab",
    `${mark}a`,
    "ba",
    "abab",
    "Th",
    "The",
    `${mark}${mark}`,
  ];
  return d.list(letters.slice(0, d.whole(1, letters.length))).map((piece) => d.text(piece));
}

export const sentencepiece: Target = {
  name: "sentencepiece",
  begins: /^(fuzz\.model|tokenizer): /,
  make(d) {
    const utf8 = new TextEncoder();
    const out = new Writer();
    const message = (number: number, inner: Writer) =>
      out
        .varint(d.number(8 * number + 2))
        .varint(d.number(inner.length))
        .raw(inner.bytes());
    const piece = (text: string, score: number, type: number) => {
      const bytes = utf8.encode(text);
      const inner = new Writer();
      for (const field of d.list([1, 2, 3])) {
        if (field === 1) inner.varint(d.number(10)).varint(d.number(bytes.length)).raw(bytes);
        else if (field === 2) inner.varint(d.number(21)).f32(d.float(score));
        else inner.varint(d.number(24)).varint(d.number(type));
      }
      message(1, inner);
    };
    piece("<unk>", 0, 2);
    piece("<s>", 0, 3);
    piece("</s>", 0, 3);
    const fallback = d.chance(0.3);
    if (fallback)
      for (let b = 0; b < 256; b += 1) piece(`<0x${b.toString(16).toUpperCase().padStart(2, "0")}>`, 0, 6);
    for (const [i, text] of pieces(d, "▁").entries()) piece(text, -i, d.chance(0.1) ? 4 : 1);
    const trainer = new Writer();
    for (const [field, value] of [
      [3, d.whole(1, 2)],
      [24, 0],
      [35, fallback ? 1 : 0],
      [40, 0],
      [41, d.pick([1, -1])],
      [42, 2],
    ]) {
      trainer.varint(d.number(8 * field)).varint(d.number(value));
    }
    message(2, trainer);
    message(
      3,
      new Writer()
        .varint(8 * 3)
        .varint(d.whole(0, 1))
        .varint(8 * 4)
        .varint(d.whole(0, 1)),
    );
    return d.bytes(out.bytes(), out.marks);
  },
  async read(made) {
    useTokenizer(readSentencePiece(fileOf(made), "fuzz.model"));
  },
};

export const tokBin: Target = {
  name: "tok-bin",
  begins: /^(fuzz\.bin|tokenizer): /,
  make(d) {
    const utf8 = new TextEncoder();
    const out = new Writer().u32(d.number(27));
    const bytes = d.chance(0.2)
      ? Array.from({ length: 256 }, (_, b) => `<0x${b.toString(16).toUpperCase().padStart(2, "0")}>`)
      : [];
    for (const [i, text] of ["<unk>", "\n<s>\n", "\n</s>\n", ...bytes, ...pieces(d, " ")].entries()) {
      const spelled = utf8.encode(text);
      out.f32(d.float(-i)).u32(d.number(spelled.length)).raw(spelled);
    }
    return d.bytes(out.bytes(), out.marks);
  },
  async read(made) {
    useTokenizer(readTokBin(fileOf(made), "fuzz.bin"));
  },
};

/** A list in an object in a list …: a sequence of parts, with the part itself inside. */
const sequence = (type: string, key: string) => (d: Damage, parts: readonly unknown[]) =>
  d.json({ type: d.json(type), [key]: d.json(d.list(parts).map((part) => d.json(part))) });

const NORMALIZERS = [
  { type: "Prepend", prepend: "▁" },
  { type: "Replace", pattern: { String: " " }, content: "▁" },
  { type: "Replace", pattern: { Regex: " {2,}" }, content: " " },
  { type: "NFC" },
  { type: "NFKC" },
  { type: "Lowercase" },
  { type: "Strip", strip_left: true, strip_right: true },
  {
    type: "BertNormalizer",
    clean_text: true,
    handle_chinese_chars: true,
    strip_accents: null,
    lowercase: true,
  },
  { type: "Precompiled", precompiled_charsmap: "" },
];
const PRE_TOKENIZERS = [
  { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true },
  { type: "Metaspace", replacement: "▁", prepend_scheme: "always", split: true },
  { type: "Split", pattern: { Regex: "\\p{L}+|\\p{N}{1,3}|\\s+" }, behavior: "Isolated", invert: false },
  { type: "Split", pattern: { String: " " }, behavior: "MergedWithPrevious", invert: false },
  { type: "Digits", individual_digits: true },
  { type: "Whitespace" },
  { type: "WhitespaceSplit" },
  { type: "BertPreTokenizer" },
  { type: "Punctuation", behavior: "Isolated" },
];
const DECODERS = [
  { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
  { type: "Replace", pattern: { String: "▁" }, content: " " },
  { type: "ByteFallback" },
  { type: "Fuse" },
  { type: "Strip", content: " ", start: 1, stop: 0 },
  { type: "Metaspace", replacement: "▁", prepend_scheme: "always", split: true },
  { type: "WordPiece", prefix: "##", cleanup: true },
];

export const tokenizerJson: Target = {
  name: "tokenizer-json",
  begins: /^tokenizer(_config)?(\.json)?: /,
  make(d) {
    const stage = (parts: readonly object[], key: string) => {
      const copy = (part: object) =>
        d.json(Object.fromEntries(Object.entries(part).map(([name, value]) => [name, d.json(value)])));
      if (d.chance(0.3)) return d.json(null);
      if (d.chance(0.5)) return copy(d.pick(parts));
      return sequence("Sequence", key)(d, [copy(d.pick(parts)), copy(d.pick(parts))]);
    };
    const vocabulary = ["<unk>", "<s>", "</s>", ...pieces(d, d.pick(["▁", "Ġ"]))];
    const kind = d.pick(["BPE", "Unigram", "WordPiece", "WordLevel"]);
    const vocab =
      kind === "Unigram"
        ? d.list(vocabulary).map((piece, i) => d.json([d.json(piece), d.json(-i)]))
        : new Entries(d.list(vocabulary.map((piece, i): [string, unknown] => [piece, d.json(i)])));
    const spaced = d.chance(0.5);
    const merges = vocabulary
      .filter((piece) => [...piece].length > 1)
      .map((piece) => {
        const cut = d.whole(1, piece.length - 1);
        const pair = [piece.slice(0, cut), piece.slice(cut)];
        return d.json(spaced ? pair.join(" ") : pair.map((half) => d.json(half)));
      });
    const model = new Entries(
      d.list<[string, unknown]>([
        ["type", d.json(kind)],
        ["vocab", d.json(vocab)],
        ["merges", d.json(d.list(merges))],
        ["unk_token", d.json("<unk>")],
        ["unk_id", d.json(0)],
        ["byte_fallback", d.json(d.chance(0.5))],
        ["continuing_subword_prefix", d.json(kind === "WordPiece" ? "##" : null)],
        ["end_of_word_suffix", d.json(null)],
        ["max_input_chars_per_word", d.json(100)],
        ["ignore_merges", d.json(false)],
      ]),
    );
    const added = ["<unk>", "<s>", "</s>"].map((content, id) =>
      d.json({
        id: d.json(id),
        content: d.json(content),
        single_word: d.json(false),
        lstrip: d.json(false),
        rstrip: d.json(false),
        normalized: d.json(false),
        special: d.json(true),
      }),
    );
    const file = new Entries(
      d.list<[string, unknown]>([
        ["version", d.json("1.0")],
        ["truncation", d.json(null)],
        ["padding", d.json(null)],
        ["added_tokens", d.json(d.list(added))],
        ["normalizer", stage(NORMALIZERS, "normalizers")],
        ["pre_tokenizer", stage(PRE_TOKENIZERS, "pretokenizers")],
        ["post_processor", d.json(null)],
        ["decoder", stage(DECODERS, "decoders")],
        ["model", d.json(model)],
      ]),
    );
    const config = new Entries(
      d.list<[string, unknown]>([
        ["bos_token", d.json("<s>")],
        ["eos_token", d.json(d.chance(0.5) ? "</s>" : { content: d.json("</s>") })],
        ["add_bos_token", d.json(true)],
        ["tokenizer_class", d.json(d.pick(["LlamaTokenizer", "GPT2Tokenizer", "PreTrainedTokenizerFast"]))],
        ["clean_up_tokenization_spaces", d.json(false)],
      ]),
    );
    const utf8 = (value: unknown) => d.bytes(new TextEncoder().encode(jsonText(value)));
    return new Map([
      ["tokenizer.json", utf8(d.json(file))],
      ["tokenizer_config.json", utf8(d.json(config))],
    ]);
  },
  async read(made) {
    const files = made as ReadonlyMap<string, Uint8Array>;
    useTokenizer(
      readTokenizerJson(files.get("tokenizer.json")!, "tokenizer.json", files.get("tokenizer_config.json")),
    );
  },
};
