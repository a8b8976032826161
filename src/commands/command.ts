import { type Command, InvalidArgumentError, Option } from "commander";
import type { Job } from "../record/record.ts";
import { ProgressBar } from "./progress.ts";

/** Options that every command which computes has. */
export interface SharedOptions {
  readonly backend?: "native" | "wasm" | "reference";
  readonly threads?: number;
  readonly json?: boolean;
  readonly quiet?: boolean;
}

/** Thrown into a running job by Ctrl-C; the process ends with status 130. */
export class Interrupted extends Error {
  override readonly name = "Interrupted";
  constructor() {
    super("interrupted");
  }
}

export function sharedOptions(command: Command): Command {
  return command
    .addOption(
      new Option("--backend <name>", "where to compute (default: the fastest that works)").choices([
        "native",
        "wasm",
        "reference",
      ]),
    )
    .option("--threads <n>", "threads to use (default: all)", wholeNumber(1, 1024))
    .option("--json", "print one JSON document on stdout, nothing else")
    .option("--quiet", "no progress on stderr");
}

/** Runs a verb for a command: progress and warnings on stderr, Ctrl-C as an abort, the record on stdout. */
export async function execute<R>(
  options: SharedOptions,
  verb: (job: Job) => Promise<R>,
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
    const result = await verb({
      signal: controller.signal,
      onProgress: (progress) => bar?.show(progress),
      onWarning: (message) => {
        bar?.clear();
        process.stderr.write(`warning: ${message}\n`);
      },
    });
    bar?.clear();
    const text = options.json ? JSON.stringify(result, null, 2) : show(result);
    if (text !== "") process.stdout.write(`${text}\n`);
  } finally {
    bar?.clear();
    process.off("SIGINT", interrupt);
    process.off("SIGTERM", interrupt);
  }
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
