import { type Cluster, type Interval, pairedDifference } from "../evaluation/statistics.ts";
import type { CompressionQuestion, CompressionRun } from "./compression-run.ts";
import { chosen } from "./grid.ts";

/** A candidate over all its seeds. */
export interface CandidateResult {
  readonly candidate: string;
  readonly seeds: number;
  readonly bits: number;
  readonly split: Readonly<{ [use: string]: number }>;
  readonly bytes: number;
  readonly seconds: number;
  /** Loss above the float model's on the split that is chosen by. */
  readonly choose: Interval;
  readonly report: Interval;
  /** Standard deviation of the loss on the reported split among the seeds; absent with one. */
  readonly amongSeeds?: number;
  readonly klMean: number;
  readonly sameTop1: number;
}

/** What the measurements say to a question. */
export interface Answer {
  readonly ask: string;
  readonly bits: readonly [number, number];
  /** The best of both sides by the split that is chosen by; undefined where nothing was measured. */
  readonly best?: CandidateResult;
  readonly rival?: CandidateResult;
  readonly share: number;
  /** Loss of the best minus `share` times that of the rival, on the reported split, windows paired. */
  readonly difference?: Interval;
  readonly verdict: "yes" | "no" | "undecided" | "not measured";
}

/** Every candidate with its means over seeds, in the order of bits. */
export function resultsOf(runs: readonly CompressionRun[]): CandidateResult[] {
  const names = [...new Set(runs.map(({ candidate }) => candidate))];
  return names
    .map((candidate) => resultOf(candidate, of(runs, candidate)))
    .sort((a, b) => a.bits - b.bits || a.report.mean - b.report.mean);
}

function of(runs: readonly CompressionRun[], name: string): CompressionRun[] {
  return runs.filter(({ candidate }) => candidate === name);
}

function resultOf(candidate: string, runs: readonly CompressionRun[]): CandidateResult {
  const mean = (value: (run: CompressionRun) => number) =>
    runs.reduce((sum, run) => sum + value(run), 0) / runs.length;
  const uses = [...new Set(runs.flatMap(({ split }) => Object.keys(split)))];
  const losses = runs.map(({ report }) => lossOf(report.clusters).mean);
  const center = losses.reduce((a, b) => a + b, 0) / losses.length;
  const squares = losses.reduce((sum, loss) => sum + (loss - center) ** 2, 0);
  return {
    candidate,
    seeds: runs.length,
    bits: mean(({ bits }) => bits),
    split: Object.fromEntries(uses.map((use) => [use, mean(({ split }) => split[use] ?? 0)])),
    bytes: mean(({ bytes }) => bytes),
    seconds: mean(({ seconds }) => seconds),
    choose: lossOf(meanClusters(runs, "choose")),
    report: lossOf(meanClusters(runs, "report")),
    ...(runs.length > 1 ? { amongSeeds: Math.sqrt(squares / (runs.length - 1)) } : {}),
    klMean: mean(({ report }) => report.klMean),
    sameTop1: mean(({ report }) => report.sameTop1),
  };
}

/** The windows of a split, each with its mean over the seeds. */
function meanClusters(runs: readonly CompressionRun[], split: "choose" | "report"): Cluster[] {
  return runs[0][split].clusters.map(({ count }, c) => ({
    sum: runs.reduce((sum, run) => sum + run[split].clusters[c].sum, 0) / runs.length,
    count,
  }));
}

/** Mean over clusters of differences from the float model. */
function lossOf(clusters: readonly Cluster[], less?: readonly Cluster[]): Interval {
  return pairedDifference(clusters, less ?? clusters.map(({ count }) => ({ sum: 0, count })));
}

/**
 * Of both sides of a question the candidate that loses least on the split that is chosen by, and
 * whether the difference on the other split is below 0: yes or no where its 95 % interval, over windows, says so.
 */
export function answersOf(
  questions: readonly CompressionQuestion[],
  runs: readonly CompressionRun[],
): Answer[] {
  const results = resultsOf(runs);
  return questions.map(({ ask, bits, of: own, with: others, share }): Answer => {
    const best = bestOf(results, own, bits);
    const rival = bestOf(
      results.filter(({ candidate }) => candidate !== best?.candidate),
      others,
      bits,
    );
    if (!best || !rival) return { ask, bits, best, rival, share, verdict: "not measured" };
    const clusters = (name: string) => meanClusters(of(runs, name), "report");
    const scaled = clusters(rival.candidate).map(({ sum, count }) => ({ sum: share * sum, count }));
    const difference = lossOf(clusters(best.candidate), scaled);
    const { low, high } = difference;
    const verdict =
      high !== undefined && high < 0 ? "yes" : low !== undefined && low > 0 ? "no" : "undecided";
    return { ask, bits, best, rival, share, difference, verdict };
  });
}

function bestOf(
  results: readonly CandidateResult[],
  names: string,
  [from, to]: readonly [number, number],
): CandidateResult | undefined {
  return results
    .filter(({ candidate, bits }) => chosen(candidate, names) && bits >= from && bits <= to)
    .sort((a, b) => a.choose.mean - b.choose.mean)[0];
}
