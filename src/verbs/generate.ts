import { generate as continueText, type End, promptIds, type Step } from "../generation/generate.ts";
import type { SamplingOptions } from "../generation/sampling.ts";
import { Session } from "../generation/session.ts";
import { baseName, startRecord } from "../record/make.ts";
import type { Job, Record } from "../record/record.ts";
import { InputError } from "../tensor/tensor.ts";
import type { Tokenizer } from "../tokenizers/tokenizer.ts";
import { type BackendChoice, backendFor, load } from "./load.ts";

export interface GenerateOptions extends BackendChoice, SamplingOptions {
  readonly model: string;
  /** Text to continue; empty to begin one. */
  readonly prompt: string;
  /** Most tokens to make. Default 256. */
  readonly tokens?: number;
  /** Default: drawn, and noted in the record. */
  readonly seed?: number;
  /** Tokenizer's file, for models that come without one. */
  readonly tokenizer?: string;
}

export interface GenerateJob extends Job {
  /** The text as it comes, in whole characters. */
  readonly onText?: (text: string) => void;
}

export interface GenerateResult {
  /** What follows the prompt. */
  readonly text: string;
  /** Tokens made, one that ends the text included. */
  readonly tokens: number;
  /** After the first token. */
  readonly tokensPerSecond: number;
  readonly promptTokens: number;
  readonly end: End;
}

/** Continues a prompt with a model; the text streams to `job.onText` and is in the record as a whole. */
export async function generate(
  options: GenerateOptions,
  job: GenerateJob = {},
): Promise<Record<GenerateResult>> {
  const settings = settle(options);
  const finish = startRecord("generate", {
    ...settings,
    model: baseName(options.model),
    ...(options.tokenizer === undefined ? {} : { tokenizer: baseName(options.tokenizer) }),
  });
  const { backend, loaded, session, prompt, close } = await open(settings, job);
  try {
    let text = "";
    let tokens = 0;
    let end: End = "tokens";
    let first = 0;
    const started = performance.now();
    for await (const step of continueText(session, loaded.tokenizer, prompt, settings, job)) {
      if (tokens++ === 0) first = performance.now();
      if (step.text) job.onText?.(step.text);
      text += step.text;
      end = step.end ?? end;
      if (!job.onText) {
        job.onProgress?.({ task: "generate", done: tokens, total: settings.tokens, unit: "tokens" });
      }
    }
    const now = performance.now();
    const tokensPerSecond = tokens > 1 ? (1000 * (tokens - 1)) / (now - first) : 1000 / (now - started);
    return finish(
      backend,
      { models: [await loaded.fingerprint()], seed: settings.seed },
      { text, tokens, tokensPerSecond, promptTokens: prompt.length, end },
    );
  } finally {
    await close();
  }
}

/**
 * The same token by token, as they are made. Leaving the loop early stops the
 * work and frees the model; so does the job's signal, by throwing its reason.
 *
 *   for await (const { text } of stream({ model, prompt })) process.stdout.write(text);
 */
export async function* stream(
  options: GenerateOptions,
  job: Job = {},
): AsyncGenerator<Step, void, undefined> {
  const settings = settle(options);
  const { loaded, session, prompt, close } = await open(settings, job);
  try {
    yield* continueText(session, loaded.tokenizer, prompt, settings, job);
  } finally {
    await close();
  }
}

/** Options with every default filled in. */
type Settings = GenerateOptions & { readonly tokens: number; readonly seed: number };

function settle(options: GenerateOptions): Settings {
  const seed = options.seed ?? Math.floor(Math.random() * 2 ** 31);
  const settings = { tokens: 256, temperature: 1, topP: 0.9, ...options, seed };
  if (!Number.isInteger(settings.tokens) || settings.tokens < 1) {
    throw new InputError(`generate: tokens must be a whole number from 1, got ${settings.tokens}`);
  }
  return settings;
}

/** A model loaded and ready to continue the prompt; close it when done. */
async function open(settings: Settings, job: Job) {
  const backend = await backendFor(settings, job);
  try {
    let prompt: Int32Array = new Int32Array();
    const positions = (tokenizer: Tokenizer) => {
      prompt = promptIds(tokenizer, settings.prompt);
      return prompt.length + settings.tokens;
    };
    const loaded = await load(settings.model, backend, { tokenizer: settings.tokenizer, positions }, job);
    const session = new Session(loaded, prompt.length + settings.tokens);
    const close = async () => {
      session.free();
      await loaded.free();
      backend.dispose();
    };
    return { backend, loaded, prompt, session, close };
  } catch (error) {
    backend.dispose();
    throw error;
  }
}
