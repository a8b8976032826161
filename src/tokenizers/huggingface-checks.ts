import { InputError } from "../tensor/tensor.ts";

/**
 * What the library takes on trust: that each stage of a tokenizer.json is an
 * object with words where it needs words, that stages end, and that no chain
 * of replacements makes a word as long as the memory.
 */
export function checkStages(tokenizer: object): void {
  const stages = tokenizer as Readonly<Record<string, unknown>>;
  for (const [name, inner] of Object.entries(SEQUENCES)) {
    const growth = checkStage(stages[name], name, inner, 0);
    if (growth > MOST_GROWTH)
      throw wrong(`its ${name} would make a text ${growth} times as long; ${MOST_GROWTH} times is allowed`);
  }
}

/** Where a sequence of stages has its list. */
const SEQUENCES = {
  normalizer: "normalizers",
  pre_tokenizer: "pretokenizers",
  post_processor: "processors",
  decoder: "decoders",
};
const DEEPEST = 8;
const MOST_STAGES = 64;
/** Real ones put one character in another's place, or a few. */
const MOST_GROWTH = 1000;

const WORDS = [
  "prepend",
  "content",
  "replacement",
  "prepend_scheme",
  "behavior",
  "prefix",
  "suffix",
  "precompiled_charsmap",
];
/** Counts, with the least of each: a `FixedLength` of 0 has no end. */
const COUNTS = { length: 1, start: 0, stop: 0 };

/** Checks a stage and those in it; gives how many times longer it can make a text. */
function checkStage(stage: unknown, name: string, inner: string, depth: number): number {
  if (stage === undefined || stage === null) return 1;
  if (!isObject(stage) || typeof stage.type !== "string")
    throw wrong(`its ${name} needs objects with a type, met ${shown(stage)}`);
  if (depth > DEEPEST) throw wrong(`its ${name} is nested deeper than ${DEEPEST}`);
  for (const word of WORDS) {
    const value = stage[word];
    if (value !== undefined && value !== null && typeof value !== "string")
      throw wrong(`its ${name} ${stage.type}: ${word} must be a text, is ${shown(value)}`);
  }
  for (const [count, least] of Object.entries(COUNTS)) {
    const value = stage[count];
    if (value !== undefined && !(Number.isSafeInteger(value) && (value as number) >= least))
      throw wrong(
        `its ${name} ${stage.type}: ${count} must be a whole number from ${least}, is ${shown(value)}`,
      );
  }
  const { type, pattern, content } = stage;
  if (pattern !== undefined || type === "Replace" || type === "Split") {
    const words = isObject(pattern) ? (pattern.String ?? pattern.Regex) : undefined;
    if (typeof words !== "string")
      throw wrong(`its ${name} ${type}: pattern must be a String or a Regex, is ${shown(pattern)}`);
  }
  const list = stage[inner];
  if (type !== "Sequence") return type === "Replace" ? Math.max(1, String(content ?? "").length) : 1;
  if (!Array.isArray(list) || list.length > MOST_STAGES)
    throw wrong(`its ${name} needs a list of at most ${MOST_STAGES} ${inner}, met ${shown(list)}`);
  return list.reduce((growth, part) => growth * checkStage(part ?? {}, name, inner, depth + 1), 1);
}

/** Whether a stage has a regular expression of its own, which may take any time. */
export function hasPattern(tokenizer: object): boolean {
  const { normalizer, pre_tokenizer } = tokenizer as Readonly<Record<string, unknown>>;
  return JSON.stringify([normalizer, pre_tokenizer]).includes('"Regex":');
}

/** Milliseconds for a text and for each of its characters; a thousand times what tokenizers in use take. */
const PATIENCE = 1000;
const PATIENCE_PER_CHARACTER = 0.02;
/** Texts too short for an expression to take long. */
const SHORT = 16;

let bounded: ((work: () => unknown, milliseconds: number) => void) | undefined;

/**
 * Runs work on a text with a stranger's regular expression: some go through
 * more possibilities than there are atoms (`(a+)+b`). Node can stop them; in a
 * browser the page does. Throws an InputError when the time is over.
 */
export function inTime<T>(text: string, work: () => T): T {
  if (text.length <= SHORT || typeof process === "undefined" || !process.versions?.node) return work();
  if (bounded === undefined) {
    const vm = process.getBuiltinModule("node:vm");
    const context = vm.createContext({ work: undefined as unknown });
    const script = new vm.Script("work()");
    bounded = (work, timeout) => {
      context.work = work;
      try {
        script.runInContext(context, { timeout });
      } finally {
        context.work = undefined;
      }
    };
  }
  let result: T | undefined;
  try {
    bounded(
      () => {
        result = work();
      },
      Math.ceil(PATIENCE + PATIENCE_PER_CHARACTER * text.length),
    );
  } catch (error) {
    if ((error as { code?: string }).code !== "ERR_SCRIPT_EXECUTION_TIMEOUT") throw error;
    throw wrong("its regular expressions take too long on this text");
  }
  return result as T;
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function shown(value: unknown): string {
  return Array.isArray(value)
    ? `a list of ${value.length}`
    : isObject(value)
      ? "an object"
      : JSON.stringify(value);
}

function wrong(what: string): InputError {
  return new InputError(`tokenizer.json: ${what}`);
}
