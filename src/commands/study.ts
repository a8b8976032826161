import type { Command } from "commander";
import { differenceText } from "../evaluation/words.ts";
import type { Record } from "../record/record.ts";
import { type CompressionResult, compressionStudy, isCompressionStudy } from "../study/compression.ts";
import { resultsOf } from "../study/compression-answers.ts";
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
  const header = [
    "candidate",
    "bits",
    "seeds",
    "Δ loss, choosing",
    "Δ loss [95 %]",
    "seeds ±",
    "KL",
    "same top",
    "seconds",
    "split",
  ];
  const rows = resultsOf(runs).map((one) => [
    one.candidate,
    one.bits.toFixed(3),
    String(one.seeds),
    one.choose.mean.toFixed(4),
    differenceText(one.report.mean, one.report.low, one.report.high),
    one.amongSeeds?.toFixed(4) ?? "",
    one.klMean.toPrecision(3),
    `${(100 * one.sameTop1).toFixed(1)} %`,
    one.seconds.toFixed(0),
    Object.entries(one.split)
      .map(([use, bits]) => `${use} ${bits.toFixed(3)}`)
      .join(", "),
  ]);
  const said = answers.map(({ ask, best, rival, share, difference, verdict }) => {
    if (!best || !rival || !difference) return `${ask} ${verdict}`;
    const against = share === 1 ? rival.candidate : `${share} of ${rival.candidate}`;
    const { mean, low, high } = difference;
    const sizes = `${best.report.mean.toFixed(4)} at ${best.bits.toFixed(3)} bits, ${rival.report.mean.toFixed(4)} at ${rival.bits.toFixed(3)}`;
    return `${ask} ${verdict}: ${best.candidate} against ${against}, ${differenceText(mean, low, high)} (${sizes})`;
  });
  return [
    ...(note ? [note, ""] : []),
    table(header, rows),
    "",
    ...said,
    ...failed.map(({ candidate, why }) => `failed: ${candidate}: ${why}`),
  ].join("\n");
}
