import type { Backend } from "../backends/backend.ts";
import { checkSameVocabulary, draftModel } from "../generation/draft-model.ts";
import { MOST_GUESSES } from "../generation/drafter.ts";
import type { GenerateOptions, Speculation } from "../generation/generate.ts";
import { promptLookup } from "../generation/prompt-lookup.ts";
import { checkSampling, type SamplingOptions } from "../generation/sampling.ts";
import { baseName } from "../record/make.ts";
import type { Fingerprint, Job } from "../record/record.ts";
import { InputError } from "../tensor/tensor.ts";
import { type Loaded, type LoadOptions, load } from "./load.ts";

/** How a text goes on and ends. */
export interface ContinueOptions extends SamplingOptions {
  /** Most tokens to make. */
  readonly tokens?: number;
  /** Same seed, same text. Default: drawn, and noted in the record. */
  readonly seed?: number;
  /** Texts that end the text where they would come; nothing of them is shown. */
  readonly stop?: readonly string[];
  /** Ids that end the text, beside the vocabulary's own. */
  readonly stopTokens?: readonly number[];
  /** At the end of the context, forget the older half and go on; default: the text ends there. */
  readonly shift?: boolean;
  /** First tokens that a shift leaves where they are. Default: the start token; in a chat what the system says. */
  readonly keep?: number;
}

/** Who guesses tokens ahead, so that the model reads several at once; the text stays as it is without. */
export interface SpeculationOptions {
  /** Guess up to so many tokens (1 to 7) by what followed the last ones before. */
  readonly lookup?: number;
  /** Guess with this model, a smaller one of the same vocabulary. */
  readonly draft?: string;
  /** Tokens that it guesses at a time, 1 to 7. Default 4. */
  readonly draftTokens?: number;
}

/** Tokens guessed, and those of them that came true. */
export interface Guessed {
  readonly drafted: number;
  readonly accepted: number;
}

/** Throws an InputError that names the option that is out of range, before anything is read. */
export function checkContinuing(verb: string, options: ContinueOptions & SpeculationOptions): void {
  const need = (name: string, value: number | undefined, least: number, most?: number) => {
    const ok = value === undefined || (Number.isInteger(value) && value >= least && value <= (most ?? value));
    const range = most === undefined ? `a whole number from ${least}` : `from ${least} to ${most}`;
    if (!ok) throw new InputError(`${verb}: ${name} must be ${range}, got ${value}`);
  };
  checkSampling(options);
  need("tokens", options.tokens, 1);
  need("keep", options.keep, 0);
  need("lookup", options.lookup, 1, MOST_GUESSES);
  need("draft-tokens", options.draftTokens, 1, MOST_GUESSES);
  if (options.stop?.includes(""))
    throw new InputError(`${verb}: a stop text must not be empty; leave it out`);
  if (options.keep !== undefined && !options.shift)
    throw new InputError(`${verb}: --keep says what a shift leaves; give --shift too`);
  if (options.draftTokens !== undefined && options.draft === undefined)
    throw new InputError(`${verb}: --draft-tokens is for a draft model; give --draft too`);
  if (options.lookup !== undefined && options.draft !== undefined) {
    throw new InputError(`${verb}: guesses come from --lookup or from --draft; give one of them`);
  }
}

/** Options as a record keeps them: no paths, and −∞ as a word, which JSON has no number for. */
export function forRecord<Options extends ContinueOptions & SpeculationOptions>(options: Options): object {
  const { draft, logitBias } = options;
  return {
    ...options,
    ...(draft === undefined ? {} : { draft: baseName(draft) }),
    ...(logitBias === undefined
      ? {}
      : { logitBias: logitBias.map(([token, bias]) => [token, Number.isFinite(bias) ? bias : "-inf"]) }),
  };
}

/**
 * What generation is to be told: ends that the model's own files name count
 * beside those of its vocabulary, and a shift keeps the first tokens.
 */
export function settingsFor(
  { shift, keep, ...options }: ContinueOptions,
  { file }: Loaded,
  first: number,
): GenerateOptions {
  const ends = [file.generation?.eos_token_id].flat().filter((id) => typeof id === "number");
  return { ...options, ends, ...(shift ? { shift: { keep: keep ?? first } } : {}) };
}

/** Speculation that options ask for, and what it read; close it when done. */
export interface OpenSpeculation {
  readonly speculation?: Speculation;
  readonly fingerprints: () => Promise<Fingerprint[]>;
  readonly close: () => Promise<void>;
}

/**
 * Loads a draft model, where there is one, beside the model that it guesses
 * for, to run as that does. Throws an InputError when its vocabulary is another.
 */
export async function openSpeculation(
  { lookup, draft, draftTokens = 4, ...running }: SpeculationOptions & LoadOptions,
  backend: Backend,
  { model, tokenizer }: Loaded,
  job: Job,
): Promise<OpenSpeculation> {
  if (draft === undefined) {
    return {
      ...(lookup === undefined ? {} : { speculation: { drafter: promptLookup(), guesses: lookup } }),
      fingerprints: async () => [],
      close: async () => {},
    };
  }
  const drafting = await load(draft, backend, running, job);
  try {
    checkSameVocabulary(tokenizer, drafting.tokenizer);
    const drafter = draftModel(drafting, model.config);
    return {
      speculation: { drafter, guesses: draftTokens },
      fingerprints: async () => [await drafting.fingerprint()],
      close: async () => {
        drafter.free();
        await drafting.free();
      },
    };
  } catch (error) {
    await drafting.free();
    throw error;
  }
}
