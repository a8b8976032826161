import { generate as continueText, type End, longPromptIds, type Step } from "../generation/generate.ts";
import { Session } from "../generation/session.ts";
import { baseName, startRecord } from "../record/make.ts";
import type { Job, Record } from "../record/record.ts";
import {
  type ContinueOptions,
  checkContinuing,
  forRecord,
  type Guessed,
  openSpeculation,
  type SpeculationOptions,
  settingsFor,
} from "./continuing.ts";
import { backendFor, fast, load, type RunChoice } from "./load.ts";

/** Most tokens: 256 unless told; top-p 0.9 unless told; activations int8 and the cache f16 unless told. */
export interface GenerateOptions extends RunChoice, ContinueOptions, SpeculationOptions {
  readonly model: string;
  /** Text to continue; empty to begin one. */
  readonly prompt: string;
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
  /** With --lookup or --draft. */
  readonly guessed?: Guessed;
}

/** Continues a prompt with a model; the text streams to `job.onText` and is in the record as a whole. */
export async function generate(
  options: GenerateOptions,
  job: GenerateJob = {},
): Promise<Record<GenerateResult>> {
  const settings = settle(options);
  const finish = startRecord("generate", {
    ...forRecord(settings),
    model: baseName(options.model),
    ...(options.tokenizer === undefined ? {} : { tokenizer: baseName(options.tokenizer) }),
  });
  const opened = await open(settings, job);
  try {
    let text = "";
    let tokens = 0;
    let last: Step | undefined;
    let first = 0;
    const started = performance.now();
    for await (const step of opened.steps(job)) {
      if (tokens++ === 0) first = performance.now();
      if (step.text) job.onText?.(step.text);
      text += step.text;
      last = step;
      if (!job.onText) {
        job.onProgress?.({ task: "generate", done: tokens, total: settings.tokens, unit: "tokens" });
      }
    }
    const now = performance.now();
    const tokensPerSecond = tokens > 1 ? (1000 * (tokens - 1)) / (now - first) : 1000 / (now - started);
    const promptTokens = opened.prompt.length;
    return finish(
      opened.backend,
      { models: await opened.fingerprints(), seed: settings.seed },
      {
        text,
        tokens,
        tokensPerSecond,
        promptTokens,
        end: last?.end ?? "tokens",
        ...(last?.guessed ? { guessed: last.guessed } : {}),
      },
    );
  } finally {
    await opened.close();
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
  const opened = await open(settings, job);
  try {
    yield* opened.steps(job);
  } finally {
    await opened.close();
  }
}

/** Options with every default filled in. */
type Settings = GenerateOptions & { readonly tokens: number; readonly seed: number };

function settle(options: GenerateOptions): Settings {
  checkContinuing("generate", options);
  const seed = options.seed ?? Math.floor(Math.random() * 2 ** 31);
  return { tokens: 256, temperature: 1, topP: 0.9, ...fast(options), seed };
}

/** A model loaded and ready to continue the prompt; close it when done. */
async function open(settings: Settings, job: Job) {
  const backend = await backendFor(settings, job);
  const closing: (() => unknown)[] = [() => backend.dispose()];
  const close = async () => {
    for (const each of closing.splice(0).reverse()) await each();
  };
  try {
    // A session makes rotary positions as it comes to need them.
    const running = { ...settings, positions: 1 };
    const loaded = await load(settings.model, backend, running, job);
    closing.push(() => loaded.free());
    const prompt = await longPromptIds(loaded.tokenizer, settings.prompt, job);
    const guessing = await openSpeculation(running, backend, loaded, job);
    closing.push(() => guessing.close());
    const session = new Session(loaded, prompt.length + settings.tokens);
    closing.push(() => session.free());
    const first = loaded.tokenizer.bos === undefined ? 0 : 1;
    const options = settingsFor(settings, loaded, first);
    return {
      backend,
      prompt,
      steps: (job: Job) =>
        continueText(session, loaded.tokenizer, prompt, options, job, guessing.speculation),
      fingerprints: async () => [await loaded.fingerprint(), ...(await guessing.fingerprints())],
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}
