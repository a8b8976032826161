import { type GenerateOptions, generate, promptIds, type Step } from "../generation/generate.ts";
import { Session } from "../generation/session.ts";
import type { Job } from "../record/record.ts";
import { InputError } from "../tensor/tensor.ts";
import { type BackendChoice, backendFor, load } from "./load.ts";

export interface ChatOptions extends BackendChoice {
  readonly model: string;
  readonly tokenizer?: string;
}

/** A text that a person and a model write in turns. */
export interface Conversation {
  /** Most tokens that it can look back on. */
  readonly context: number;
  /** Appends what the person wrote and streams the model's continuation; only what is new is computed. */
  say(text: string, options?: GenerateOptions, job?: Job): AsyncGenerator<Step, void, undefined>;
  /** Begins a new text. */
  reset(): void;
  close(): Promise<void>;
}

/**
 * Opens a conversation with a model that continues text. A text that the model
 * ended is over: the next turn begins a new one. When the context is full, the
 * older half is forgotten and a warning says so.
 */
export async function chat(options: ChatOptions, job: Job = {}): Promise<Conversation> {
  const backend = await backendFor(options, job);
  try {
    const loaded = await load(options.model, backend, options, job);
    const { tokenizer } = loaded;
    const context = loaded.model.config.context;
    const session = new Session(loaded);
    let ids: number[] = [];

    async function* say(text: string, settings: GenerateOptions = {}, turn: Job = {}) {
      const added = ids.length === 0 ? promptIds(tokenizer, text) : tokenizer.encode(text);
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
      for await (const step of generate(session, tokenizer, Int32Array.from(ids), settings, turn)) {
        if (step.end === "eos") ids = [];
        else ids.push(step.id);
        yield step;
      }
    }

    return {
      context,
      say,
      reset: () => {
        ids = [];
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
