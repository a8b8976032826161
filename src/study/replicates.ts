import { drawWindows, percentiles } from "../evaluation/resample.ts";
import { generator, type Random } from "../tensor/random.ts";
import { InputError } from "../tensor/tensor.ts";

/** The losses of one model on the text. */
export interface Measured {
  readonly family: string;
  readonly size: string;
  readonly seed: number;
  /** Models of one family, size and seed that differ by chance alone: calibration sets. */
  readonly repeat?: number;
  /** Sum of the losses in each window, nats. */
  readonly sums: ArrayLike<number>;
}

/** How the text is cut, the same for all models. */
export interface Cut {
  /** Windows of each document. */
  readonly documents: readonly number[];
  /** Predicted tokens of each window. */
  readonly counts: ArrayLike<number>;
}

/** Mean loss of a family at a size, nats per token. */
export type Loss = (family: string, size: string) => number;

export interface Estimated {
  readonly value: number;
  readonly low: number;
  readonly high: number;
}

/** The models of one family and size. */
interface Cell {
  /** Mean of the seeds, each the mean of its repeats: sum of each window. */
  readonly sums: Float64Array;
  /** Mean loss of each seed. */
  readonly seeds: ReadonlyMap<number, number>;
  /** Deviation of each repeat from the mean of its seed, scaled as below. */
  readonly repeats: readonly number[];
  readonly models: number;
}

/**
 * The losses of a suite and resamples of them, in which everything that could
 * have come out otherwise does: the documents and windows of the text, the
 * same for all models (`drawWindows`), and chance in training and calibration.
 *
 * Of chance there are few draws at each size, and one at the large ones. So it
 * is taken to be of one distribution at all sizes, that of the deviations
 *
 *   d = √(k/(k−1))·(L(seed) − mean of the k seeds)
 *
 * at the sizes with several seeds (the factor makes their variance right); a
 * resample adds to each size the mean of as many draws as it has seeds. A draw
 * takes the deviations of all families at one size and seed together, since
 * these start from the same weights and see the same batches. Calibration sets
 * are treated likewise, each family for itself. Davison and Hinkley, 1997,
 * section 6.2.3 (resampling of modified residuals).
 */
export class Replicates {
  /** Whether seeds are part of the intervals: there are sizes with several, of all families. */
  readonly hasSeeds: boolean;
  readonly #cells = new Map<string, Cell>();
  readonly #tokens: number;
  readonly #points = new Map<string, number>();
  /** By cell, one number for each resample. */
  readonly #resampled = new Map<string, Float64Array>();
  readonly #resamples: number;

  constructor(
    models: readonly Measured[],
    cut: Cut,
    { resamples, seed }: { readonly resamples: number; readonly seed: number },
  ) {
    this.#resamples = resamples;
    const windows = cut.counts.length;
    if (cut.documents.reduce((sum, n) => sum + n, 0) !== windows || windows === 0) {
      throw new InputError("study: the documents do not hold the windows of the text");
    }
    this.#tokens = sum(cut.counts);
    for (const key of new Set(models.map(keyOf))) {
      const cell = this.#cell(models.filter((model) => keyOf(model) === key));
      this.#cells.set(key, cell);
      this.#points.set(key, sum(cell.sums) / this.#tokens);
      this.#resampled.set(key, new Float64Array(resamples));
    }
    const pool = this.#pool(models);
    this.hasSeeds = pool.length > 0;
    this.#resample(cut, generator(seed), pool);
  }

  #cell(models: readonly Measured[]): Cell {
    const windows = models[0].sums.length;
    const seeds = new Map<number, number>();
    const repeats: number[] = [];
    const sums = new Float64Array(windows);
    const bySeed = new Map<number, Measured[]>();
    for (const model of models) bySeed.set(model.seed, [...(bySeed.get(model.seed) ?? []), model]);
    for (const [seed, same] of bySeed) {
      const losses = same.map((model) => sum(model.sums) / this.#tokens);
      const mean = sum(losses) / same.length;
      seeds.set(seed, mean);
      repeats.push(...deviations(losses));
      for (const model of same) {
        for (let w = 0; w < windows; w++) sums[w] += model.sums[w] / same.length / bySeed.size;
      }
    }
    return { sums, seeds, repeats, models: models.length };
  }

