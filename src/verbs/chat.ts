import { type ChatMessage, chatTemplate } from "../generation/chat-template.ts";
import { plainDialogue, templateDialogue } from "../generation/dialogue.ts";
import { type End, generate, type Step } from "../generation/generate.ts";
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

export type { ChatMessage };

/** Activations int8 and the cache f16 unless told. */
export interface ChatOptions extends RunChoice, SpeculationOptions {
  readonly model: string;
  readonly tokenizer?: string;
  /** What the system says before all else; for models with a chat template. */
  readonly system?: string;
}

/** What a person wrote, and how the model went on. */
export interface Turn {
  readonly said: string;
  /** How the model's tokens were drawn. */
  readonly settings: ContinueOptions;
  readonly text: string;
  readonly tokens: number;
  /** From the person's text to the last token. */
  readonly seconds: number;
  /** Why the model stopped; absent when it was stopped. */
  readonly end?: End;
  /** With --lookup or --draft. */
  readonly guessed?: Guessed;
}

export interface ChatResult {
  /** All that the model wrote. */
  readonly text: string;
  readonly tokens: number;
  /** Over all turns, reading what the person wrote included. */
  readonly tokensPerSecond: number;
  readonly turns: readonly Turn[];
}

/** What a person and a model write in turns. */
export interface Conversation {
  /** Most tokens that it can look back on. */
  readonly context: number;
  /** Whether the model knows conversations; else what is said is continued as one text. */
  readonly templated: boolean;
  /** All that was said; assign an earlier conversation's to go on with that one. */
  messages: readonly ChatMessage[];
  /** Appends what the person wrote and streams the model's answer; only what is new is computed. */
  say(text: string, options?: ContinueOptions, job?: Job): AsyncGenerator<Step, void, undefined>;
  /** Sets what the system says, "" for nothing; an InputError for models without a chat template. */
  instruct(text: string): void;
  /** Begins anew; what the system says stays. */
  reset(): void;
  /** Every turn since the conversation was opened. */
  record(): Promise<Record<ChatResult>>;
  close(): Promise<void>;
}

/**
 * Opens a conversation. A model with a chat template is told who said what; any
 * other continues the text, and when it ended that the next turn begins a new
 * one. When the context is full, the older half is forgotten and a warning says so.
 */
export async function chat(options: ChatOptions, job: Job = {}): Promise<Conversation> {
  checkContinuing("chat", options);
  // A session makes rotary positions as it comes to need them.
  const running = { ...fast(options), positions: 1 };
  const finish = startRecord("chat", {
    ...forRecord(fast(options)),
    model: baseName(options.model),
    ...(options.tokenizer === undefined ? {} : { tokenizer: baseName(options.tokenizer) }),
  });
  const backend = await backendFor(options, job);
  const closing: (() => unknown)[] = [() => backend.dispose()];
  const close = async () => {
    for (const each of closing.splice(0).reverse()) await each();
  };
  try {
    const loaded = await load(options.model, backend, running, job);
    closing.push(() => loaded.free());
    const { tokenizer } = loaded;
    const guessing = await openSpeculation(running, backend, loaded, job);
    closing.push(() => guessing.close());
    const session = new Session(loaded);
    closing.push(() => session.free());
    const context = session.capacity;
    const template = chatTemplate(tokenizer);
    const dialogue = template ? templateDialogue(template) : plainDialogue(tokenizer);
    if (options.system !== undefined) dialogue.instruct(options.system);
    const turns: Turn[] = [];

    async function* say(said: string, settings: ContinueOptions = {}, turn: Job = {}) {
      checkContinuing("chat", settings);
      const ids = dialogue.say(said, context, (message) => turn.onWarning?.(message));
      const drawing = settingsFor(settings, loaded, settings.shift ? dialogue.first : 0);
      const started = performance.now();
      let text = "";
      const made: number[] = [];
      let last: Step | undefined;
      try {
        for await (const step of generate(session, tokenizer, ids, drawing, turn, guessing.speculation)) {
          made.push(step.id);
          text += step.text;
          last = step;
          yield step;
        }
      } finally {
        dialogue.answered(text, made, last?.end);
        turns.push({
          said,
          settings: forRecord(settings),
          text,
          tokens: made.length,
          seconds: (performance.now() - started) / 1000,
          ...(last?.end === undefined ? {} : { end: last.end }),
          ...(last?.guessed === undefined ? {} : { guessed: last.guessed }),
        });
      }
    }

    return {
      context,
      templated: template !== undefined,
      get messages() {
        return dialogue.messages;
      },
      set messages(told) {
        dialogue.resume(told);
      },
      say,
      instruct: dialogue.instruct,
      reset: dialogue.reset,
      record: async () => {
        const tokens = turns.reduce((sum, turn) => sum + turn.tokens, 0);
        const seconds = turns.reduce((sum, turn) => sum + turn.seconds, 0);
        return finish(
          backend,
          { models: [await loaded.fingerprint(), ...(await guessing.fingerprints())] },
          {
            text: turns.map((turn) => turn.text).join(""),
            tokens,
            tokensPerSecond: tokens === 0 ? 0 : tokens / seconds,
            turns: [...turns],
          },
        );
      },
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}
