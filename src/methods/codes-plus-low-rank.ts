import { z } from "zod";
import { bytesPerMatrix, clipped, decodeWeight, formatByName } from "../formats/index.ts";
import { InputError, type Matrix } from "../tensor/tensor.ts";
import { sumOf, type Weight } from "../tensor/weight.ts";
import { needsOf, type Weighed, weigh, weightings } from "./error-weights.ts";
import { formatWeight } from "./format-codes.ts";
import { checkRank, defaultRank, factorFormats, lowRankOf, lowRankWeight } from "./low-rank.ts";
import type { Context, Need } from "./method.ts";
import { difference } from "./vector-codes.ts";

/** What methods of the form W ≈ codes of a format + low rank let a person set, beside the format. */
export const plusLowRank = {
  /** Search for the range of each group that has the least error. */
  clip: z.boolean().default(true),
  /** Codes nearest to the weights, or chosen with errors spread as in GPTQ. Default: gptq with calibration, else rtn. */
  base: z.enum(["rtn", "gptq"]).optional(),
  /** Of the low-rank part. Default: 1/64 of the narrower side, at least 1. */
  rank: z.int().min(1).optional(),
  /** How its two factors are stored. */
  factors: z.enum(factorFormats).default("f16"),
  /** By what errors count in the low-rank part. Default: H with calibration, else none. */
  weighting: z.enum(weightings).optional(),
  /** Share of its mean that is added to the diagonal of H. */
  damping: z.number().positive().default(0.01),
} as const;

const settings = z.object({ format: z.string(), ...plusLowRank });
export type PlusLowRank = z.infer<typeof settings>;

export function needsPlusLowRank({ base, weighting }: Partial<PlusLowRank>): readonly Need[] {
  return [...needsOf(weighting), ...(base === "gptq" ? (["H"] as const) : [])];
}

/** Throws an InputError for a format that is not known or does not fill the rows, and for a rank that is too large. */
export function checkPlusLowRank(
  method: string,
  size: { readonly rows: number; readonly cols: number },
  { format: name, base, rank = 1 }: Pick<PlusLowRank, "format" | "base" | "rank">,
): void {
  const format = formatByName(name);
  format.parts(size.rows, size.cols);
  if (base === "gptq" && format.kind === "opaque") {
    throw new InputError(`${method}: gptq needs a format of codes and scales, got ${name}; set base=rtn`);
  }
  checkRank(method, size, rank);
}

/** What both parts take together; all of it is known before any work. */
export function bytesPlusLowRank(
  { rows, cols }: { readonly rows: number; readonly cols: number },
  { format, rank = defaultRank({ rows, cols }), factors }: PlusLowRank,
): number {
  const factor = formatByName(factors);
  const low = bytesPerMatrix(factor, rows, rank) + bytesPerMatrix(factor, rank, cols);
  return bytesPerMatrix(formatByName(format), rows, cols) + low;
}

/** The two parts, as functions of what they are to stand for. */
export interface CodesAndLowRank {
  readonly W: Matrix;
  /** Codes, each nearest to its weight. */
  nearest(rest: Matrix): Promise<Weight>;
  /** Codes by the chosen base. */
  codes(rest: Matrix): Promise<Weight>;
  /** The best low rank. */
  low(rest: Matrix): Promise<Weight>;
  errorOf(E: Matrix): Promise<number>;
  /**
   * The sum of two parts that were fitted with nearest codes. Where the base spreads errors, codes are chosen once
   * more for what the low-rank part leaves, and then the low-rank part for what these leave. Of both sums the one with
   * the smaller error where errors count by H; any other measure does not see what spreading is for.
   */
  finished(codes: Weight, low: Weight): Promise<Weight>;
}

/** Gives both parts of one matrix to `work`. */
export async function codesAndLowRank(
  method: string,
  source: Matrix,
  context: Context,
  options: PlusLowRank,
  work: (parts: CodesAndLowRank) => Promise<Weight>,
): Promise<Weight> {
  if (options.base === "gptq" && !context.H) {
    throw new InputError(`${method}: base gptq needs calibration text; give some, or base rtn`);
  }
  const weighed = await weigh(method, source, context, options);
  try {
    return await work(bothParts(weighed, context, options));
  } finally {
    weighed.free();
  }
}

function bothParts(
  { W, H, weights, importance, errorOf }: Weighed,
  { backend, signal }: Context,
  options: PlusLowRank,
): CodesAndLowRank {
  const { rank = defaultRank(W), factors, clip, damping } = options;
  const plain = formatByName(options.format);
  const format = clip ? clipped(plain) : plain;
  const { base = H && format.kind === "group" ? "gptq" : "rtn" } = options;

  const nearest = (rest: Matrix) => formatWeight(backend, rest, format, { importance });
  const codes = (rest: Matrix) =>
    base === "gptq" ? formatWeight(backend, rest, format, { H, damping, signal }) : nearest(rest);
  const low = async (rest: Matrix) =>
    lowRankWeight(await lowRankOf(backend, rest, { rank, weights, signal }), factors);
  const left = (...parts: Weight[]) => parts.reduce((E, part) => difference(E, decodeWeight(part)), W);
  const finished = async (Q: Weight, AB: Weight) => {
    if (base === "rtn") return sumOf(Q, AB);
    const again = await codes(left(AB));
    const refitted = await low(left(again));
    const keeps = weights.L && (await errorOf(left(Q, AB))) <= (await errorOf(left(again, refitted)));
    return keeps ? sumOf(Q, AB) : sumOf(again, refitted);
  };
  return { W, nearest, codes, low, errorOf, finished };
}
