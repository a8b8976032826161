import { type End, type GenerateOptions, generate, promptIds, type Step } from "../generation/generate.ts";
import { Session } from "../generation/session.ts";
import { baseName, startRecord } from "../record/make.ts";
import type { Job, Record } from "../record/record.ts";
import { InputError } from "../tensor/tensor.ts";
import { type BackendChoice, backendFor, load } from "./load.ts";

export interface ChatOptions extends BackendChoice {
  readonly model: string;
  readonly tokenizer?: string;
}

/** What a person wrote, and how the model went on. */
export interface Turn {
  readonly said: string;
  /** How the model's tokens were drawn. */
  readonly settings: GenerateOptions;
  readonly text: string;
  readonly tokens: number;
  /** From the person's text to the last token. */
  readonly seconds: number;
  /** Why the model stopped; absent when it was stopped. */
  readonly end?: End;
}

export interface ChatResult {
  /** All that the model wrote. */
  readonly text: string;
  readonly tokens: number;
  /** Over all turns, reading what the person wrote included. */
  readonly tokensPerSecond: number;
  readonly turns: readonly Turn[];
}

/** A text that a person and a model write in turns. */
export interface Conversation {
  /** Most tokens that it can look back on. */
  readonly context: number;
  /** Appends what the person wrote and streams the model's continuation; only what is new is computed. */
  say(text: string, options?: GenerateOptions, job?: Job): AsyncGenerator<Step, void, undefined>;
  /** Begins a new text. */
  reset(): void;
  /** Every turn since the conversation was opened. */
  record(): Promise<Record<ChatResult>>;
  close(): Promise<void>;
}

/**
 * Opens a conversation with a model that continues text. A text that the model
 * ended is over: the next turn begins a new one. When the context is full, the
 * older half is forgotten and a warning says so.
 */
export async function chat(options: ChatOptions, job: Job = {}): Promise<Conversation> {
  const finish = startRecord("chat", {
    ...options,
    model: baseName(options.model),
    ...(options.tokenizer === undefined ? {} : { tokenizer: baseName(options.tokenizer) }),
  });
  const backend = await backendFor(options, job);
  try {
    const loaded = await load(options.model, backend, options, job);
    const { tokenizer } = loaded;
    const context = loaded.model.config.context;
    const session = new Session(loaded);
    const turns: Turn[] = [];
    let ids: number[] = [];

    async function* say(said: string, settings: GenerateOptions = {}, turn: Job = {}) {
      const added = ids.length === 0 ? promptIds(tokenizer, said) : tokenizer.encode(said);
      if (added.length === 0 && ids.length === 0)
        throw new InputError("chat: needs a text to begin with, got none");
      ids.push(...added);
      if (ids.length >= context) {
        const kept = ids.slice(-Math.floor(context / 2));
        turn.onWarning?.(
          `the context of ${context} tokens is full; the model sees the last ${kept.length} from here on`,
        );
        ids = tokenizer.bos === undefined ? kept : [tokenizer.bos, ...kept];
      }
      const started = performance.now();
      let text = "";
      let tokens = 0;
      let end: End | undefined;
      try {
        for await (const step of generate(session, tokenizer, Int32Array.from(ids), settings, turn)) {
          if (step.end === "eos") ids = [];
          else ids.push(step.id);
          text += step.text;
          tokens++;
          end = step.end;
          yield step;
        }
      } finally {
        const seconds = (performance.now() - started) / 1000;
        turns.push({ said, settings, text, tokens, seconds, ...(end === undefined ? {} : { end }) });
      }
    }

    return {
      context,
      say,
      reset: () => {
        ids = [];
      },
      record: async () => {
        const tokens = turns.reduce((sum, turn) => sum + turn.tokens, 0);
        const seconds = turns.reduce((sum, turn) => sum + turn.seconds, 0);
        return finish(
          backend,
          { models: [await loaded.fingerprint()] },
          {
            text: turns.map((turn) => turn.text).join(""),
            tokens,
            tokensPerSecond: tokens === 0 ? 0 : tokens / seconds,
            turns: [...turns],
          },
        );
      },
      close: async () => {
        session.free();
        await loaded.free();
        backend.dispose();
      },
    };
  } catch (error) {
    backend.dispose();
    throw error;
  }
}
