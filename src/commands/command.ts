import { type Command, CommanderError, InvalidArgumentError, Option } from "commander";
import { cacheNames } from "../models/kv-cache.ts";
import type { Job } from "../record/record.ts";
import { InputError, ShapeError, UnsupportedError } from "../tensor/tensor.ts";
import { ProgressBar } from "./progress.ts";
import { printable } from "./table.ts";

/** Options that every command which computes has. */
export interface SharedOptions {
  readonly backend?: "native" | "wasm" | "reference";
  readonly threads?: number;
  readonly json?: boolean;
  readonly quiet?: boolean;
}

/** What a command takes for a model, and for its tokenizer. */
export const MODEL =
  "folder, .gguf, llama2.c .bin, bundled:NAME, hf:OWNER/NAME[@REVISION], FOLDER@STEP of a run with snapshots; MODEL@4bit at another width that it was trained for; MODEL@2.5MB of a stacked one as many blocks as fit; BASE+DELTA";
export const TOKENIZER = "tok*.bin, *.model, tokenizer.json or .gguf, for models that come without one";

/** Thrown into a running job by Ctrl-C; the process ends with status 130. */
export class Interrupted extends Error {
  override readonly name = "Interrupted";
  constructor() {
    super("interrupted");
  }
}

export function sharedOptions(command: Command): Command {
  const computing = command
    .addOption(
      new Option("--backend <name>", "where to compute (default: the fastest that works)").choices([
        "native",
        "wasm",
        "reference",
      ]),
    )
    .option("--threads <n>", "threads to use (default: all)", wholeNumber(1, 1024));
  return outputOptions(computing);
}

/** How a model's arithmetic is done; what is done unless told is said in the help. */
export function runOptions(command: Command, unless: { activations: string; cache: string }): Command {
  return command
    .addOption(
      new Option(
        "--activations <type>",
        `what packed matrices are multiplied by (default: ${unless.activations})`,
      ).choices(["float", "int8"]),
    )
    .addOption(
      new Option("--cache <format>", `how keys and values are kept (default: ${unless.cache})`).choices(
        cacheNames,
      ),
    );
}

/** Options of every command: how it prints. */
export function outputOptions(command: Command): Command {
  return command
    .option("--json", "print one JSON document on stdout, nothing else")
    .option("--quiet", "no progress on stderr");
}

/**
 * Runs a verb for a command: progress and warnings on stderr, Ctrl-C as an
 * abort, the record on stdout. A verb that writes text of its own while it
 * works calls `clear` before, which takes the progress bar off the screen.
 */
export async function execute<R>(
  options: SharedOptions,
  verb: (job: Job, clear: () => void) => Promise<R>,
  show: (result: R) => string,
): Promise<void> {
  const bar = options.quiet ? undefined : new ProgressBar(process.stderr);
  const controller = new AbortController();
  const interrupt = () => {
    // A second Ctrl-C does not wait for a clean end.
    if (controller.signal.aborted) process.exit(130);
    controller.abort(new Interrupted());
  };
  process.on("SIGINT", interrupt);
  process.on("SIGTERM", interrupt);
  try {
    const clear = () => bar?.clear();
    const job: Job = {
      signal: controller.signal,
      onProgress: (progress) => bar?.show(progress),
      onWarning: (message) => {
        clear();
        process.stderr.write(`warning: ${printable(message)}\n`);
      },
    };
    const result = await verb(job, clear);
    clear();
    const text = options.json ? JSON.stringify(result, null, 2) : show(result);
    if (text !== "") process.stdout.write(`${text}\n`);
  } finally {
    bar?.clear();
    process.off("SIGINT", interrupt);
    process.off("SIGTERM", interrupt);
  }
}

/** Parses arguments, runs what they name, and explains what went wrong in one line; gives the exit status. */
export async function runCommand(program: Command, args: readonly string[]): Promise<number> {
  for (const command of [program, ...program.commands]) {
    command.exitOverride().showHelpAfterError("(add --help for the options)");
  }
  // A reader that goes away (`| head`) is not an error of ours.
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "EPIPE") process.exit(0);
    throw error;
  });
  try {
    await program.parseAsync(args, { from: "user" });
    return 0;
  } catch (error) {
    return explain(error);
  }
}

function explain(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
  if (error instanceof Interrupted) {
    process.stderr.write("lowbit: interrupted\n");
    return 130;
  }
  const badInput =
    error instanceof InputError ||
    error instanceof UnsupportedError ||
    error instanceof ShapeError ||
    isMissingFile(error);
  const message = error instanceof Error ? error.message : String(error);
  process.stderr.write(`lowbit: ${printable(message.split("\n")[0])}\n`);
  if (process.env.LOWBIT_DEBUG && error instanceof Error) process.stderr.write(`${error.stack}\n`);
  return badInput ? 2 : 1;
}

/** A path that a person gave and that cannot be read is bad input, whichever layer met it. */
function isMissingFile(error: unknown): boolean {
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  return code === "ENOENT" || code === "ENOTDIR" || code === "EISDIR" || code === "EACCES";
}

/** An option's parser: a whole number from `least` to `most`. */
export function wholeNumber(least: number, most = Number.MAX_SAFE_INTEGER): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (text.trim() === "" || !Number.isSafeInteger(value) || value < least || value > most) {
      const range = most === Number.MAX_SAFE_INTEGER ? `at least ${least}` : `from ${least} to ${most}`;
      throw new InvalidArgumentError(`needs a whole number ${range}, got ${text}.`);
    }
    return value;
  };
}

/** An option's parser: a number from `least` to `most`. */
export function realNumber(least: number, most = Number.POSITIVE_INFINITY): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (text.trim() === "" || Number.isNaN(value) || value < least || value > most) {
      const range = most === Number.POSITIVE_INFINITY ? `at least ${least}` : `from ${least} to ${most}`;
      throw new InvalidArgumentError(`needs a number ${range}, got ${text}.`);
    }
    return value;
  };
}

/** An option that may be given several times. */
export function several<T>(parse: (value: string) => T): (value: string, before?: T[]) => T[] {
  return (value, before = []) => [...before, parse(value)];
}
