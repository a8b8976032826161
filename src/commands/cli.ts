import { Command } from "commander";
import { lowbitVersion } from "../record/version.ts";
import { bench } from "./bench.ts";
import { chat } from "./chat.ts";
import { runCommand } from "./command.ts";
import { compress } from "./compress.ts";
import { convert } from "./convert.ts";
import { delta } from "./delta.ts";
import { doctor } from "./doctor.ts";
import { evaluate } from "./evaluate.ts";
import { generate } from "./generate.ts";
import { inspect } from "./inspect.ts";
import { study } from "./study.ts";
import { tokenize } from "./tokenize.ts";
import { train } from "./train.ts";
import { tune } from "./tune.ts";
import { watch } from "./watch.ts";

/** Runs one command line; gives the exit status: 0 done, 1 failed, 2 wrong usage or bad input, 130 interrupted. */
export async function main(args: readonly string[]): Promise<number> {
  const program = new Command("lowbit")
    .description("Train, compress, measure and run low-bit language models.")
    .version(lowbitVersion);
  for (const define of [
    inspect,
    evaluate,
    compress,
    convert,
    delta,
    train,
    tune,
    watch,
    study,
    generate,
    chat,
    bench,
    tokenize,
    doctor,
  ])
    define(program);
  return runCommand(program, args);
}
