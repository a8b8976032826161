import type { Command } from "commander";
import type { Job } from "../record/record.ts";
import { type TuneOptions, tune as tuneModel } from "../verbs/train.ts";
import { execute, realNumber, type SharedOptions, sharedOptions, wholeNumber } from "./command.ts";
import { showTrained, watched } from "./training.ts";

interface Options extends SharedOptions, Omit<TuneOptions, "model" | "recipe" | "memory"> {
  readonly watch?: number | true;
  /** GB. */
  readonly memory?: number;
}

export function tune(program: Command): void {
  const command = program
    .command("tune")
    .description(
      "tune a stored model of any format: adapters, scales or codebooks move, its matrices stay packed; as train",
    )
    .argument("<model>", "a folder, a .gguf, bundled:NAME, hf:OWNER/NAME …")
    .argument("<recipe>", "YAML file of the family qlora or sqft, as in recipes/")
    .requiredOption("-o, --out <folder>", "folder that becomes the model")
    .option("--resume", "continue what stands in the folder")
    .option("--set <key=value...>", "override the recipe: --set options.rank=8")
    .option("--memory <GB>", "memory that training may take (default: the machine's)", realNumber(0))
    .option(
      "--watch [port]",
      "serve a page on this machine that shows the run while it goes on (default port: 7860, or the next that is free)",
      wholeNumber(0, 65535),
    );
  sharedOptions(command).action(async (model: string, recipe: string, options: Options) => {
    const { json: _, quiet: __, memory, watch, ...others } = options;
    const settings = { ...others, model, recipe, ...(memory === undefined ? {} : { memory: memory * 1e9 }) };
    const run = (job: Job) => tuneModel(settings, job);
    return execute(
      options,
      (job) => (watch === undefined ? run(job) : watched(options.out, watch, () => run(job))),
      showTrained,
    );
  });
}
