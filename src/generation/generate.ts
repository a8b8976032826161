import { pauses } from "../record/pause.ts";
import type { Job } from "../record/record.ts";
import { generator } from "../tensor/random.ts";
import type { Tokenizer } from "../tokenizers/tokenizer.ts";
import { checkSampling, type SamplingOptions, sample } from "./sampling.ts";
import type { Session } from "./session.ts";
import { TextStream } from "./stream.ts";

export interface GenerateOptions extends SamplingOptions {
  /** Most tokens to make. Default: up to the end of the context. */
  readonly tokens?: number;
  /** Same seed, same text, at every number of threads. Default 0. */
  readonly seed?: number;
  /** Ids that end the text, beside the tokenizer's end and start tokens. */
  readonly stop?: readonly number[];
}

/** Why a text ended: the model said so, the context is full, or as many tokens as asked for are made. */
export type End = "eos" | "context" | "tokens";

/** One token as it is made. */
export interface Step {
  readonly id: number;
  /** The characters that this token completes; never a part of one. Empty for a token that ends the text. */
  readonly text: string;
  /** Logits that it was drawn from: (vocabulary). */
  readonly logits: Float32Array;
  /** On the last token: why it is the last. */
  readonly end?: End;
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
): AsyncGenerator<Step, void, undefined> {
  checkSampling(options);
  const stop = new Set([tokenizer.eos, tokenizer.bos, ...(options.stop ?? [])]);
  const random = generator(options.seed ?? 0);
  const limit = options.tokens ?? Number.POSITIVE_INFINITY;
  const pause = pauses(job);
  const stream = new TextStream();
  // A text that begins here has no space in front, though the vocabulary may write one.
  let begins = prompt.every((id) => tokenizer.bytes(id).length === 0);
  if (limit < 1) return;

  let logits = await session.start(prompt, job);
  for (let made = 1; ; made++) {
    await pause();
    const id = sample(logits, options, random);
    if (stop.has(id)) {
      yield { id, text: stream.end(), logits, end: "eos" };
      return;
    }
    let text = stream.push(begins ? firstBytes(tokenizer, id) : tokenizer.bytes(id));
    begins = false;
    const end = made >= limit ? "tokens" : prompt.length + made >= session.capacity ? "context" : undefined;
    if (end) {
      text += stream.end();
      yield { id, text, logits, end };
      return;
    }
    yield { id, text, logits };
    logits = await session.next(Int32Array.of(id));
  }
}

function firstBytes(tokenizer: Tokenizer, id: number): Uint8Array {
  const bytes = tokenizer.bytes(id);
  const spaced = bytes[0] === 0x20 && !tokenizer.decode([id]).startsWith(" ");
  return spaced ? bytes.subarray(1) : bytes;
}

/** Ids of a prompt: start token first, where the tokenizer has one. */
export function promptIds(tokenizer: Tokenizer, text: string): Int32Array {
  const ids = text === "" ? [] : tokenizer.encode(text);
  return Int32Array.from(tokenizer.bos === undefined ? ids : [tokenizer.bos, ...ids]);
}
