import { pauses } from "../record/pause.ts";
import type { Job } from "../record/record.ts";
import { InputError } from "../tensor/tensor.ts";
import { encodeLong, type Tokenizer, withStart } from "../tokenizers/tokenizer.ts";

/**
 * Tokens that a model sees together: each predicts the next one, and the
 * predictions of ids[first] … ids[last] are counted. The counted tokens of one
 * sequence are one cluster of the statistics.
 */
export interface Sequence {
  readonly ids: Int32Array;
  /** At least 1: nothing comes before ids[0]. */
  readonly first: number;
}

/** A text cut into sequences, and the bytes of it that the counted tokens stand for. */
export interface Sequences {
  readonly all: readonly Sequence[];
  readonly tokens: number;
  readonly bytes: number;
}

/** Number of counted tokens. */
export function counted({ ids, first }: Sequence): number {
  return ids.length - first;
}

/**
 * One running text in windows. Every token is predicted once, from at least
 * context − stride and at most `context` tokens before it (fewer at the start);
 * the first one from the start token where the tokenizer has one, else not at all.
 *
 *   window k sees the tokens from k·stride on, `context` of them, and is
 *   counted where the windows before it have not predicted yet
 */
export async function windows(
  text: string,
  tokenizer: Tokenizer,
  context: number,
  stride = context,
  job: Job = {},
): Promise<Sequences> {
  if (!Number.isInteger(context) || context < 1) {
    throw new InputError(`context: needs a whole number from 1, got ${context}`);
  }
  if (!Number.isInteger(stride) || stride < 1 || stride > context) {
    throw new InputError(`stride: needs a whole number from 1 to the context of ${context}, got ${stride}`);
  }
  const ids = withStart(tokenizer, await encodeLong(tokenizer, text, job));
  const all: Sequence[] = [];
  for (let from = 0, done = 1; done < ids.length; from += stride) {
    const end = Math.min(from + context + 1, ids.length);
    all.push({ ids: ids.subarray(from, end), first: done - from });
    done = end;
  }
  const unseen = tokenizer.bos === undefined ? tokenizer.bytes(ids[0]).length : 0;
  return atLeastOne({ all, tokens: ids.length - 1, bytes: byteLength(text) - unseen });
}

/**
 * Each document of a text for itself: stripped, start token first, cut to the
 * context (start token included). Empty ones are left out, and those after the
 * first `limit`.
 */
export async function documents(
  text: string,
  tokenizer: Tokenizer,
  context: number,
  separator: string,
  limit = Number.POSITIVE_INFINITY,
  job: Job = {},
): Promise<Sequences> {
  if (separator === "") throw new InputError("separator: needs at least one character, got none");
  if (!Number.isInteger(context) || context < 2) {
    throw new InputError(`context: documents need a whole number from 2, got ${context}`);
  }
  const all: Sequence[] = [];
  let bytes = 0;
  const pause = pauses(job);
  for (const part of text.split(separator)) {
    if (all.length >= limit) break;
    await pause();
    const document = part.trim();
    const ids = withStart(tokenizer, await encodeLong(tokenizer, document, job));
    const seen = ids.subarray(0, context);
    if (seen.length < 2) continue;
    all.push({ ids: seen, first: 1 });
    bytes += byteLength(document) - bytesOf(tokenizer, ids.subarray(seen.length));
    if (tokenizer.bos === undefined) bytes -= tokenizer.bytes(ids[0]).length;
  }
  return atLeastOne({ all, tokens: all.reduce((sum, sequence) => sum + counted(sequence), 0), bytes });
}

function bytesOf(tokenizer: Tokenizer, ids: Int32Array): number {
  let bytes = 0;
  for (const id of ids) bytes += tokenizer.bytes(id).length;
  return bytes;
}

function byteLength(text: string): number {
  return new TextEncoder().encode(text).length;
}

function atLeastOne(sequences: Sequences): Sequences {
  if (sequences.tokens < 1) throw new InputError("text: has no token to predict; give a longer one");
  return sequences;
}
