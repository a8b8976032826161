import { openModel, openTokenizer } from "../files/index.ts";
import { baseName, startRecord } from "../record/make.ts";
import { pauses } from "../record/pause.ts";
import type { Job, Record } from "../record/record.ts";
import { InputError } from "../tensor/tensor.ts";
import { encodeLong, type Tokenizer, tokenizerFrom } from "../tokenizers/index.ts";

interface Vocabulary {
  /** A model, or a tokenizer's own file. */
  readonly model: string;
  /** Tokenizer's file, for models that come without one. */
  readonly tokenizer?: string;
}

export interface TokenizeOptions extends Vocabulary {
  readonly text: string;
  /** Whether spellings of control tokens in the text are read as those tokens. Default: as the vocabulary has it. */
  readonly special?: boolean;
}

export interface TokenizeResult {
  /** Ids of the text; no start token in front. */
  readonly ids: readonly number[];
  /** Each id's entry as the vocabulary spells it. */
  readonly pieces: readonly string[];
  /** Number of ids that the vocabulary has. */
  readonly vocabulary: number;
  /** What generation puts before a text and takes for its end, where the vocabulary has them. */
  readonly bos?: number;
  readonly eos?: number;
}

export interface DetokenizeOptions extends Vocabulary {
  readonly ids: readonly number[];
}

export interface DetokenizeResult {
  readonly text: string;
  /** Ids that were read. */
  readonly tokens: number;
}

/** Ids and pieces of a text. Needs a model's vocabulary, not its weights. */
export async function tokenize(options: TokenizeOptions, job: Job = {}): Promise<Record<TokenizeResult>> {
  const { text, ...settings } = named(options);
  const finish = startRecord("tokenize", settings);
  const tokenizer = await vocabularyOf(options, job);
  const { special } = options;
  const encoded = await encodeLong(tokenizer, text, job, special === undefined ? {} : { special });
  const pause = pauses(job);
  const ids: number[] = [];
  const pieces: string[] = [];
  for (const id of encoded) {
    if (ids.length % 10_000 === 0) await pause();
    ids.push(id);
    pieces.push(tokenizer.piece(id));
  }
  const { vocabulary, bos, eos } = tokenizer;
  return finish(undefined, {}, { ids, pieces, vocabulary, bos, eos });
}

/** The text that ids stand for. Throws an InputError for an id that the vocabulary does not have. */
export async function detokenize(
  options: DetokenizeOptions,
  job: Job = {},
): Promise<Record<DetokenizeResult>> {
  const { ids, ...settings } = named(options);
  const finish = startRecord("detokenize", settings);
  const tokenizer = await vocabularyOf(options, job);
  const wrong = ids.find((id) => !Number.isInteger(id) || id < 0 || id >= tokenizer.vocabulary);
  if (wrong !== undefined) {
    throw new InputError(
      `tokenize: ${wrong} is not an id; the vocabulary has 0 to ${tokenizer.vocabulary - 1}`,
    );
  }
  return finish(undefined, {}, { text: tokenizer.decode(ids), tokens: ids.length });
}

function named<Options extends Vocabulary>(options: Options): Options {
  const { model, tokenizer } = options;
  return {
    ...options,
    model: baseName(model),
    ...(tokenizer === undefined ? {} : { tokenizer: baseName(tokenizer) }),
  };
}

/** What has to be opened as a model to find its vocabulary; of anything else the tokenizer is read alone. */
const MODEL_ONLY = /^(?:hf|bundled):|\.(?:bin|safetensors)$/;

async function vocabularyOf({ model, tokenizer }: Vocabulary, job: Job): Promise<Tokenizer> {
  job.signal?.throwIfAborted();
  const file = tokenizer ?? (MODEL_ONLY.test(model) ? undefined : model);
  if (file !== undefined) return tokenizerFrom(await openTokenizer(file));
  const opened = await openModel(model, job);
  try {
    if (!opened.tokenizer)
      throw new InputError(`${opened.name}: comes without a tokenizer; give its file with --tokenizer`);
    return tokenizerFrom(opened.tokenizer);
  } finally {
    await opened.close();
  }
}
