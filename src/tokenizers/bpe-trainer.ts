import { pauses } from "../record/pause.ts";
import type { Job } from "../record/record.ts";
import { InputError } from "../tensor/tensor.ts";
import { BYTE_CHARACTERS } from "./bytes.ts";
import type { TokenizerData } from "./tokenizer.ts";
import { WordTable, wordEnd } from "./words.ts";

/** Stands before a document; its id is 0. */
export const DOCUMENT = "<|document|>";

const BYTES_FROM = 1; // ids 1…256 are the bytes, in order
const PAIR = 0x10000; // a pair of ids as one number: left·65536 + right

/**
 * Byte-level byte-pair encoding: starting from bytes, the commonest pair of
 * neighbours inside words becomes a token, again and again (Sennrich et al.,
 * 2016, https://arxiv.org/abs/1508.07909, Algorithm 1). Of pairs equally common
 * the one with the lowest left id, then the lowest right id, is taken.
 *
 * Ids: 0 is `<|document|>`, 1…256 the bytes, then one for each merge. Gives
 * Hugging Face's tokenizer.json and tokenizer_config.json; fewer than `vocabulary` tokens when the text has
 * no pair left that occurs twice. Of texts with more than `mostWords` different words the rarest are not counted.
 */
export async function trainByteLevelBpe(
  texts: Iterable<string> | AsyncIterable<string>,
  vocabulary: number,
  job: Job = {},
  mostWords = MOST_WORDS,
): Promise<TokenizerData & { kind: "huggingface" }> {
  if (vocabulary < 257 || vocabulary > PAIR) {
    throw new InputError(
      `bpe: a vocabulary needs 257 to ${PAIR} tokens (256 bytes and ${DOCUMENT}), got ${vocabulary}`,
    );
  }
  const pause = pauses(job);
  const pairs = new PairCounts(await countedWords(texts, pause, mostWords));
  const pieces = [DOCUMENT, ...BYTE_CHARACTERS];
  const merges: string[] = [];
  const known = new Set(pieces);

  while (pieces.length < vocabulary) {
    await pause();
    const pair = pairs.commonest();
    if (pair === undefined) break;
    const [left, right] = [Math.floor(pair / PAIR), pair % PAIR];
    merges.push(`${pieces[left]} ${pieces[right]}`);
    const merged = pieces[left] + pieces[right];
    // Two ways to the same bytes would be two ids with one spelling, which a vocabulary cannot hold.
    const id = known.has(merged) ? pieces.indexOf(merged) : pieces.push(merged) - 1;
    known.add(merged);
    pairs.merge(pair, id);
  }
  const config = { tokenizer_class: "PreTrainedTokenizerFast", bos_token: DOCUMENT, eos_token: DOCUMENT };
  return { kind: "huggingface", tokenizer: tokenizerJson(pieces, merges), config };
}

/** Different words that are held; with what is known of their pairs about 150 MB. */
const MOST_WORDS = 500_000;

/** Words, and how often each occurs. */
class CountedWords {
  readonly #most: number;
  #table = new WordTable();
  #counts: Float64Array;

  constructor(most: number) {
    this.#most = most;
    this.#counts = new Float64Array(most + 1);
  }

