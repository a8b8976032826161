import * as jinja from "@huggingface/jinja";
import { InputError } from "../tensor/tensor.ts";
import { type Tokenizer, withStart } from "../tokenizers/tokenizer.ts";

// The library's type declarations name their files without endings, which TypeScript does not follow here.
interface Jinja {
  tokenize(template: string, options: { lstrip_blocks: boolean; trim_blocks: boolean }): unknown;
  parse(tokens: unknown): unknown;
  readonly Environment: new () => { set(name: string, value: unknown): unknown };
  readonly Interpreter: new (
    environment: unknown,
  ) => {
    run(program: unknown): { readonly value: unknown };
    evaluate(statement: unknown, environment: unknown): { readonly value: unknown };
  };
}
const { Environment, Interpreter, parse, tokenize } = jinja as unknown as Jinja;

export interface ChatMessage {
  readonly role: "system" | "user" | "assistant";
  readonly content: string;
}

export interface ChatTemplateOptions {
  /** Whether the text ends with what stands before an answer. Default true. */
  readonly addGenerationPrompt?: boolean;
}

/** How conversations are written for a model that was taught to answer. */
export interface ChatTemplate {
  /** The conversation as the model was taught to read it. */
  render(messages: readonly ChatMessage[], options?: ChatTemplateOptions): string;
  /** The same as ids: control tokens are read, and a start token is in front when the vocabulary has one. */
  ids(messages: readonly ChatMessage[], options?: ChatTemplateOptions): Int32Array;
}

// A template comes with a stranger's file and is a program: what it may use up is bounded.
const LONGEST_TEMPLATE = 2 ** 20; // characters
const MOST_STEPS = 1_000_000;
const MOST_SECONDS = 1;
const LONGEST_TEXT = 2 ** 21; // characters: about half a million tokens
const LONGEST_LIST = 100_000;

/**
 * The chat template that came with a vocabulary, a Jinja program
 * (https://huggingface.co/docs/transformers/chat_templating); undefined when
 * none did. Throws an InputError for one that cannot be read. Rendering throws
 * an InputError when the template fails, refuses the messages
 * (`raise_exception`) or uses up more than a conversation needs.
 */
export function chatTemplate(tokenizer: Tokenizer): ChatTemplate | undefined {
  if (tokenizer.chat === undefined) return undefined;
  const { template, bosToken, eosToken } = tokenizer.chat;
  if (template.length > LONGEST_TEMPLATE) {
    throw new InputError(
      `chat template: has ${template.length} characters; at most ${LONGEST_TEMPLATE} are read`,
    );
  }
  // Line breaks after blocks and spaces before them are left out, as in the library that templates are written for.
  const program = explained(() => parse(tokenize(template, { lstrip_blocks: true, trim_blocks: true })));

  const render = (
    messages: readonly ChatMessage[],
    { addGenerationPrompt = true }: ChatTemplateOptions = {},
  ): string =>
    explained(() => {
      const environment = new Environment();
      const globals = {
        ...GLOBALS,
        messages,
        add_generation_prompt: addGenerationPrompt,
        bos_token: bosToken,
        eos_token: eosToken,
      };
      for (const [name, value] of Object.entries(globals)) environment.set(name, value);
      return String(new BoundedInterpreter(environment).run(program).value);
    });
  return {
    render,
    ids(messages, options) {
      const ids = tokenizer.encode(render(messages, options), { special: true });
      return ids[0] === tokenizer.bos ? ids : withStart(tokenizer, ids);
    },
  };
}

const GLOBALS = {
  true: true,
  false: false,
  none: null,
  True: true,
  False: false,
  None: null,
  raise_exception: (message: unknown) => {
    throw new Error(String(message));
  },
  range: boundedRange,
  strftime_now: (format: string) => formattedDate(new Date(), format),
};

/** Counts what it evaluates: every loop and every call goes through `evaluate`. */
class BoundedInterpreter extends Interpreter {
  #steps = 0;
  readonly #until = performance.now() + 1000 * MOST_SECONDS;

  override evaluate(statement: unknown, environment: unknown) {
    if (++this.#steps > MOST_STEPS) throw new Error(`needs more than ${MOST_STEPS} steps`);
    if (performance.now() > this.#until) throw new Error(`takes longer than ${MOST_SECONDS} second`);
    const result = super.evaluate(statement, environment);
    const { value } = result;
    if (typeof value === "string" && value.length > LONGEST_TEXT)
      throw new Error(`makes a text of more than ${LONGEST_TEXT} characters`);
    if (Array.isArray(value) && value.length > LONGEST_LIST)
      throw new Error(`makes a list of more than ${LONGEST_LIST} elements`);
    return result;
  }
}

/** Python's range. */
function boundedRange(first: number, end?: number, step = 1): number[] {
  const [from, to] = end === undefined ? [0, first] : [first, end];
  const length = Math.max(0, Math.ceil((to - from) / step));
  if (!(length <= LONGEST_LIST)) throw new Error(`makes a list of more than ${LONGEST_LIST} elements`);
  return Array.from({ length }, (_, i) => from + i * step);
}

/** The codes of Python's strftime that templates write dates with. */
function formattedDate(date: Date, format: string): string {
  const words = (options: Intl.DateTimeFormatOptions) => date.toLocaleDateString("en-US", options);
  const two = (value: number) => String(value).padStart(2, "0");
  const codes: Readonly<Record<string, () => string>> = {
    Y: () => String(date.getFullYear()),
    m: () => two(date.getMonth() + 1),
    d: () => two(date.getDate()),
    B: () => words({ month: "long" }),
    b: () => words({ month: "short" }),
    A: () => words({ weekday: "long" }),
    a: () => words({ weekday: "short" }),
    H: () => two(date.getHours()),
    M: () => two(date.getMinutes()),
    S: () => two(date.getSeconds()),
    "%": () => "%",
  };
  return String(format).replace(/%(.)/g, (whole, code: string) =>
    Object.hasOwn(codes, code) ? codes[code]() : whole,
  );
}

/** What goes wrong inside a template is its file's fault. */
function explained<T>(work: () => T): T {
  try {
    return work();
  } catch (error) {
    const message = error instanceof Error ? error.message.split("\n", 1)[0] : String(error);
    throw new InputError(`chat template: ${message.slice(0, 200)}`);
  }
}
