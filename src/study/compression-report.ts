import { differenceText } from "../evaluation/words.ts";
import { type Answer, type CandidateResult, resultsOf } from "./compression-answers.ts";
import type { CompressionRun } from "./compression-run.ts";

export interface CompressionResult {
  readonly runs: readonly CompressionRun[];
  /** Candidates whose options this version refuses, or that fail, with the reason. */
  readonly failed: readonly { readonly candidate: string; readonly why: string }[];
  readonly answers: readonly Answer[];
  readonly note?: string;
}

/** Columns of the comparison, the same on the terminal and in the report. */
export const compressionHeader = [
  "candidate",
  "bits",
  "seeds",
  "Δ loss, choosing",
  "Δ loss [95 %]",
  "seeds ±",
  "KL",
  "same top",
  "seconds",
  "bits by use",
] as const;

export function compressionRow(one: CandidateResult): string[] {
  const { mean, low, high } = one.report;
  return [
    one.candidate,
    one.bits.toFixed(3),
    String(one.seeds),
    one.choose.mean.toFixed(4),
    differenceText(mean, low, high),
    one.amongSeeds?.toFixed(4) ?? "",
    one.klMean.toPrecision(3),
    `${(100 * one.sameTop1).toFixed(1)} %`,
    one.seconds.toFixed(0),
    Object.entries(one.split)
      .map(([use, bits]) => `${use} ${bits.toFixed(3)}`)
      .join(", "),
  ];
}

/** An answer with what it rests on, as one line. */
export function answerLine({ ask, best, rival, share, difference, verdict }: Answer): string {
  if (!best || !rival || !difference) return `${ask} ${verdict}`;
  const against = share === 1 ? rival.candidate : `${share} of ${rival.candidate}`;
  const { mean, low, high } = difference;
  const losses = `${best.report.mean.toFixed(4)} at ${best.bits.toFixed(3)} bits, ${rival.report.mean.toFixed(4)} at ${rival.bits.toFixed(3)}`;
  return `${ask} ${verdict}: ${best.candidate} against ${against}, ${differenceText(mean, low, high)} (${losses})`;
}

/** The study as Markdown: all candidates in the order of bits, and the answers. */
export function compressionMarkdown({ runs, failed, answers, note }: CompressionResult): string {
  const line = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  return [
    ...(note ? [note, ""] : []),
    line(compressionHeader),
    line(compressionHeader.map(() => "---")),
    ...resultsOf(runs).map((one) => line(compressionRow(one))),
    "",
    ...answers.map((answer) => `- ${answerLine(answer)}`),
    ...failed.map(({ candidate, why }) => `- failed: ${candidate}: ${why}`),
    "",
  ].join("\n");
}
