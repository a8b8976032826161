#!/usr/bin/env node
import { realpathSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { Command, CommanderError } from "commander";
import { lowbitVersion } from "../record/version.ts";
import { InputError, ShapeError, UnsupportedError } from "../tensor/tensor.ts";
import { bench } from "./bench.ts";
import { chat } from "./chat.ts";
import { Interrupted } from "./command.ts";
import { compress } from "./compress.ts";
import { doctor } from "./doctor.ts";
import { evaluate } from "./evaluate.ts";
import { generate } from "./generate.ts";
import { inspect } from "./inspect.ts";
import { train } from "./train.ts";

/** Runs one command line; gives the exit status: 0 done, 1 failed, 2 wrong usage or bad input, 130 interrupted. */
export async function main(args: readonly string[]): Promise<number> {
  const program = new Command("lowbit")
    .description("Train, compress, measure and run low-bit language models.")
    .version(lowbitVersion)
    .showHelpAfterError("(add --help for the options)")
    .exitOverride();
  for (const define of [inspect, evaluate, compress, train, generate, chat, bench, doctor]) define(program);
  for (const command of program.commands)
    command.exitOverride().showHelpAfterError("(add --help for the options)");
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
  process.stderr.write(`lowbit: ${message.split("\n")[0]}\n`);
  if (process.env.LOWBIT_DEBUG && error instanceof Error) process.stderr.write(`${error.stack}\n`);
  return badInput ? 2 : 1;
}

/** A path that a person gave and that cannot be read is bad input, whichever layer met it. */
function isMissingFile(error: unknown): boolean {
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  return code === "ENOENT" || code === "ENOTDIR" || code === "EISDIR" || code === "EACCES";
}

if (process.argv[1] && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  // A reader that goes away (`| head`) is not an error of ours.
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "EPIPE") process.exit(0);
    throw error;
  });
  process.exitCode = await main(process.argv.slice(2));
}
