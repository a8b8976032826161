import { z } from "zod";
import { decodeWeight } from "../formats/index.ts";
import { halfAway } from "../tensor/rounding.ts";
import type { Matrix } from "../tensor/tensor.ts";
import { sumOf, type Weight } from "../tensor/weight.ts";
import { alternate } from "./alternate.ts";
import { decoderCodes, decoderOptions, decoderSettings } from "./decoder-codes.ts";
import { checkDecoderShape } from "./decoder-shape.ts";
import { needsOf, weigh, weightings } from "./error-weights.ts";
import { checkRank, defaultRank, factorFormats, lowRankOf, lowRankWeight } from "./low-rank.ts";
import type { Decomposition } from "./method.ts";
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
  factors: z.enum(factorFormats).default("f16"),
  /** By what errors count in the low-rank part and between rounds. Default: H with calibration, else none. */
  weighting: z.enum(weightings).optional(),
  /** Rounds of fitting low rank and codes in turn, at most. */
  rounds: z.int().min(1).default(20),
  /** Share of its mean that is added to the diagonal of H. */
  damping: z.number().positive().default(0.01),
  /** Path of the rest: k-means codes of `bits` and `length`, or what a trained network of convolutions draws (path B). */
  path: z.enum(["codes", "decoder"]).default("codes"),
  /** Of path decoder. */
  decoder: decoderSettings.prefault({}),
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
 * Errors count by `weighting`: tr(E·H·Eᵀ) with calibration, else ‖E‖². With calibration the codes of the last round are
 * chosen again with errors spread over the columns to come, and the low-rank part is fitted once more to what is then
 * left.
 *
 * Leconte, Bedin, Nguyen and Moulines, 2024 (https://arxiv.org/abs/2405.13155); the alternation as in their code
 * (https://github.com/LisaBedin/ReALLM, models/lq_utils.py). Ours: vectors lie along rows, scales are root mean squares
 * in bytes, and H takes the place of their diagonal Fisher weights unless `weighting` asks for these.
 */
export const reallm: Decomposition<ReallmOptions> = {
  kind: "decomposition",
  name: "reallm",
  paper: "Leconte et al., 2024 (https://arxiv.org/abs/2405.13155)",
  calibrated: false,
  options,

  check({ rows, cols }, chosen) {
    const settings = settle({ rows, cols }, chosen);
    if (settings.path === "codes") checkVectorOptions("reallm", { rows, cols }, settings);
    else checkDecoderShape("reallm", { rows, cols }, decoderOptions(settings.decoder, settings));
    checkRank("reallm", { rows, cols }, settings.rank);
  },

  needs: ({ weighting }) => needsOf(weighting),

  async decompose(source, context, chosen) {
    const { backend, signal } = context;
    const settings = { ...settle(source, chosen), signal };
    const { W, H, weights, errorOf, free } = await weigh("reallm", source, context, settings);
    try {
      if (settings.path === "decoder") {
        const drawn = async (rest: Matrix) =>
          (
            await decoderCodes(backend, [{ W: rest, H }], decoderOptions(settings.decoder, settings), context)
          )[0];
        if (settings.rank === 0) return await drawn(W);
        const low = await lowRankOf(backend, W, { rank: settings.rank, weights, signal });
        const parallel = lowRankWeight(low, settings.factors);
        return sumOf(await drawn(difference(W, decodeWeight(parallel))), parallel);
      }
      const codesOf = (rest: Matrix) => vectorCodes(backend, rest, { ...settings, H });
      let like: Weight | undefined;
      const nearestCodesOf = async (rest: Matrix) => {
        like = await vectorCodes(backend, rest, { ...settings, H, nearest: true, like });
        return like;
      };
      if (settings.rank === 0) return await codesOf(W);
      const lowOf = async (rest: Matrix) => {
        const low = await lowRankOf(backend, rest, { rank: settings.rank, weights, signal });
        return lowRankWeight(low, settings.factors);
      };
      const { first: low, second: codes } = await alternate(W, {
        first: lowOf,
        second: nearestCodesOf,
        errorOf,
        rounds: settings.rounds,
        untilRise: true,
      });
      if (!H) return sumOf(codes, low);
      const spread = await codesOf(difference(W, decodeWeight(low)));
      return sumOf(spread, await lowOf(difference(W, decodeWeight(spread))));
    } finally {
      free();
    }
  },
};

function settle({ rows, cols }: { rows: number; cols: number }, chosen: ReallmOptions) {
  const { bits, length, group = cols, rank = defaultRank({ rows, cols }) } = chosen;
  return { ...chosen, group, rank, length, entries: halfAway(2 ** (bits * length)) };
}
