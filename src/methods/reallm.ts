import { z } from "zod";
import type { Backend } from "../backends/backend.ts";
import { decodeWeight, encodeWeight, formatByName } from "../formats/index.ts";
import type { Job } from "../record/record.ts";
import { halfAway } from "../tensor/rounding.ts";
import type { Matrix } from "../tensor/tensor.ts";
import { bytesOf, sumOf, type Weight } from "../tensor/weight.ts";
import { alternate } from "./alternate.ts";
import { bookName, booksOf, sampleOf, shapesWithin, vectorsOf } from "./code-shapes.ts";
import { likeNeighbours } from "./column-orders.ts";
import { decoderCodes, decoderOptions, decoderSettings, type ToDraw } from "./decoder-codes.ts";
import { checkDecoderShape } from "./decoder-shape.ts";
import { sweepDrawn } from "./decoder-sweep.ts";
import { needsOf, type Weighed, weigh, weightings } from "./error-weights.ts";
import { kMeans } from "./k-means.ts";
import { checkRank, defaultRank, factorFormats, lowRankOf, lowRankWeight } from "./low-rank.ts";
import type { Context, Decomposition, Tried } from "./method.ts";
import { diagonal } from "./spread-errors.ts";
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
  /** One book for all matrices of the model; of path decoder one decoder with its book, for which all are kept in memory. */
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
  /** The matrices that share a decoder, by their names. */
  readonly drawn?: ReadonlyMap<string, Drawn>;
  /** The weights of all matrices that share. */
  readonly sharing?: number;
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
 * left. Path B draws what a low-rank part fitted once leaves (`decoderCodes`), its codes chosen again likewise (`sweepDrawn`).
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

  least: ({ rows, cols }, { shape, path, bits }) =>
    shape === "given" && path === "codes" ? (rows * cols * bits) / 8 : 0,

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
    async sample(W, context, chosen, count): Promise<Sample> {
      const sample = { vectors: sampleOf(W, chosen.group ?? W.cols), weights: count * W.data.length };
      if (chosen.path === "codes") return sample;
      const weighed = await weigh("reallm", W, context, chosen);
      try {
        return {
          ...sample,
          rest: { ...(await restOf(weighed, context, settle(W, chosen))), name: context.name! },
        };
      } finally {
        weighed.free();
      }
    },
    async learn(seen, { backend, ...job }, chosen) {
      const { signal } = job;
      const samples = (seen as readonly Sample[]).map(({ vectors }) => vectors);
      const sharing = (seen as readonly Sample[]).reduce((sum, { weights }) => sum + weights, 0);
      const rests = (seen as readonly Sample[]).flatMap(({ rest }) => rest ?? []);
      const made = rests.length > 0 ? await drawnOf(backend, rests, chosen, job) : [];
      const drawn = new Map(rests.map(({ name }, i) => [name, made[i]]));
      const books = new Map<string, Weight>();
      if (chosen.path === "decoder" && chosen.shape === "given") return { ...chosen, drawn };
      for (const shape of booksOf(chosen, sharing)) {
        const x = vectorsOf(samples, shape.length);
        const { entries } = await kMeans(backend, x, { ...shape, seed: chosen.seed, signal });
        books.set(
          bookName(shape),
          encodeWeight(formatByName("f16"), [entries.rows, entries.cols], entries.data),
        );
      }
      return { ...chosen, books, drawn, sharing };
    },
  },
};

/** A matrix without its low-rank part. */
interface Rest extends ToDraw {
  readonly low?: Weight;
}

/** What a decoder draws of a matrix, and the low-rank part beside it. */
interface Drawn {
  readonly drawn: Weight;
  readonly low?: Weight;
}

interface Sample {
  readonly vectors: Float32Array;
  readonly weights: number;
  readonly rest?: Rest & { readonly name: string };
}

/** Path B fits the low-rank part once, to the matrix itself. */
async function restOf(
  { W, H, weights }: Weighed,
  { backend, signal }: Context,
  { rank, factors }: ReturnType<typeof settle>,
): Promise<Rest> {
  const h = H && diagonal(H);
  if (rank === 0) return { W, h };
  const low = lowRankWeight(await lowRankOf(backend, W, { rank, weights, signal }), factors);
  return { W: difference(W, decodeWeight(low)), h, low };
}

/** Matrices of one decoder. */
async function drawnOf(
  backend: Backend,
  rests: readonly Rest[],
  chosen: ReallmOptions,
  job: Job,
): Promise<Drawn[]> {
  const weights = await decoderCodes(backend, rests, decoderOptions(chosen.decoder, chosen), job);
  return weights.map((drawn, i) => ({ drawn, low: rests[i].low }));
}

/** A matrix in one shape. */
async function putTogether(
  weighed: Weighed,
  context: Context,
  settings: ReturnType<typeof settle>,
): Promise<Weight> {
  const { W, H, weights, errorOf } = weighed;
  const { backend, ...job } = context;
  const { signal } = job;
  if (settings.path === "decoder") {
    const known = settings.drawn?.get(context.name!);
    const { drawn, low } =
      known ?? (await drawnOf(backend, [await restOf(weighed, context, settings)], settings, job))[0];
    const rest = low ? difference(W, decodeWeight(low)) : W;
    const codes = H
      ? await sweepDrawn(backend, rest, drawn, H, { damping: settings.damping, signal })
      : drawn;
    return low ? sumOf(codes, low) : codes;
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
