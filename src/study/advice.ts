import { signed } from "../evaluation/words.ts";
import type { Candidate } from "./candidate.ts";

/**
 * Largest loss increase that we call no loss, nats per token: 0.02 nats is 2 %
 * of perplexity, about what a tenth fewer training tokens cost these models.
 */
export const TOLERANCE = 0.02;

export interface Advice {
  readonly rule: string;
  readonly tolerance: number;
  /** Name of the candidate to take; absent when none passes. */
  readonly choice?: string;
  readonly sentence: string;
}

/**
 * Which bit width to take: the smallest file whose paired loss increase over
 * the reference has a 95 % upper limit below the tolerance; else none. Of files
 * of one size the one that loses least. A candidate whose interval is not known (fewer than two windows) never passes.
 */
export function advise(candidates: readonly Candidate[], tolerance = TOLERANCE): Advice {
  const rule = `the smallest file whose paired loss increase has a 95 % upper limit below ${tolerance} nats per token`;
  const reference = candidates.find((candidate) => candidate.reference);
  const passing = candidates
    .filter((c) => !c.reference && c.difference?.high !== undefined && c.difference.high < tolerance)
    .filter((c) => reference === undefined || c.bytes < reference.bytes)
    .sort((a, b) => a.bytes - b.bytes || a.difference!.mean - b.difference!.mean);
  const best = passing[0];
  if (!best) {
    const sentence = `Advice: keep the ${reference?.name ?? "original"}; no smaller file stays below a loss increase of ${tolerance} nats per token with 95 % certainty.`;
    return { rule, tolerance, sentence };
  }
  const times = reference
    ? `, ${(reference.bytes / best.bytes).toFixed(1)} times smaller than ${reference.name}`
    : "";
  const sentence = `Advice: take ${best.name} (${best.bitsPerWeight.linear.toFixed(2)} bits per weight in its linear layers${times}); it is the smallest file whose loss increase stays below ${tolerance} nats per token with 95 % certainty (upper limit ${signed(best.difference!.high!)}).`;
  return { rule, tolerance, choice: best.name, sentence };
}
