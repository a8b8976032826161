import { InputError } from "../tensor/tensor.ts";
import type { Tokenizer } from "../tokenizers/tokenizer.ts";
import type { ChatMessage, ChatTemplate } from "./chat-template.ts";
import { type End, promptIds, shifted } from "./generate.ts";

/** What a person and a model have said, and how it is put before the model. */
export interface Dialogue {
  readonly messages: readonly ChatMessage[];
  /** First tokens that a shift of the context should keep: the start token, what the system says. */
  readonly first: number;
  /**
   * Adds what the person says; gives the ids that the model continues, fewer
   * than `context`. What is forgotten to that end is told to `warn`.
   */
  say(text: string, context: number, warn: (message: string) => void): Int32Array;
  /** Adds what the model answered, whole or interrupted: its text and ids. */
  answered(text: string, ids: readonly number[], end: End | undefined): void;
  /** Sets what the system says, for this dialogue and those after a `reset`; "" for nothing. */
  instruct(text: string): void;
  /** Forgets all that was said; the system stays. */
  reset(): void;
  /** Takes the place of all that was said. */
  resume(messages: readonly ChatMessage[]): void;
}

/**
 * A text that person and model write in turns, for models that know no
 * conversations. A text that the model ended is over: the next turn begins a new one.
 */
export function plainDialogue(tokenizer: Tokenizer): Dialogue {
  let messages: ChatMessage[] = [];
  let ids: number[] = [];
  let over = false;
  const first = tokenizer.bos === undefined ? 0 : 1;
  const add = (text: string) => {
    for (const id of ids.length === 0 ? promptIds(tokenizer, text) : tokenizer.encode(text)) ids.push(id);
  };
  const reset = () => {
    messages = [];
    ids = [];
    over = false;
  };
  return {
    get messages() {
      return messages;
    },
    first,
    say(text, context, warn) {
      if (over) reset();
      add(text);
      if (ids.length === 0) throw new InputError("chat: needs a text to begin with, got none");
      messages.push({ role: "user", content: text });
      if (ids.length >= context) {
        while (ids.length >= context) ids = shifted(ids, first, context);
        warn(
          `the context of ${context} tokens is full; the model sees the last ${ids.length - first} from here on`,
        );
      }
      return Int32Array.from(ids);
    },
    answered(text, made, end) {
      messages.push({ role: "assistant", content: text });
      over = end === "eos";
      // Tokens of a stop text are not part of what was said.
      if (end === "stop") add(text);
      else if (!over) for (const id of made) ids.push(id);
    },
    instruct: refuseSystem,
    reset,
    resume(told) {
      if (told.some(({ role }) => role === "system")) refuseSystem();
      reset();
      messages = [...told];
      if (told.length > 0) add(told.map(({ content }) => content).join(""));
    },
  };
}

function refuseSystem(): never {
  throw new InputError(
    "chat: this model has no chat template, so no system text; begin with what it should know",
  );
}

/** A conversation as the model's template writes it; when it is too long, its oldest turns are left out. */
export function templateDialogue(template: ChatTemplate): Dialogue {
  let messages: ChatMessage[] = [];
  let forgotten = 0; // messages after the system's that the model does not see any more
  const system = () => messages.filter(({ role }) => role === "system");
  const said = () => messages.slice(system().length + forgotten);
  const read = () => template.ids([...system(), ...said()]);
  return {
    get messages() {
      return messages;
    },
    get first() {
      const [one, other] = ["a", "b"].map((content) =>
        template.ids([...system(), { role: "user", content }]),
      );
      const differs = one.findIndex((id, n) => id !== other[n]);
      return Math.max(0, differs); // −1: a template that leaves out what is said
    },
    say(text, context, warn) {
      const before = forgotten;
      messages.push({ role: "user", content: text });
      try {
        let ids = read();
        while (ids.length >= context && said().length > 2) {
          // Half of the turns at once, so that not every one of the next reads everything again; a question goes with its answer.
          forgotten += 2 * Math.ceil((said().length - 1) / 4);
          ids = read();
        }
        if (ids.length >= context) {
          throw new InputError(
            `chat: ${ids.length} tokens do not fit into a context of ${context} and leave room for an answer; say less`,
          );
        }
        if (forgotten > before) {
          warn(
            `the context of ${context} tokens is full; the model sees the last ${said().length} messages from here on`,
          );
        }
        return ids;
      } catch (error) {
        messages.pop();
        forgotten = before;
        throw error;
      }
    },
    answered(text) {
      messages.push({ role: "assistant", content: text });
    },
    instruct(text) {
      const rest = messages.slice(system().length);
      messages = text === "" ? rest : [{ role: "system", content: text }, ...rest];
    },
    reset() {
      messages = system();
      forgotten = 0;
    },
    resume(told) {
      // The system speaks before all else.
      messages = [
        ...told.filter(({ role }) => role === "system"),
        ...told.filter(({ role }) => role !== "system"),
      ];
      forgotten = 0;
    },
  };
}
