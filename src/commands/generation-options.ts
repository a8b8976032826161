import { type Command, InvalidArgumentError } from "commander";
import type { ContinueOptions, SpeculationOptions } from "../verbs/continuing.ts";
import { FAST, type RunChoice } from "../verbs/load.ts";
import { realNumber, runOptions, several, TOKENIZER, wholeNumber } from "./command.ts";

/** What the options below are parsed into, under commander's names. */
export interface GenerationOptions
  extends Omit<ContinueOptions, "stopTokens" | "dryBreakers">,
    SpeculationOptions,
    Pick<RunChoice, "activations" | "cache"> {
  readonly stopToken?: readonly number[];
  readonly dryBreaker?: readonly string[];
  readonly tokenizer?: string;
}

/** The options of a verb in those of a command. */
export function forVerb<Options extends GenerationOptions>({ stopToken, dryBreaker, ...options }: Options) {
  return {
    ...options,
    ...(stopToken === undefined ? {} : { stopTokens: stopToken }),
    ...(dryBreaker === undefined ? {} : { dryBreakers: dryBreaker }),
  };
}

/** Options that say how a text goes on and ends; generate and chat have them. `tokens` is the default number of tokens. */
export function generationOptions(command: Command, tokens: number): Command {
  command
    .optionsGroup("Where it ends:")
    .option("--tokens <n>", `most tokens to make (default: ${tokens})`, wholeNumber(1))
    .option("--stop <text>", "a text that ends it and is not shown; may be given again", several(text))
    .option("--stop-token <id>", "a token that ends it; may be given again", several(wholeNumber(0)))
    .option("--shift", "at the end of the context forget the older half and go on")
    .option("--keep <n>", "first tokens that a shift leaves (default: start token, system)", wholeNumber(0))

    .optionsGroup("How tokens are drawn, in this order:")
    .option(
      "--logit-bias <token=bias>",
      'added to a logit: 13=-2, "word=1.5", "x=-inf" bans; may be given again',
      several(logitBias),
    )
    .option("--repetition-penalty <r>", "divides logits of tokens seen lately (default: 1)", realNumber(0))
    .option("--presence-penalty <p>", "taken off logits of tokens seen lately (default: 0)", anyNumber)
    .option("--frequency-penalty <p>", "the same for each time that they were (default: 0)", anyNumber)
    .option("--penalty-window <n>", "tokens that these look back on; 0: all (default: 64)", wholeNumber(0))
    .option("--dry-multiplier <m>", "DRY: against going on with repetitions (default: 0)", realNumber(0))
    .option("--dry-base <b>", "its growth for each token repeated (default: 1.75)", realNumber(1))
    .option("--dry-allowed-length <n>", "tokens that may be repeated (default: 2)", wholeNumber(1))
    .option("--dry-window <n>", "tokens that it looks back on; 0: all (default: 0)", wholeNumber(0))
    .option(
      "--dry-breaker <text>",
      'a text that repetitions end at; may be given again (default: \\n : " *)',
      several(text),
    )
    .option("--temperature <t>", "0 takes the best token each time (default: 1)", realNumber(0))
    .option("--top-k <k>", "keep the k best tokens; 0 keeps all (default: 0)", wholeNumber(0))
    .option(
      "--typical <p>",
      "keep the most typical with this much probability (default: 1)",
      realNumber(0, 1),
    )
    .option("--top-p <p>", "keep the fewest with this much probability (default: 0.9)", realNumber(0, 1))
    .option("--min-p <p>", "keep those this probable relative to the best (default: 0)", realNumber(0, 1))
    .option("--seed <n>", "same seed, same text (default: drawn)", wholeNumber(0, 2 ** 32 - 1))

    .optionsGroup("Speed, with the same text:")
    .option("--lookup <n>", "guess up to n tokens, 1 to 7, by what followed before", wholeNumber(1, 7))
    .option("--draft <model>", "guess with a smaller model of the same vocabulary")
    .option("--draft-tokens <n>", "tokens that it guesses at a time, 1 to 7 (default: 4)", wholeNumber(1, 7));

  return runOptions(command.optionsGroup("Speed, with little change of the text:"), FAST)
    .optionsGroup("Options:")
    .option("--tokenizer <file>", TOKENIZER);
}

function anyNumber(value: string): number {
  const number = Number(value);
  if (value.trim() === "" || !Number.isFinite(number)) {
    throw new InvalidArgumentError(`needs a number, got ${value}.`);
  }
  return number;
}

/** A text with `\n`, `\t`, `\r` and `\\` for what a shell makes hard to write. */
function text(value: string): string {
  const escapes: { [letter: string]: string } = { n: "\n", t: "\t", r: "\r", "\\": "\\" };
  if (value === "") throw new InvalidArgumentError("needs a text, got none.");
  return value.replace(/\\([ntr\\])/g, (_, letter) => escapes[letter]);
}

/** `id=bias` or `text=bias`; a text of digits alone is written with quotes of its own: '"13"=1'. */
function logitBias(value: string): readonly [token: number | string, bias: number] {
  const [, token, number] = /^(.+)=([^=]+)$/s.exec(value) ?? [];
  if (token === undefined) throw new InvalidArgumentError(`needs TOKEN=NUMBER or TOKEN=-inf, got ${value}.`);
  const bias = number === "-inf" ? Number.NEGATIVE_INFINITY : anyNumber(number);
  const quoted = /^"(.+)"$/s.exec(token);
  if (quoted) return [text(quoted[1]), bias];
  return [/^\d+$/.test(token) ? Number(token) : text(token), bias];
}
