import { writeAt, writeError, writeFileAtomic } from "../files/disk.ts";
import { fs, paths } from "../files/node.ts";
import { sizeOf } from "../tensor/tensor.ts";
import type { Checkpoint } from "./checkpoint.ts";
import type { Recipe } from "./recipe.ts";
import type { SeenMatrix, Trainer } from "./trainer.ts";
import {
  BINS,
  isHeader,
  isSample,
  type MatrixSample,
  parseWeightsLine,
  RANGE,
  type WeightsHeader,
  type WeightsSample,
} from "./weights-log.ts";

const NAME = "weights.jsonl";
/** Measurements of a run, unless its recipe says otherwise, */
const SAMPLES = 100;
/**
 * or fewer, with so many tokens between them: measuring takes some 12 ns a
 * weight and training at least 40 ps a weight and token, so that it stays
 * around half a percent of the time.
 */
const TOKENS_BETWEEN = 1 << 16;
/** How far from a whole number of steps a level may lie: float32's error in γ·k and its quotient, k up to 127. */
const GRID_ERROR = 1e-3;
const LARGEST_CODE = 127;

/** What is measured of one matrix, and the codes that the next measurement compares with. */
export interface Measured extends Omit<MatrixSample, "flips"> {
  readonly codes?: Int8Array;
}

/**
 * Zeros, codes, scale and histogram of a matrix: W (rows, cols) as trained, Ŵ
 * as its layer sees it. Families are told apart by nothing but these numbers:
 *
 *   γ_r = mean of |ŵ| over the row's ŵ ≠ 0        histogram of w/γ_r
 *   code = round(ŵ/u_r), u_r = min of |ŵ| over the row's ŵ ≠ 0, where all
 *          ŵ/u_r of the row are whole numbers up to 127; else sign(ŵ)
 *
 * So a ternary or binary weight's code is its sign and a level of a uniform
 * grid its number of steps. Where weights have scales of their own (an outer
 * product of vectors, a mix with the float weight) it is the sign. A row in
 * which the finest level is vacated counts its levels anew.
 */
export function measureMatrix({ rows, cols, W, Ŵ }: SeenMatrix): Measured {
  const isRounded = Ŵ !== W;
  const codes = isRounded ? new Int8Array(W.length) : undefined;
  const scales = new Float64Array(rows);
  let zeros = 0;
  let squares = 0;
  for (let r = 0; r < rows; r++) {
    const from = r * cols;
    const to = from + cols;
    let sum = 0;
    let least = Number.POSITIVE_INFINITY;
    let most = 0;
    let nonzero = 0;
    for (let i = from; i < to; i++) {
      squares += W[i] * W[i];
      const size = Math.abs(Ŵ[i]);
      sum += size;
      if (size > most) most = size;
      if (size === 0) continue;
      nonzero++;
      if (size < least) least = size;
    }
    zeros += cols - nonzero;
    scales[r] = nonzero > 0 ? sum / nonzero : 0;
    if (codes && nonzero > 0) codeRow(Ŵ, from, to, least, most, codes);
  }
  const scale = meanOfPositive(scales);
  const counted = { norm: Math.sqrt(squares), scale, histogram: countBins(W, cols, scales, scale) };
  return codes ? { ...counted, zeros, codes } : counted;
}

/** Codes of a row whose magnitudes beside 0 are from `least` to `most`. */
function codeRow(Ŵ: Float32Array, from: number, to: number, least: number, most: number, codes: Int8Array) {
  const perUnit = 1 / least;
  let error = 0;
  if (most * perUnit < LARGEST_CODE + 0.5) {
    for (let i = from; i < to; i++) {
      const steps = Ŵ[i] * perUnit;
      // Rounds half up: cutting is rounding down where all is positive.
      const code = ((steps + LARGEST_CODE + 1.5) | 0) - (LARGEST_CODE + 1);
      const off = Math.abs(steps - code);
      if (off > error) error = off;
      codes[i] = code;
    }
    if (error <= GRID_ERROR) return;
  }
  for (let i = from; i < to; i++) codes[i] = Math.sign(Ŵ[i]);
}

/** Of the rows that have a scale; 1 for a matrix of zeros. */
function meanOfPositive(scales: Float64Array): number {
  let sum = 0;
  let count = 0;
  for (const scale of scales) {
    if (scale === 0) continue;
    sum += scale;
    count++;
  }
  return count > 0 ? sum / count : 1;
}

/** How many of w/γ_r are in each bin of RANGE; a row without a scale takes the matrix's. */
function countBins(W: Float32Array, cols: number, scales: Float64Array, scale: number): number[] {
  const [low, high] = RANGE;
  const bins = new Int32Array(BINS);
  const perUnit = BINS / (high - low);
  const below = low * perUnit;
  for (let r = 0; r < scales.length; r++) {
    const factor = perUnit / (scales[r] || scale);
    for (let i = r * cols; i < (r + 1) * cols; i++) {
      const place = W[i] * factor - below;
      bins[place < 0 ? 0 : place >= BINS ? BINS - 1 : place | 0]++;
    }
  }
  return Array.from(bins);
}

/** Weights whose codes differ. */
export function countFlips(before: Int8Array, now: Int8Array): number {
  let flips = 0;
  for (let i = 0; i < now.length; i++) if (before[i] !== now[i]) flips++;
  return flips;
}

/**
 * Measures the linear matrices of a run from time to time into weights.jsonl.
 * Training never sees it: parameters are read, nothing is written to them. The
 * codes of the last measurement are kept with each checkpoint, so that a run
 * that was interrupted writes the lines that it would have written.
 */
