import { z } from "zod";
import { decodeWeight, encodeWeight, formatByName } from "../formats/index.ts";
import { halfAway } from "../tensor/rounding.ts";
import type { Matrix } from "../tensor/tensor.ts";
import { bytesOf, sumOf, type Weight } from "../tensor/weight.ts";
import { alternate } from "./alternate.ts";
import { bookName, booksOf, sampleOf, shapesWithin, vectorsOf } from "./code-shapes.ts";
import { likeNeighbours } from "./column-orders.ts";
import { decoderCodes, decoderOptions, decoderSettings } from "./decoder-codes.ts";
import { checkDecoderShape } from "./decoder-shape.ts";
import { needsOf, type Weighed, weigh, weightings } from "./error-weights.ts";
import { kMeans } from "./k-means.ts";
import { checkRank, defaultRank, factorFormats, lowRankOf, lowRankWeight } from "./low-rank.ts";
import type { Context, Decomposition, Tried } from "./method.ts";
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
  /** Columns in orders of their own for each 64 rows, so that neighbours are alike; the orders are stored. */
  permute: z.boolean().default(false),
  /** One book for all matrices of the model. */
  share: z.boolean().default(false),
  /**
   * `auto`: `bits` are all that is stored for a weight, and of the shapes that take no more (length, size of the book, rank,
   * orders) each matrix gets the one with the least error; path decoder is one more.
   */
  shape: z.enum(["given", "auto"]).default("given"),
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

export type ReallmOptions = z.infer<typeof options> & {
  /** Books that all matrices share, by `bookName`. */
  readonly books?: ReadonlyMap<string, Weight>;
};

/**
 * ReALLM, path A: W ≈ A·B + codes of vectors, a low-rank part kept precisely
 * and the rest in k-means codes under group scales.
 *
 *   repeat   A·B = low rank of (W − Q),  Q = codes of (W − A·B)
 *   until the error rises; the best round is kept
 *
 * With `shape: auto` this is done for every shape that fits the budget (`shapesWithin`), and the best is kept.
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

  check(size, chosen) {
    const settings = settle(size, chosen);
    if (settings.path === "decoder") {
      checkDecoderShape("reallm", size, decoderOptions(settings.decoder, settings));
    }
    if (chosen.shape === "auto") return void shapesWithin("reallm", size, chosen);
    if (settings.path === "codes") checkVectorOptions("reallm", size, settings);
    checkRank("reallm", size, settings.rank);
  },

  needs: ({ weighting }) => needsOf(weighting),

  async decompose(source, context, chosen) {
    const weighed = await weigh("reallm", source, context, chosen);
    try {
      if (chosen.shape === "given") return await putTogether(weighed, context, settle(source, chosen));
      const { shapes, left } = shapesWithin("reallm", source, chosen);
      const tried: Tried[] = [];
      let best: { weight: Weight; error: number } | undefined;
      const take = async (name: string, weight: Weight, bits: number) => {
        const error = await weighed.errorOf(difference(weighed.W, decodeWeight(weight)));
        tried.push({ name, bits, error });
        if (!best || error < best.error) best = { weight, error };
      };
      for (const { name, bits, codes, ...shape } of shapes) {
        const own = { ...chosen, ...shape, path: "codes" as const, bits: codes / shape.length };
        await take(name, await putTogether(weighed, context, settle(source, own)), bits);
      }
      if (chosen.path === "decoder") {
        const weight = await putTogether(weighed, context, settle(source, chosen));
        const bits = (8 * bytesOf(weight)) / source.data.length;
        if (bits <= chosen.bits) await take("decoder", weight, bits);
        else left.push(`decoder: takes ${bits.toFixed(3)} bits`);
      }
      context.tried?.(tried, left);
      return best!.weight;
    } finally {
      weighed.free();
    }
  },

  shared: {
    wanted: ({ share }) => share,
    sample: async (W, chosen) => sampleOf(W, chosen.group ?? W.cols),
    async learn(samples, { backend, signal }, chosen) {
      const books = new Map<string, Weight>();
      for (const shape of booksOf(chosen)) {
        const x = vectorsOf(samples, shape.length);
        const { entries } = await kMeans(backend, x, { ...shape, seed: chosen.seed, signal });
        books.set(
          bookName(shape),
          encodeWeight(formatByName("f16"), [entries.rows, entries.cols], entries.data),
        );
      }
      return { ...chosen, books };
    },
  },
};

/** A matrix in one shape. */
async function putTogether(
  { W, H, weights, errorOf }: Weighed,
  { backend, ...job }: Context,
  settings: ReturnType<typeof settle>,
): Promise<Weight> {
  const { signal } = job;
  if (settings.path === "decoder") {
    const drawn = async (rest: Matrix) => {
      const [weight] = await decoderCodes(
        backend,
        [{ W: rest, H }],
        decoderOptions(settings.decoder, settings),
        job,
      );
      return weight;
    };
    if (settings.rank === 0) return drawn(W);
    const low = await lowRankOf(backend, W, { rank: settings.rank, weights, signal });
    const parallel = lowRankWeight(low, settings.factors);
    return sumOf(await drawn(difference(W, decodeWeight(parallel))), parallel);
  }
  const orders = settings.permute ? await likeNeighbours(backend, W, { signal }) : undefined;
  const given = { ...settings, H, orders, signal };
  const codesOf = (rest: Matrix) => vectorCodes(backend, rest, given);
  if (settings.rank === 0) return codesOf(W);
  let like: Weight | undefined;
  const nearestCodesOf = async (rest: Matrix) => {
    like = await vectorCodes(backend, rest, { ...given, nearest: true, like });
    return like;
  };
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
}

function settle({ rows, cols }: { rows: number; cols: number }, chosen: ReallmOptions) {
  const { bits, length, group = cols, rank = defaultRank({ rows, cols }) } = chosen;
  const entries = halfAway(2 ** (bits * length));
  const book = chosen.books?.get(bookName({ length, entries }));
  return { ...chosen, group, rank, length, entries, book };
}
