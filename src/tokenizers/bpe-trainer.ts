import { pauses } from "../record/pause.ts";
import type { Job } from "../record/record.ts";
import { InputError } from "../tensor/tensor.ts";
import { BYTE_CHARACTERS } from "./bytes.ts";
import type { TokenizerData } from "./tokenizer.ts";

/** How GPT-2 cuts a text into words; no merge crosses a cut (Radford et al., 2019, https://github.com/openai/gpt-2). */
export const WORD = /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+/gu;

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
 * no pair left that occurs twice.
 */
export async function trainByteLevelBpe(
  texts: Iterable<string> | AsyncIterable<string>,
  vocabulary: number,
  job: Job = {},
): Promise<TokenizerData & { kind: "huggingface" }> {
  if (vocabulary < 257 || vocabulary > PAIR) {
    throw new InputError(
      `bpe: a vocabulary needs 257 to ${PAIR} tokens (256 bytes and ${DOCUMENT}), got ${vocabulary}`,
    );
  }
  const pause = pauses(job);
  const words = await countedWords(texts, pause);
  const pairs = new PairCounts(words);
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

interface Word {
  readonly count: number;
  symbols: number[];
}

async function countedWords(
  texts: Iterable<string> | AsyncIterable<string>,
  pause: () => Promise<void>,
): Promise<Word[]> {
  const counts = new Map<string, number>();
  for await (const text of texts) {
    for (const part of text.split(DOCUMENT)) {
      await pause();
      for (const [word] of part.matchAll(WORD)) counts.set(word, (counts.get(word) ?? 0) + 1);
    }
  }
  const utf8 = new TextEncoder();
  return Array.from(counts, ([word, count]) => ({
    count,
    symbols: Array.from(utf8.encode(word), (byte) => BYTES_FROM + byte),
  }));
}

/** How often each pair occurs, and in which words it may occur; kept true while words change. */
class PairCounts {
  readonly #words: readonly Word[];
  readonly #counts = new Map<number, number>();
  readonly #wordsOf = new Map<number, Set<number>>();

  constructor(words: readonly Word[]) {
    this.#words = words;
    for (const w of words.keys()) this.#add(w, 1);
  }

  #add(w: number, sign: 1 | -1): void {
    const { symbols, count } = this.#words[w];
    for (let i = 0; i + 1 < symbols.length; i++) {
      const pair = symbols[i] * PAIR + symbols[i + 1];
      const total = (this.#counts.get(pair) ?? 0) + sign * count;
      if (total === 0) this.#counts.delete(pair);
      else this.#counts.set(pair, total);
      if (sign === 1) {
        const words = this.#wordsOf.get(pair);
        if (words) words.add(w);
        else this.#wordsOf.set(pair, new Set([w]));
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
    const left = Math.floor(pair / PAIR);
    const right = pair % PAIR;
    for (const w of this.#wordsOf.get(pair) ?? []) {
      this.#add(w, -1);
      const { symbols } = this.#words[w];
      const merged: number[] = [];
      for (let i = 0; i < symbols.length; i++) {
        if (symbols[i] === left && symbols[i + 1] === right) {
          merged.push(id);
          i++;
        } else merged.push(symbols[i]);
      }
      this.#words[w].symbols = merged;
      this.#add(w, 1);
    }
    this.#wordsOf.delete(pair);
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