  add(text: string): void {
    for (let at = 0; at < text.length; ) {
      const end = wordEnd(text, at);
      this.#counts[this.#table.add(text, at, end)]++;
      at = end;
      if (this.#table.size > this.#most) this.#forgetRare();
    }
  }

  get size(): number {
    return this.#table.size;
  }

  *[Symbol.iterator](): Generator<[word: string, count: number]> {
    for (let word = 0; word < this.#table.size; word++) yield [this.#table.text(word), this.#counts[word]];
  }

  /**
   * The rarest words, those that occurred once first, until half of them are
   * left (lossy counting, Manku and Motwani, 2002, https://doi.org/10.1016/B978-155860869-6/50038-X).
   */
  #forgetRare(): void {
    let rare = 0;
    for (let left = this.#table.size; left > this.#most / 2; ) {
      rare++;
      left = 0;
      for (let word = 0; word < this.#table.size; word++) if (this.#counts[word] > rare) left++;
    }
    const kept = new WordTable();
    const counts = new Float64Array(this.#most + 1);
    for (const [word, count] of this) if (count > rare) counts[kept.add(word, 0, word.length)] = count;
    this.#table = kept;
    this.#counts = counts;
  }
}

async function countedWords(
  texts: Iterable<string> | AsyncIterable<string>,
  pause: () => Promise<void>,
  most: number,
): Promise<CountedWords> {
  const words = new CountedWords(most);
  for await (const text of texts) {
    for (const part of text.split(DOCUMENT)) {
      await pause();
      words.add(part);
    }
  }
  return words;
}

/** How often each pair occurs, and in which words it may occur; kept true while words change. */
class PairCounts {
  /** Word w: its ids are symbols[begins[w]] …, lengths[w] of them; merging makes it shorter where it stands. */
  readonly #symbols: Uint16Array;
  readonly #begins: Uint32Array;
  readonly #lengths: Uint32Array;
  readonly #words: Float64Array;
  /** The merge that last looked at a word. */
  readonly #seen: Int32Array;
  #merges = 0;
  readonly #counts = new Map<number, number>();
  /** May name a word twice, or one in which the pair is no more. */
  readonly #wordsOf = new Map<number, number[]>();

  constructor(words: CountedWords) {
    const utf8 = new TextEncoder();
    let bytes = 0;
    for (const [word] of words) bytes += 3 * word.length; // at most
    this.#symbols = new Uint16Array(bytes);
    this.#begins = new Uint32Array(words.size);
    this.#lengths = new Uint32Array(words.size);
    this.#words = new Float64Array(words.size);
    this.#seen = new Int32Array(words.size);
    let begin = 0;
    let w = 0;
    for (const [word, count] of words) {
      const symbols = utf8.encode(word);
      for (const [i, byte] of symbols.entries()) this.#symbols[begin + i] = BYTES_FROM + byte;
      this.#begins[w] = begin;
      this.#lengths[w] = symbols.length;
      this.#words[w] = count;
      begin += symbols.length;
      this.#add(w++, 1);
    }
  }

  /** Counts a word's pairs, or takes them off; of the counted ones, those with `made` in them are new in the word. */
  #add(w: number, sign: 1 | -1, made?: number): void {
    const count = sign * this.#words[w];
    const end = this.#begins[w] + this.#lengths[w];
    for (let i = this.#begins[w]; i + 1 < end; i++) {
      const [left, right] = [this.#symbols[i], this.#symbols[i + 1]];
      const pair = left * PAIR + right;
      const total = (this.#counts.get(pair) ?? 0) + count;
      if (total === 0) this.#counts.delete(pair);
      else this.#counts.set(pair, total);
      if (sign === 1 && (made === undefined || made === left || made === right)) {
        const words = this.#wordsOf.get(pair);
        if (words === undefined) this.#wordsOf.set(pair, [w]);
        else if (words.at(-1) !== w) words.push(w);
      }
    }
  }

  commonest(): number | undefined {
    let best: number | undefined;
    let most = 1;
    for (const [pair, count] of this.#counts) {
      if (count > most || (count === most && best !== undefined && pair < best)) {
        best = pair;
        most = count;
      }
    }
    return best;
  }

  merge(pair: number, id: number): void {
    const [left, right] = [Math.floor(pair / PAIR), pair % PAIR];
    const words = this.#wordsOf.get(pair) ?? [];
    this.#wordsOf.delete(pair);
    this.#merges++;
    for (const w of words) {
      if (this.#seen[w] === this.#merges) continue;
      this.#seen[w] = this.#merges;
      this.#add(w, -1);
      const begin = this.#begins[w];
      const symbols = this.#symbols.subarray(begin, begin + this.#lengths[w]);
      let length = 0;
      for (let i = 0; i < symbols.length; i++) {
        const merges = symbols[i] === left && symbols[i + 1] === right;
        symbols[length++] = merges ? id : symbols[i];
        if (merges) i++;
      }
      this.#lengths[w] = length;
      this.#add(w, 1, id);
    }
  }
}

function tokenizerJson(pieces: readonly string[], merges: readonly string[]): object {
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: [
      {
        id: 0,
        content: DOCUMENT,
        single_word: false,
        lstrip: false,
        rstrip: false,
        normalized: false,
        special: true,
      },
    ],
    normalizer: null,
    pre_tokenizer: byteLevel,
    post_processor: null,
    decoder: byteLevel,
    model: bytePairModel(Object.fromEntries(pieces.map((piece, id) => [piece, id])), merges),
  };
}

/** The `model` of a byte-level tokenizer.json. */
export function bytePairModel(
  vocab: { readonly [piece: string]: number },
  merges: readonly (string | readonly string[])[],
): object {
  return {
    type: "BPE",
    dropout: null,
    unk_token: null,
    continuing_subword_prefix: null,
    end_of_word_suffix: null,
    fuse_unk: false,
    byte_fallback: false,
    vocab,
    merges,
  };
}
