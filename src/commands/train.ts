import type { Command } from "commander";
import type { Job, Record } from "../record/record.ts";
import { watchInThread } from "../server/worker.ts";
import { type TrainOptions, type TrainResult, train as trainModel } from "../verbs/train.ts";
import { execute, type SharedOptions, sharedOptions, wholeNumber } from "./command.ts";
import { duration } from "./progress.ts";
import { servedAt } from "./serving.ts";

export function train(program: Command): void {
  const command = program
    .command("train")
    .description("train a model from text; Ctrl-C keeps a checkpoint, --resume continues to the same bits")
    .argument("<recipe>", "YAML file, as in recipes/")
    .requiredOption("-o, --out <folder>", "folder that becomes the model")
    .option("--resume", "continue what stands in the folder")
    .option("--set <key=value...>", "override the recipe: --set schedule.peak=0.002")
    .option(
      "--watch [port]",
      "serve a page on this machine that shows the run while it goes on (default port: 7860, or the next that is free)",
      wholeNumber(0, 65535),
    );
  sharedOptions(command).action((recipe: string, options: TrainCommandOptions) => {
    const { json, quiet, watch, ...settings } = options;
    const run = (job: Job) => trainModel({ ...settings, recipe }, job);
    return execute(
      options,
      (job) => (watch === undefined ? run(job) : watched(settings.out, watch, () => run(job))),
      show,
    );
  });
}

interface TrainCommandOptions extends SharedOptions, Omit<TrainOptions, "recipe"> {
  readonly watch?: number | true;
}

/** Shows the page of a folder for as long as the work in it takes. */
async function watched<R>(out: string, port: number | true, work: () => Promise<R>): Promise<R> {
  const page = await watchInThread(out, port === true ? undefined : port);
  process.stderr.write(`${servedAt(page.url, port)}\n`);
  try {
    return await work();
  } finally {
    await page.close();
  }
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
