import { z } from "zod";
import type { Backend } from "../backends/backend.ts";
import { checkPatch } from "../formats/decoder.ts";
import { decodeWeight, encodeWeight, formatByName } from "../formats/index.ts";
import type { Job } from "../record/record.ts";
import { halfAway } from "../tensor/rounding.ts";
import type { Matrix } from "../tensor/tensor.ts";
import { bitsByUse, sumOf, type Weight } from "../tensor/weight.ts";
import { alternate } from "./alternate.ts";
import { bookName, booksOf, type Size, sampleOf, shapesWithin, vectorsOf } from "./code-shapes.ts";
import { likeNeighbours } from "./column-orders.ts";
import { decoderName, suited } from "./decoder-choices.ts";
import {
  type DecoderSettings,
  decoderCodes,
  decoderOptions,
  decoderSettings,
  type ToDraw,
} from "./decoder-codes.ts";
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
  /**
   * One book for all matrices of the model, for those of a `block`, or for those of a `kind` (q_proj of all blocks); of path
   * decoder one decoder with its book, for which all matrices are kept in memory.
   */
  share: z.union([z.boolean(), z.enum(["block", "kind"])]).default(false),
  /**
   * `auto`: `bits` are all that is stored for a weight, and of the shapes that take no more (length, size of the book, rank,
   * orders) each matrix gets the one with the least error; with path decoder decoders of half its width and of its own
   * are tried too, with the largest book that fits.
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
  /** What matrices share, by `sharersOf` their names. */
  readonly learned?: ReadonlyMap<string, Learned>;
};

interface Learned {
  /** The weights of all that share. */
  readonly sharing: number;
  /** By `bookName`. */
  readonly books: ReadonlyMap<string, Weight>;
  readonly decoders: readonly SharedDecoder[];
  /** Decoders that do not suit them, and why. */
  readonly unsuited: readonly string[];
}

interface SharedDecoder {
  readonly settings: DecoderSettings;
  /** What it draws of the matrices, by their names. */
  readonly drawn: ReadonlyMap<string, Drawn>;
}

/** The options of one matrix. */
type Own = z.infer<typeof options> & Partial<Learned>;

function ownOf({ learned, ...chosen }: ReallmOptions, name: string | undefined): Own {
  return { ...chosen, ...learned?.get(sharersOf(chosen.share, name)) };
}

