import { z } from "zod";
import { decodeWeight, encodeWeight, formatByName } from "../formats/index.ts";
import { halfAway } from "../tensor/rounding.ts";
import { InputError, type Matrix } from "../tensor/tensor.ts";
import type { Weight } from "../tensor/weight.ts";
import { choleskyOf } from "./cholesky.ts";
import { type LowRank, lowRankOf, timesLower } from "./low-rank.ts";
import type { Decomposition } from "./method.ts";
import { damp, prepare } from "./spread-errors.ts";
import { checkVectorOptions, difference, vectorCodes } from "./vector-codes.ts";

const options = z.strictObject({
  /** Bits of a code for each weight: 1.5, 2, 3, … */
  bits: z.number().min(0.5).max(8).default(2),
  /** d: weights of a vector. */
  length: z.union([z.literal(1), z.literal(2), z.literal(4), z.literal(8)]).default(2),
  /** Weights of a row that share a scale. Default: the row. */
  group: z.int().min(1).optional(),
  /** Of the low-rank part; 0 leaves it away. Default: 1/64 of the narrower side, at least 1. */
  rank: z.int().min(0).optional(),
  /** How its two factors are stored. */
  factors: z.enum(["f16", "bf16", "int8", "int4"]).default("f16"),
  /** Rounds of fitting low rank and codes in turn, at most. */
  rounds: z.int().min(1).default(20),
  /** Share of its mean that is added to the diagonal of H. */
  damping: z.number().positive().default(0.01),
  seed: z.int().default(0),
});

export type ReallmOptions = z.infer<typeof options>;

/**
 * ReALLM, path A: W ≈ A·B + codes of vectors, a low-rank part kept precisely
 * and the rest in k-means codes under group scales.
 *
 *   repeat   A·B = low rank of (W − Q),  Q = codes of (W − A·B)
 *   until the error rises; the best round is kept
 *
 * Errors are tr(E·H·Eᵀ) with calibration, else ‖E‖². With calibration the codes of the last round are chosen again with
 * errors spread over the columns to come, and the low-rank part is fitted once more to what is then left.
 *
 * Leconte, Bedin, Nguyen and Moulines, 2024 (https://arxiv.org/abs/2405.13155); the alternation as in their code
 * (https://github.com/LisaBedin/ReALLM, models/lq_utils.py). Ours: vectors lie along rows, scales are root mean squares
 * in bytes, and H takes the place of their diagonal Fisher weights.
 */
export const reallm: Decomposition<ReallmOptions> = {
  kind: "decomposition",
  name: "reallm",
  paper: "Leconte et al., 2024 (https://arxiv.org/abs/2405.13155)",
  calibrated: false,
  options,

  check({ rows, cols }, chosen) {
    const settings = settle({ rows, cols }, chosen);
    checkVectorOptions("reallm", { rows, cols }, settings);
    const most = Math.min(rows, cols);
    if (settings.rank > most) {
      throw new InputError(
        `reallm: a rank of ${settings.rank} is more than ${most}, the most of ${rows}×${cols}`,
      );
    }
  },

  async decompose(source, context, chosen) {
    const { backend, signal } = context;
    const { W, H } = context.H
      ? await prepare("reallm", source, context.H, backend)
      : { W: source, H: undefined };
    const settings = { ...settle(W, chosen), signal };
    if (settings.rank === 0) return vectorCodes(backend, W, { ...settings, H });

    const L = H && (await choleskyOf(backend, damped(H, settings.damping), { signal }));
    try {
      const errorOf = async (E: Matrix) => squares(L ? await timesLower(backend, E, L, { signal }) : E);
      const lowOf = async (A: Matrix) =>
        stored(await lowRankOf(backend, A, { rank: settings.rank, L, signal }), settings.factors);
      let best: { low: Weight; codes: Weight; error: number } | undefined;
      let rest = W;
      for (let round = 0; round < settings.rounds; round++) {
        const low = await lowOf(rest);
        const lowMatrix = decodeWeight(low);
        const codes = await vectorCodes(backend, difference(W, lowMatrix), {
          ...settings,
          H,
          nearest: true,
        });
        rest = difference(W, decodeWeight(codes));
        const error = await errorOf(difference(rest, lowMatrix));
        if (best && error >= best.error) break;
        best = { low, codes, error };
      }
      if (!H) return sum(W, best!.codes, best!.low);
      const codes = await vectorCodes(backend, difference(W, decodeWeight(best!.low)), { ...settings, H });
      return sum(W, codes, await lowOf(difference(W, decodeWeight(codes))));
    } finally {
      if (L) backend.free(L);
    }
  },
};

function settle({ rows, cols }: { rows: number; cols: number }, chosen: ReallmOptions) {
  const { bits, length, group = cols, rank = Math.max(1, Math.floor(Math.min(rows, cols) / 64)) } = chosen;
  return { ...chosen, group, rank, length, entries: halfAway(2 ** (bits * length)) };
}

function stored({ a, b }: LowRank, format: string): Weight {
  const part = ({ rows, cols, data }: Matrix) => encodeWeight(formatByName(format), [rows, cols], data);
  return { shape: [a.rows, b.cols], expression: { kind: "lowRank", a: part(a), b: part(b) } };
}

function sum({ rows, cols }: Matrix, ...terms: Weight[]): Weight {
  return { shape: [rows, cols], expression: { kind: "sum", terms } };
}

function damped(H: Float32Array, damping: number): Float32Array {
  const result = H.slice();
  damp(result, Math.sqrt(H.length), damping);
  return result;
}

function squares(E: Matrix): number {
  return E.data.reduce((sum, e) => sum + e * e, 0);
}
