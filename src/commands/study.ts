import type { Command } from "commander";
import type { Record } from "../record/record.ts";
import { compressionStudy, isCompressionStudy } from "../study/compression.ts";
import { resultsOf } from "../study/compression-answers.ts";
import {
  answerLine,
  type CompressionResult,
  compressionHeader,
  compressionRow,
} from "../study/compression-report.ts";
import { study as runStudy, type StudyOptions, type StudyResult } from "../study/spectra.ts";
import { sections } from "../study/suite-report.ts";
import { execute, type SharedOptions, sharedOptions } from "./command.ts";
import { duration } from "./progress.ts";
import { table } from "./table.ts";

export function study(program: Command): void {
  const command = program
    .command("study")
    .description(
      "train a grid of models, make others from them, and answer a study's questions; start it again to go on",
    )
    .argument("<recipe>", "YAML file, as recipes/spectra.yaml")
    .requiredOption("-o, --out <folder>", "folder of the runs, their results and the report")
    .option("--only <names>", "only these runs: float-*, *-0.1M-*, ablation-*; several with commas")
    .option("--redo", "runs whose recipe or text changed begin anew")
    .option("--dry-run", "list the runs with the time they are likely to take");
  sharedOptions(command).action((recipe: string, options: SharedOptions & Omit<StudyOptions, "recipe">) => {
    const { json, quiet, ...settings } = options;
    const run = { ...settings, recipe };
    return execute(
      options,
      async (job) => ((await isCompressionStudy(recipe)) ? compressionStudy(run, job) : runStudy(run, job)),
      (record) => {
        if ("answers" in record) return showCompression(record);
        return options.dryRun ? showPlan(record) : showFindings(record);
      },
    );
  });
}

function showPlan({ runs }: Record<StudyResult>): string {
  const left = runs
    .filter(({ state }) => state !== "finished")
    .reduce((sum, { seconds }) => sum + seconds, 0);
  return [
    table(
      ["run", "state", "tokens", "time"],
      runs.map(({ name, state, tokens, seconds }) => [
        name,
        state,
        Math.round(tokens).toLocaleString("en-US"),
        `${state === "finished" ? "" : "about "}${duration(seconds)}`,
      ]),
    ),
    "",
    `${runs.length} runs, about ${duration(left)} of training left`,
  ].join("\n");
}

function showFindings(record: Record<StudyResult>): string {
  const tables = sections(record)
    .filter(({ detail }) => !detail)
    .flatMap(({ title, header, rows }) => [title, "", table(header, rows), ""]);
  return [...record.protocol, "", ...tables, `Written: ${record.written.join(", ")}`].join("\n");
}

function showCompression({ runs, failed, answers, note }: Record<CompressionResult>): string {
  return [
    ...(note ? [note, ""] : []),
    table([...compressionHeader], resultsOf(runs).map(compressionRow)),
    "",
    ...answers.map(answerLine),
    ...failed.map(({ candidate, why }) => `failed: ${candidate}: ${why}`),
  ].join("\n");
}