/** What the names of matrices that share have in common. */
function sharersOf(share: ReallmOptions["share"], name = ""): string {
  if (share === "block") return name.replace(/(\d+)\..*/, "$1");
  return share === "kind" ? name.replace(/\d+/, "") : "";
}

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
      checkPatch("reallm", size, settings.decoder.patch);
      if (chosen.shape === "given")
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
    const own = ownOf(chosen, context.name);
    try {
      if (own.shape === "given") return await putTogether(weighed, context, settle(source, own));
      const { shapes, left } = shapesWithin("reallm", source, own);
      const tried: Tried[] = [];
      let best: { weight: Weight; error: number } | undefined;
      const take = async (name: string, weight: Weight, bits: number) => {
        const error = await weighed.errorOf(difference(weighed.W, decodeWeight(weight)));
        tried.push({ name, bits, error });
        if (!best || error < best.error) best = { weight, error };
      };
      for (const { name, bits, codes, ...shape } of shapes) {
        const codesOf = { ...own, ...shape, path: "codes" as const, bits: codes / shape.length };
        await take(name, await putTogether(weighed, context, settle(source, codesOf)), bits);
      }
      const among = own.sharing ?? source.data.length;
      const { decoders, unsuited } = own.decoders ? (own as Learned) : suited(chosen, [source], among);
      left.push(...unsuited);
      for (const { settings: decoder } of decoders) {
        const settings = drawnSettings(source, { ...own, decoder });
        const weight = await putTogether(weighed, context, settings);
        const bits = storedBits(weight, among);
        if (bits <= own.bits) await take(decoderName(decoder), weight, bits);
        else left.push(`${decoderName(decoder)}: takes ${bits.toFixed(3)} bits`);
      }
      context.tried?.(tried, left);
      return best!.weight;
    } finally {
      weighed.free();
    }
  },

  shared: {
    wanted: ({ share }) => share !== false,
    async sample(W, context, chosen, count): Promise<Sample> {
      const sample = {
        sharers: sharersOf(chosen.share, context.name),
        vectors: sampleOf(W, chosen.group ?? W.cols),
        weights: count * W.data.length,
      };
      if (chosen.path === "codes") return sample;
      const weighed = await weigh("reallm", W, context, chosen);
      try {
        return {
          ...sample,
          rest: { ...(await restOf(weighed, context, drawnSettings(W, chosen))), name: context.name! },
        };
      } finally {
        weighed.free();
      }
    },
    async learn(seen, context, chosen) {
      const groups = Map.groupBy(seen as readonly Sample[], ({ sharers }) => sharers);
      const learned = new Map<string, Learned>();
      for (const [sharers, samples] of groups)
        learned.set(sharers, await learnedOf(samples, context, chosen));
      return { ...chosen, learned };
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
  readonly sharers: string;
  readonly vectors: Float32Array;
  readonly weights: number;
  readonly rest?: Rest & { readonly name: string };
}

/** Books, and what decoders draw, of some matrices together. */
async function learnedOf(
  samples: readonly Sample[],
  { backend, ...job }: Context,
  chosen: ReallmOptions,
): Promise<Learned> {
  const sharing = samples.reduce((sum, { weights }) => sum + weights, 0);
  const rests = samples.flatMap(({ rest }) => rest ?? []);
  const rested = rests.map(({ W }) => W);
  const { decoders: suitable, unsuited } = suited(chosen, rested, sharing);
  const decoders: SharedDecoder[] = [];
  for (const { settings } of suitable) {
    const made = await drawnOf(backend, rests, { ...chosen, decoder: settings }, job);
    decoders.push({ settings, drawn: new Map(rests.map(({ name }, i) => [name, made[i]])) });
  }
  const books = new Map<string, Weight>();
  const isDrawn = chosen.path === "decoder" && chosen.shape === "given";
  for (const shape of isDrawn ? [] : booksOf(chosen, sharing)) {
    const vectors = samples.map(({ vectors }) => vectors);
    const x = vectorsOf(vectors, shape.length);
    const { entries } = await kMeans(backend, x, { ...shape, seed: chosen.seed, signal: job.signal });
    books.set(bookName(shape), encodeWeight(formatByName("f16"), [entries.rows, entries.cols], entries.data));
  }
  return { sharing, books, decoders, unsuited };
}

/** Bits for each weight; book and decoder are those of `among` weights. */
function storedBits(weight: Weight, among: number): number {
  const { codebooks = 0, decoder = 0, ...others } = bitsByUse(weight);
  const [rows, cols] = weight.shape;
  return Object.values(others).reduce((a, b) => a + b, 0) / (rows * cols) + (codebooks + decoder) / among;
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
    const known = settings.decoders
      ?.find((one) => one.settings === settings.decoder)
      ?.drawn.get(context.name!);
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

/** Where the shape is to be found, a decoder draws the matrix whole unless a rank is asked for. */
function drawnSettings(size: Size, chosen: Own) {
  return settle(size, chosen.shape === "auto" ? { ...chosen, rank: chosen.rank ?? 0 } : chosen);
}

function settle({ rows, cols }: Size, chosen: Own) {
  const { bits, length, group = cols, rank = defaultRank({ rows, cols }) } = chosen;
  const entries = halfAway(2 ** (bits * length));
  const book = chosen.books?.get(bookName({ length, entries }));
  return { ...chosen, group, rank, length, entries, book };
}
