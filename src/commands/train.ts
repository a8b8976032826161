import type { Command } from "commander";
import type { Job, Record } from "../record/record.ts";
import { InputError } from "../tensor/tensor.ts";
import { type PlanResult, planTraining } from "../verbs/plan-training.ts";
import { type TrainOptions, train as trainModel } from "../verbs/train.ts";
import { execute, realNumber, type SharedOptions, sharedOptions, wholeNumber } from "./command.ts";
import { duration, size } from "./progress.ts";
import { count, showTrained, watched } from "./training.ts";

interface Options extends SharedOptions, Omit<TrainOptions, "recipe" | "out" | "memory"> {
  readonly out?: string;
  readonly dryRun?: boolean;
  readonly trial: boolean;
  readonly watch?: number | true;
  /** GB. */
  readonly memory?: number;
}

export function train(program: Command): void {
  const command = program
    .command("train")
    .description("train a model from text; Ctrl-C keeps a checkpoint, --resume continues to the same bits")
    .argument("<recipe>", "YAML file, as in recipes/")
    .option("-o, --out <folder>", "folder that becomes the model")
    .option("--resume", "continue what stands in the folder")
    .option("--set <key=value...>", "override the recipe: --set schedule.peak=0.002")
    .option("--memory <GB>", "memory that training may take (default: the machine's)", realNumber(0))
    .option("--dry-run", "print parameters, bits, memory, steps and time, and train nothing")
    .option("--no-trial", "with --dry-run: take no steps to know the time")
    .option(
      "--watch [port]",
      "serve a page on this machine that shows the run while it goes on (default port: 7860, or the next that is free)",
      wholeNumber(0, 65535),
    );
  sharedOptions(command).action(async (recipe: string, options: Options) => {
    const { json, quiet, dryRun, trial, out, memory, watch, ...others } = options;
    const settings = { ...others, recipe, ...(memory === undefined ? {} : { memory: memory * 1e9 }) };
    if (dryRun) return execute(options, (job) => planTraining({ ...settings, trial }, job), showPlan);
    if (out === undefined) throw new InputError("train: needs a folder for the model; give it with --out");
    const run = (job: Job) => trainModel({ ...settings, out }, job);
    return execute(
      options,
      (job) => (watch === undefined ? run(job) : watched(out, watch, () => run(job))),
      showTrained,
    );
  });
}

function showPlan(record: Record<PlanResult>): string {
  const { parameters, bits, storedBytes, memory, steps, tokens, trial, trainingSeconds } = record;
  const { total, ...roles } = parameters;
  const parts = Object.entries(roles).filter(([, some]) => some > 0);
  const time =
    trial && trainingSeconds !== undefined
      ? `about ${duration(trainingSeconds)}, ${count(Math.round(tokens / trainingSeconds))} tokens/s in a trial`
      : "not tried";
  return [
    `parameters  ${count(total)}: ${parts.map(([role, some]) => `${count(some)} ${role}`).join(", ")}`,
    `stored      ${size(storedBytes)}, ${bits.linear.toFixed(3)} bits per linear weight, ${bits.total.toFixed(3)} per weight`,
    `memory      ${size(memory.total)} at most of ${size(memory.available)}: weights ${size(memory.weights)}, gradients ${size(memory.gradients)}, ` +
      `optimizer ${size(memory.optimizerStates)}${memory.paged === undefined ? "" : ` and ${size(memory.paged)} paged`}, ${memory.teacher === undefined ? "" : `teacher ${size(memory.teacher)}, `}activations ${size(memory.activations)} (a block ${size(memory.block)}), ` +
      `scratch ${size(memory.scratch)}, checkpoint ${size(memory.checkpoint)}`,
    `training    ${count(steps)} steps, ${count(tokens)} tokens`,
    `time        ${time}`,
  ].join("\n");
}
