import type { Command } from "commander";
import type { Record } from "../record/record.ts";
import { type TrainOptions, type TrainResult, train as trainModel } from "../verbs/train.ts";
import { execute, type SharedOptions, sharedOptions } from "./command.ts";
import { duration } from "./progress.ts";

export function train(program: Command): void {
  const command = program
    .command("train")
    .description("train a model from text; Ctrl-C keeps a checkpoint, --resume continues to the same bits")
    .argument("<recipe>", "YAML file, as in recipes/")
    .requiredOption("-o, --out <folder>", "folder that becomes the model")
    .option("--resume", "continue what stands in the folder")
    .option("--set <key=value...>", "override the recipe: --set schedule.peak=0.002");
  sharedOptions(command).action((recipe: string, options: SharedOptions & Omit<TrainOptions, "recipe">) => {
    const { json, quiet, ...settings } = options;
    return execute(options, (job) => trainModel({ ...settings, recipe }, job), show);
  });
}

function show({
  steps,
  tokens,
  tokensPerSecond,
  trainingSeconds,
  optimizer,
  validation,
}: Record<TrainResult>): string {
  const { loss, lossStandardError } = validation;
  const error = lossStandardError === null ? "" : ` ± ${lossStandardError.toFixed(4)}`;
  return [
    `${steps} steps, ${tokens.toLocaleString("en-US")} tokens in ${duration(trainingSeconds)} (${tokensPerSecond.toFixed(0)} tokens/s)`,
    `optimizer ${optimizer.name}, ${optimizer.stateBytesPerParameter.toFixed(2)} bytes of state per parameter`,
    `validation loss ${loss.toFixed(4)}${error} nats per token, measured on the model as stored`,
  ].join("\n");
}
