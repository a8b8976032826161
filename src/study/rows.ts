import { differenceText } from "../evaluation/words.ts";
import type { Candidate } from "./candidate.ts";

/** Columns of the comparison, the same on the terminal and in the report. */
export const candidateHeader = [
  "model",
  "bytes",
  "bits/weight linear",
  "bits/weight file",
  "loss ± error",
  "Δ loss [95 %]",
  "KL",
  "KL 99 %",
  "same top",
  "tokens/s",
  "seconds",
] as const;

export function candidateRow(c: Candidate): string[] {
  const d = c.difference;
  const interval = d === undefined || c.reference ? "" : differenceText(d.mean, d.low, d.high);
  return [
    c.name,
    c.bytes.toLocaleString("en-US"),
    c.bitsPerWeight.linear.toFixed(3),
    c.bitsPerWeight.total.toFixed(3),
    `${c.loss.mean.toFixed(4)}${c.loss.standardError === undefined ? "" : ` ± ${c.loss.standardError.toFixed(4)}`}`,
    interval,
    c.divergence && !c.reference ? c.divergence.klMean.toPrecision(3) : "",
    c.divergence && !c.reference ? c.divergence.kl99.toPrecision(3) : "",
    c.divergence && !c.reference ? `${(100 * c.divergence.sameTop1).toFixed(1)} %` : "",
    c.tokensPerSecond.toFixed(0),
    c.seconds === undefined ? "" : c.seconds.toFixed(1),
  ];
}
