import { z } from "zod";
import { type Coded, type GroupFormat, groupSize, storeF16 } from "../formats/format.ts";
import { InputError, type Matrix } from "../tensor/tensor.ts";
import { packOneScale } from "./exact-levels.ts";
import type { Rounding, TrainedMethod, TrainedRounding } from "./method.ts";

/** ε of the scale, so that a matrix of zeros has one. */
const EPSILON = 1e-5;

const paper = "Kaushal et al., 2024 (https://arxiv.org/abs/2407.12327)";

/**
 * TriLM's linear layer: one scale a matrix, every weight −γ, 0 or γ.
 *
 *   γ = f16(ε + mean|W|),  Ŵ = γ·round(clip(W/γ, −1, 1));  dW = dŴ (straight through)
 *
 * Kaushal et al., 2024 (https://arxiv.org/abs/2407.12327), section 3.1. γ is
 * rounded to the fp16 of the file in training already, so that the packed
 * matrix is the trained one, weight by weight.
 */
const rounding: TrainedRounding = {
  kind: "trained",
  name: "trilm",
  paper,
  formats: ["tq2_0", "trits", "int2"],
  forward: (ops, W) => ops.ternary(W, EPSILON),

  export: (W, format, { backend }) => packOneScale(rounding, "ternary", W, [EPSILON], format, backend),
};

export const trilm: TrainedMethod = {
  name: "trilm",
  paper,
  options: z.strictObject({}).prefault({}),
  with: () => rounding,
};

export interface TernaryOptions {
  /** Parts of the matrix with a scale of their own, as trained on several devices: equal slabs of its rows or its columns. */
  readonly shards?: { readonly count: number; readonly along: "rows" | "cols" };
}

/**
 * The same rounding of a matrix that exists: of TriLM's float weights, or of
 * weights that are γ·{−1, 0, 1} already, as its authors publish them; these
 * give γ and codes back exactly, whatever their shards.
 */
export const trilmRounding: Rounding<TernaryOptions> = {
  kind: "rounding",
  name: "trilm",
  paper,
  calibrated: false,

  async quantize(W, format, _context, { shards = { count: 1, along: "rows" } } = {}) {
    const { rows, cols, data } = W;
    format.parts(rows, cols); // refuses a row that whole groups do not fill
    const size = groupSize(format, rows, cols);
    const found = ternaryScales(W, size);
    if (found) return codesOf(W, format, (r, c) => found[(r * cols + c) / size]);

    const length = (shards.along === "rows" ? rows : cols) / shards.count;
    const neighbours = shards.along === "rows" ? length * cols : length;
    if (!Number.isInteger(length) || (shards.count > 1 && neighbours % size !== 0)) {
      throw new InputError(
        `trilm: ${shards.count} shards along the ${shards.along} of ${rows}×${cols} must each hold whole groups of ${size}`,
      );
    }
    const shardOf = (r: number, c: number) => Math.floor((shards.along === "rows" ? r : c) / length);
    const sums = new Float64Array(shards.count);
    for (let i = 0; i < data.length; i++) sums[shardOf(Math.floor(i / cols), i % cols)] += Math.abs(data[i]);
    const scales = Array.from(sums, (sum) =>
      storeF16("trilm", "scale", EPSILON + sum / (data.length / shards.count)),
    );
    return codesOf(W, format, (r, c) => scales[shardOf(r, c)]);
  },
};

/**
 * The scale of each group of a matrix that is ternary already: its only
 * magnitude beside 0, as fp16, or where all is 0 the one before. Undefined
 * for other matrices.
 */
function ternaryScales({ data }: Matrix, size: number): number[] | undefined {
  const scales: number[] = [];
  let scale = Math.abs(data.find((w) => w !== 0) ?? 0);
  for (let from = 0; from < data.length; from += size) {
    const w = data.subarray(from, from + size);
    scale = Math.abs(w.find((x) => x !== 0) ?? scale);
    if (!w.every((x) => x === 0 || Math.abs(x) === scale)) return undefined;
    scales.push(storeF16("trilm", "scale", scale));
  }
  return scales;
}

/** Each weight at the level nearest to it, the scale of a group being that of its first weight (r, c). */
function codesOf(W: Matrix, format: GroupFormat, scaleAt: (r: number, c: number) => number): Coded {
  const { rows, cols, data } = W;
  const size = groupSize(format, rows, cols);
  const codes = new Uint8Array(data.length);
  const parameters = Array.from({ length: (rows * cols) / size }, (_, g) => {
    const from = g * size;
    const scale = scaleAt(Math.floor(from / cols), from % cols);
    const group = { scale, offset: 0 };
    if (format.value(format.nearest(-scale, group), group) !== -scale) {
      throw new InputError(`trilm: ${format.name} has no levels −γ, 0 and γ; use tq2_0, tq1_0 or int2`);
    }
    for (let i = from; i < from + size; i++) codes[i] = format.nearest(clip(data[i], scale), group, i - from);
    return group;
  });
  return { codes, parameters };
}

/** Formats with more than three levels (int2) would take a weight beyond −γ … γ to another one. */
function clip(w: number, scale: number): number {
  return Math.min(scale, Math.max(-scale, w));
}