export class WeightsWatch {
  readonly #path: string;
  readonly #trainer: Trainer;
  readonly #steps: number;
  readonly #every: number;
  #bytes: number;
  #codes = new Map<string, Int8Array>();

  private constructor(path: string, bytes: number, trainer: Trainer, steps: number, every: number) {
    this.#path = path;
    this.#bytes = bytes;
    this.#trainer = trainer;
    this.#steps = steps;
    this.#every = every;
  }

  /** Cuts weights.jsonl in `out` to what it was at the checkpoint; without one it begins with the weights before the first step. */
  static async open(
    out: string,
    trainer: Trainer,
    recipe: Recipe,
    steps: number,
    checkpoint: Checkpoint | undefined,
  ): Promise<WeightsWatch> {
    const path = paths().join(out, NAME);
    const every = recipe.measureEvery ?? usualDistance(recipe, steps);
    const kept = checkpoint ? await bytesUpTo(path, checkpoint.step) : 0;
    if (kept === 0) await writeFileAtomic(path, new Uint8Array());
    else await fs().truncate(path, kept);
    const watch = new WeightsWatch(path, kept, trainer, steps, every);
    watch.#restore(checkpoint);
    if (kept === 0) await watch.#writeHeader(recipe.family);
    if (!checkpoint) await watch.#measure(0);
    return watch;
  }

  /** To be called after each step, before its checkpoint. */
  async after(step: number): Promise<void> {
    if (step % this.#every === 0 || step === this.#steps) await this.#measure(step);
  }

  /** What a checkpoint keeps for `open`: four codes in the bits of each number. */
  state(): Map<string, Float32Array> {
    const state = new Map<string, Float32Array>();
    for (const [name, codes] of this.#codes) {
      const packed = new Int8Array(4 * Math.ceil(codes.length / 4));
      packed.set(codes);
      state.set(`codes/${name}`, new Float32Array(packed.buffer));
    }
    return state;
  }

  #restore(checkpoint: Checkpoint | undefined): void {
    for (const [key, packed] of checkpoint?.tensors ?? []) {
      if (!key.startsWith("codes/")) continue;
      this.#codes.set(
        key.slice("codes/".length),
        new Int8Array(packed.buffer, packed.byteOffset, packed.byteLength),
      );
    }
  }

  async #writeHeader(family: string): Promise<void> {
    const { model, wholeMatrices } = this.#trainer;
    const header: WeightsHeader = {
      lowbit: "weights",
      version: 1,
      family,
      steps: this.#steps,
      every: this.#every,
      parameters: model.tensors.reduce((sum, { shape }) => sum + sizeOf(shape), 0),
      stateBytes: this.#trainer.stateBytes,
      range: RANGE,
      matrices: wholeMatrices.map(({ name, shape: [rows, cols] }) => ({ name, rows, cols })),
    };
    await this.#append(header);
  }

  async #measure(step: number): Promise<void> {
    const start = performance.now();
    const matrices: MatrixSample[] = [];
    for await (const seen of this.#trainer.matrices({ step, steps: this.#steps })) {
      const { codes, ...sample } = measureMatrix(seen);
      const before = this.#codes.get(seen.name);
      matrices.push(codes && before ? { ...sample, flips: countFlips(before, codes) } : sample);
      if (codes) this.#codes.set(seen.name, codes);
    }
    const seconds = (performance.now() - start) / 1000;
    const memory = typeof process === "object" ? { memoryBytes: process.memoryUsage.rss() } : {};
    await this.#append({ step, matrices, timing: { seconds, ...memory } });
  }

  async #append(line: WeightsHeader | WeightsSample): Promise<void> {
    const bytes = new TextEncoder().encode(`${JSON.stringify(line)}\n`);
    try {
      const file = await fs().open(this.#path, "r+");
      try {
        await writeAt(file, bytes, this.#bytes);
        await file.sync(); // a checkpoint that follows counts on it
      } finally {
        await file.close();
      }
    } catch (error) {
      throw writeError(NAME, error);
    }
    this.#bytes += bytes.byteLength;
  }
}

function usualDistance({ batch, model }: Recipe, steps: number): number {
  return Math.max(Math.floor(steps / SAMPLES), Math.ceil(TOKENS_BETWEEN / (batch * model.context)));
}

/** Bytes of the lines that were whole at a step; 0 when the file is absent or begins otherwise. */
async function bytesUpTo(path: string, step: number): Promise<number> {
  const text = await fs()
    .readFile(path)
    .catch(() => new Uint8Array());
  let end = 0;
  for (let next = text.indexOf(10); next >= 0; next = text.indexOf(10, end)) {
    const line = lineOf(new TextDecoder().decode(text.subarray(end, next)));
    if (!line || isHeader(line) !== (end === 0) || (!isHeader(line) && line.step > step)) break;
    end = next + 1;
  }
  return end;
}

function lineOf(text: string): WeightsHeader | WeightsSample | undefined {
  try {
    return parseWeightsLine(JSON.parse(text));
  } catch {
    return undefined;
  }
}

/** All measurements of a run; nothing where there are none. */
export async function readWeightsLog(
  out: string,
): Promise<{ readonly header?: WeightsHeader; readonly samples: readonly WeightsSample[] }> {
  const text = await fs()
    .readFile(paths().join(out, NAME), "utf8")
    .catch(() => "");
  const lines = text.split("\n").flatMap((line) => lineOf(line) ?? []);
  return { header: lines.find(isHeader), samples: lines.filter(isSample) };
}
