import { pauses } from "../record/pause.ts";
import type { Job } from "../record/record.ts";
import { InputError } from "../tensor/tensor.ts";
import { encodeLong, type Tokenizer, withStart } from "../tokenizers/tokenizer.ts";
import { type Drafter, MOST_GUESSES } from "./drafter.ts";
import { Sampler, type SamplingOptions } from "./sampling.ts";
import type { Session } from "./session.ts";
import { StopTexts } from "./stop.ts";
import { TextStream } from "./stream.ts";

export interface GenerateOptions extends SamplingOptions {
  /** Most tokens to make. Default: up to the end of the context. */
  readonly tokens?: number;
  /** Same seed, same text, at every number of threads, with and without speculation. Default 0. */
  readonly seed?: number;
  /** Texts that end the text where they would come; nothing of them is shown. */
  readonly stop?: readonly string[];
  /** Ids with which the model ends a text, beside the tokenizer's own. */
  readonly ends?: readonly number[];
  /** Ids at which the text is to end too. */
  readonly stopTokens?: readonly number[];
  /**
   * At the end of the context go on with its first `keep` tokens and the newer
   * half of the others, read again; default: the text ends there.
   */
  readonly shift?: { readonly keep: number };
}

/** Who guesses the next tokens, and how many at a time (1 to 7). The text is the same with every drafter and without. */
export interface Speculation {
  readonly drafter: Drafter;
  readonly guesses?: number;
}

/** Why a text ended: the model said so, a stop text or token came, the context is full, or as many tokens as asked for are made. */
export type End = "eos" | "stop" | "context" | "tokens";

/** One token as it is made. */
export interface Step {
  readonly id: number;
  /** The characters that this token completes; never a part of one. Empty for a token that ends the text. */
  readonly text: string;
  /** Logits that it was drawn from, before biases and penalties: (vocabulary). */
  readonly logits: Float32Array;
  /** On the last token: why it is the last. */
  readonly end?: End;
  /** With speculation: tokens guessed until now, and those of them that came true. */
  readonly guessed?: { readonly drafted: number; readonly accepted: number };
}

/**
 * Continues a sequence of tokens on a session, one token at a time. A text is
 * over at the end token, and at a start token, which begins another text.
 *
 *   for await (const { text } of generate(session, tokenizer, prompt)) process.stdout.write(text);
 *
 * An aborted signal ends it within one token by throwing the signal's reason.
 */
export async function* generate(
  session: Session,
  tokenizer: Tokenizer,
  prompt: Int32Array,
  options: GenerateOptions = {},
  job: Job = {},
  speculation?: Speculation,
): AsyncGenerator<Step, void, undefined> {
  const sampler = new Sampler(options, tokenizer, prompt, options.seed);
  const text = new Text(tokenizer, prompt, options);
  const limit = options.tokens ?? Number.POSITIVE_INFINITY;
  const mostGuesses = speculation?.guesses ?? MOST_GUESSES;
  if (speculation && !(Number.isInteger(mostGuesses) && mostGuesses >= 1 && mostGuesses <= MOST_GUESSES)) {
    throw new InputError(`speculation: guesses must be from 1 to ${MOST_GUESSES}, got ${mostGuesses}`);
  }
  const guessed = { drafted: 0, accepted: 0 };
  const pause = pauses(job);
  const silent = { signal: job.signal }; // once text streams, progress would be shown in the midst of it
  if (limit < 1) return;

  let sequence = Array.from(prompt);
  let made = 0;
  let guesses: readonly number[] = [];
  // Logits after what is certain, after it and the first guess, and so on.
  let rows = [await session.start(prompt, job)];
  for (;;) {
    for (const [n, logits] of rows.entries()) {
      await pause();
      const id = sampler.draw(logits);
      sampler.push(id);
      sequence.push(id);
      made++;
      const right = id === guesses[n];
      if (right) guessed.accepted++;
      const full = sequence.length >= session.capacity && !options.shift;
      const step = text.push(id, made >= limit ? "tokens" : full ? "context" : undefined);
      yield { id, ...step, logits, ...(speculation ? { guessed: { ...guessed } } : {}) };
      if (step.end) return;
      if (!right) break; // the rows behind it follow another token
    }
    if (sequence.length >= session.capacity) {
      sequence = shifted(sequence, options.shift?.keep ?? 0, session.capacity);
      guesses = [];
      rows = [await session.start(Int32Array.from(sequence), silent)];
      continue;
    }
    session.truncate(sequence.length - 1);
    const room = Math.min(mostGuesses, limit - made - 1, session.capacity - sequence.length - 1);
    guesses = speculation && room > 0 ? await speculation.drafter.draft(sequence, room, sampler, silent) : [];
    guessed.drafted += guesses.length;
    rows = await session.each(Int32Array.of(sequence[sequence.length - 1], ...guesses));
  }
}

