import { type PowerLaw, powerLawOf } from "../evaluation/power-law.ts";
import { percentiles } from "../evaluation/resample.ts";
import { type Cluster, type Interval, pairedDifference } from "../evaluation/statistics.ts";
import type { Estimated, Replicates } from "./replicates.ts";
import { type Combination, combinationName, combinations } from "./suite.ts";

/** A family of the suite at one size: what the questions are asked of. */
export interface Cell {
  readonly family: string;
  readonly size: string;
  /** All parameters as Spectra counts them: linear layers, embedding and head. */
  readonly N: number;
  readonly linear: number;
  /** 16·(embedding and head) + b·linear, b the family's bits. */
  readonly bits: number;
  /** Of the weights' files; the mean of the models. */
  readonly bytes: number;
  readonly format: string;
  /** Models of other seeds and calibration sets. */
  readonly models: number;
  readonly seeds: number;
  readonly loss: Estimated;
}

/** A law fitted to the losses of one family. */
export interface Fit {
  readonly family: string;
  /** What N counts. */
  readonly by: "total" | "linear";
  readonly offset: boolean;
  readonly sizes: number;
  readonly A: Estimated;
  readonly alpha: Estimated;
  readonly E: Estimated;
  readonly rms: number;
  /**
   * The sizes say what E is: there are more of them than the law has parameters, its interval
   * excludes 0, and at most 2.5 % of the resamples are at a bound. Always false without offset.
   */
  readonly identified: boolean;
}

/** Difference of two families at one size, nats per token. */
export interface Gap extends Estimated {
  readonly of: string;
  readonly against: string;
  readonly size: string;
  readonly N: number;
}

/** The law of a family: without offset it needs two sizes, with it three; undefined where there are fewer. */
export function fitOf(
  cells: readonly Cell[],
  family: string,
  by: "total" | "linear",
  offset: boolean,
  replicates: Replicates,
): Fit | undefined {
  const own = cells.filter((cell) => cell.family === family);
  if (own.length < (offset ? 3 : 2)) return undefined;
  const N = own.map((cell) => (by === "total" ? cell.N : cell.linear));
  const law = powerLawOf(N, { offset });
  const { measured, resampled } = replicates.apply((loss) => law(own.map(({ size }) => loss(family, size))));
  const of = (key: "A" | "alpha" | "E") => ({
    value: measured[key],
    ...percentiles(resampled.map((found: PowerLaw) => found[key])),
  });
  const E = of("E");
  const bound = resampled.filter(({ atBound }) => atBound).length / resampled.length;
  return {
    family,
    by,
    offset,
    sizes: own.length,
    A: of("A"),
    alpha: of("alpha"),
    E,
    rms: measured.rms,
    identified: offset && own.length > 3 && E.low > 0 && !measured.atBound && bound <= 0.025,
  };
}

/** The difference of two families at every size where both were measured. */
export function gapsOf(
  cells: readonly Cell[],
  of: string,
  against: string,
  replicates: Replicates,
  level?: number,
): Gap[] {
  return cells
    .filter(({ family, size }) => family === of && replicates.has(against, size))
    .map(({ size, N }) => ({
      of,
      against,
      size,
      N,
      ...replicates.estimate((loss) => loss(of, size) - loss(against, size), level),
    }));
}

/** Loss of a run of the ablation. */
export interface AblationRun {
  readonly combination: Combination;
  readonly seed: number;
  /** Of the stored model on the whole held-out text, nats per token. */
  readonly loss: number;
}

export interface Ablation {
  readonly combinations: readonly {
    readonly name: string;
    readonly losses: readonly number[];
    readonly mean: number;
  }[];
  readonly seeds: readonly number[];
  /** Mean of `of` − `against` over the seeds, with Student's 95 % interval. */
  readonly differences: readonly (Interval & { readonly of: string; readonly against: string })[];
}

/**
 * The four schedules at equal seeds, which are equal first weights and equal
 * batches: each pair's difference of final loss, paired by seed. Undefined when fewer than two
 * seeds have all four.
 */
export function ablationOf(runs: readonly AblationRun[]): Ablation | undefined {
  const lossOf = (combination: Combination, seed: number) =>
    runs.find((run) => run.seed === seed && combinationName(run.combination) === combinationName(combination))
      ?.loss;
  const seeds = [...new Set(runs.map(({ seed }) => seed))].filter((seed) =>
    combinations.every((combination) => lossOf(combination, seed) !== undefined),
  );
  if (seeds.length < 2) return undefined;
  const all = combinations.map((combination) => {
    const losses = seeds.map((seed) => lossOf(combination, seed)!);
    return {
      name: combinationName(combination),
      losses,
      mean: losses.reduce((sum, loss) => sum + loss, 0) / losses.length,
    };
  });
  // A seed is one cluster of one observation: the interval is then the usual one of a paired t test.
  const clusters = (losses: readonly number[]): Cluster[] => losses.map((sum) => ({ sum, count: 1 }));
  const differences = all.flatMap((of, i) =>
    all.slice(i + 1).map((against) => ({
      of: of.name,
      against: against.name,
      ...pairedDifference(clusters(of.losses), clusters(against.losses)),
    })),
  );
  return { combinations: all, seeds, differences };
}