  /** Deviations of all families at each size and seed where all of them have several seeds. */
  #pool(models: readonly Measured[]): Map<string, number>[] {
    const families = [...new Set(models.map(({ family }) => family))];
    const pool: Map<string, number>[] = [];
    for (const size of new Set(models.map(({ size }) => size))) {
      const cells = families.map((family) => this.#cells.get(keyOf({ family, size })));
      const seeds = [...(cells[0]?.seeds.keys() ?? [])];
      const whole = cells.every(
        (cell) => cell?.seeds.size === seeds.length && seeds.every((seed) => cell.seeds.has(seed)),
      );
      if (!whole || seeds.length < 2) continue;
      const byFamily = cells.map((cell) => deviations(seeds.map((seed) => cell!.seeds.get(seed)!)));
      for (const i of seeds.keys()) pool.push(new Map(families.map((family, f) => [family, byFamily[f][i]])));
    }
    return pool;
  }

  #resample(cut: Cut, random: Random, pool: readonly ReadonlyMap<string, number>[]): void {
    const sizes = new Map<string, string[]>();
    const families = new Map<string, string>();
    for (const key of this.#cells.keys()) {
      const [family, size] = key.split("\0");
      families.set(key, family);
      sizes.set(size, [...(sizes.get(size) ?? []), key]);
    }
    // By family, since chance in calibration is larger the fewer the bits.
    const repeats = new Map<string, number[]>();
    for (const [key, cell] of this.#cells) {
      const family = families.get(key)!;
      repeats.set(family, [...(repeats.get(family) ?? []), ...cell.repeats]);
    }
    for (let r = 0; r < this.#resamples; r++) {
      const times = drawWindows(random, cut.documents);
      let tokens = 0;
      for (let w = 0; w < times.length; w++) tokens += times[w] * cut.counts[w];
      for (const keys of sizes.values()) {
        const most = Math.max(...keys.map((key) => this.#cells.get(key)!.seeds.size));
        const drawn = Array.from({ length: most }, () => pool[Math.floor(random() * pool.length)]);
        for (const key of keys) {
          const { sums, seeds, models } = this.#cells.get(key)!;
          let total = 0;
          for (let w = 0; w < times.length; w++) total += times[w] * sums[w];
          let loss = total / tokens;
          const family = families.get(key)!;
          for (let k = 0; k < seeds.size; k++) loss += (drawn[k]?.get(family) ?? 0) / seeds.size;
          const chance = repeats.get(family)!;
          if (chance.length > 0) {
            for (let k = 0; k < models; k++) loss += chance[Math.floor(random() * chance.length)] / models;
          }
          this.#resampled.get(key)![r] = loss;
        }
      }
    }
  }

  has(family: string, size: string): boolean {
    return this.#cells.has(keyOf({ family, size }));
  }

  seeds(family: string, size: string): number {
    return this.#cells.get(keyOf({ family, size }))?.seeds.size ?? 0;
  }

  /** A statistic of the losses as they were measured, and of each resample of them. */
  apply<T>(statistic: (loss: Loss) => T): { readonly measured: T; readonly resampled: readonly T[] } {
    const measured = statistic(this.#loss((key) => this.#points.get(key)));
    const resampled = Array.from({ length: this.#resamples }, (_, r) =>
      statistic(this.#loss((key) => this.#resampled.get(key)?.[r])),
    );
    return { measured, resampled };
  }

  /** A number, with the percentile interval of its resamples. */
  estimate(statistic: (loss: Loss) => number, level = 0.95): Estimated {
    const { measured, resampled } = this.apply(statistic);
    return { value: measured, ...percentiles(resampled, level) };
  }

  #loss(at: (key: string) => number | undefined): Loss {
    return (family, size) => {
      const loss = at(keyOf({ family, size }));
      if (loss === undefined) throw new InputError(`study: ${family} at ${size} has not been measured`);
      return loss;
    };
  }
}

function keyOf({ family, size }: { readonly family: string; readonly size: string }): string {
  return `${family}\0${size}`;
}

function sum(values: ArrayLike<number>): number {
  let total = 0;
  for (let i = 0; i < values.length; i++) total += values[i];
  return total;
}

/** Deviations from the mean, with the variance of what they are draws of; none of fewer than two. */
function deviations(values: readonly number[]): number[] {
  const k = values.length;
  if (k < 2) return [];
  const mean = sum(values) / k;
  return values.map((value) => Math.sqrt(k / (k - 1)) * (value - mean));
}