/** The first `keep` tokens of a full context, half of it at most, and the newer half of the others, less one at least. */
export function shifted(sequence: readonly number[], keep: number, capacity: number): number[] {
  const first = Math.min(keep, capacity >> 1);
  const dropped = Math.max(1, Math.floor((sequence.length - first) / 2));
  return [...sequence.slice(0, first), ...sequence.slice(first + dropped)];
}

/** Puts the text of tokens together: whole characters, nothing of a stop text. */
class Text {
  readonly #tokenizer: Tokenizer;
  readonly #ends: ReadonlySet<number | undefined>;
  readonly #stopTokens: ReadonlySet<number>;
  readonly #characters = new TextStream();
  readonly #stops: StopTexts;
  /** A text that begins here has no space in front, though the vocabulary may write one. */
  #begins: boolean;

  constructor(tokenizer: Tokenizer, prompt: Int32Array, options: GenerateOptions) {
    const { stop = [], stopTokens = [], ends = [] } = options;
    if (stop.includes("")) throw new InputError("generate: a stop text must not be empty; leave it out");
    const wrong = stopTokens.find((id) => !Number.isInteger(id) || id < 0 || id >= tokenizer.vocabulary);
    if (wrong !== undefined) {
      throw new InputError(
        `generate: stop-token ${wrong} is no id, the vocabulary has 0 to ${tokenizer.vocabulary - 1}`,
      );
    }
    this.#tokenizer = tokenizer;
    this.#ends = new Set([tokenizer.eos, tokenizer.bos, ...(tokenizer.ends ?? []), ...ends]);
    this.#stopTokens = new Set(stopTokens);
    this.#stops = new StopTexts(stop);
    this.#begins = prompt.every((id) => tokenizer.bytes(id).length === 0);
  }

  /** What can be shown after one more token, and whether and why the text ends with it; `last`: it does anyway. */
  push(id: number, last: End | undefined): { text: string; end?: End } {
    if (this.#stopTokens.has(id)) return { text: this.#rest(), end: "stop" };
    if (this.#ends.has(id)) return { text: this.#rest(), end: "eos" };
    const { text, stopped } = this.#stops.push(this.#characters.push(this.#bytes(id)));
    if (stopped) return { text, end: "stop" };
    return last ? { text: text + this.#rest(), end: last } : { text };
  }

  #rest(): string {
    const { text, stopped } = this.#stops.push(this.#characters.end());
    return stopped ? text : text + this.#stops.end();
  }

  #bytes(id: number): Uint8Array {
    const bytes = this.#tokenizer.bytes(id);
    if (!this.#begins) return bytes;
    this.#begins = false;
    const spaced = bytes[0] === 0x20 && !this.#tokenizer.decode([id]).startsWith(" ");
    return spaced ? bytes.subarray(1) : bytes;
  }
}

/** Ids of a prompt: start token first, where the tokenizer has one. */
export function promptIds(tokenizer: Tokenizer, text: string): Int32Array {
  return withStart(tokenizer, text === "" ? new Int32Array() : tokenizer.encode(text));
}

/** The same for a text of any length: lets other work run, and throws the signal's reason once it is aborted. */
export async function longPromptIds(tokenizer: Tokenizer, text: string, job: Job): Promise<Int32Array> {
  return withStart(tokenizer, text === "" ? new Int32Array() : await encodeLong(tokenizer, text, job));
}
