import { z } from "zod";
import { bytesPerMatrix, formatByName } from "../formats/index.ts";
import { InputError } from "../tensor/tensor.ts";
import { bytesOf, sumOf } from "../tensor/weight.ts";
import { alternate, type Round } from "./alternate.ts";
import {
  bothParts,
  type CodesAndLowRank,
  checkPlusLowRank,
  codesAndLowRank,
  fits,
  needsPlusLowRank,
  plusLowRank,
} from "./codes-plus-low-rank.ts";
import { weigh } from "./error-weights.ts";
import { defaultRank } from "./low-rank.ts";
import type { Candidate, Decomposition } from "./method.ts";

const integers = ["int2-offset", "int3-offset", "int4-offset"] as const;

const options = z
  .strictObject({
    /** Of all matrices' codes; or `bits`. */
    format: z.string().optional(),
    /** Bits per weight that all linear layers together may take, scales and factors included: each gets one of `formats`. */
    bits: z.number().positive().optional(),
    formats: z
      .array(z.string())
      .min(1)
      .default([...integers.flatMap((name) => [name, `${name}-g128`, `${name}-g64`, `${name}-g32`]), "int8"]),
    ...plusLowRank,
    /** Rounds of low rank and codes in turn, at most. */
    rounds: z.int().min(1).default(10),
  })
  .refine(
    ({ format, bits }) => (format === undefined) !== (bits === undefined),
    "one of format and bits is needed",
  );

export type LqLoraOptions = z.infer<typeof options>;

/**
 * LQ-LoRA: low rank A·B and codes Q in turn, under weights for the errors, and
 * a configuration for every matrix under one budget.
 *
 *   Q = 0;  repeat  A·B = best low rank of (W − Q),  Q = codes of (W − A·B)   until the error rises
 *
 * Algorithms 1 and 2 of Guo, Greengard, Xing and Kim, 2023 (https://arxiv.org/abs/2311.12023); `weighting` fisher is
 * their section 3.3. With `bits`, their section 3.2: every matrix is put together in each of `formats` that fills its
 * rows (one round), and an integer linear program takes for each the one with which the errors of all together are
 * least (`allocate`). Theirs are NormalFloat formats with quantized scales, and their budget leaves the factors out.
 */
export const lqLora: Decomposition<LqLoraOptions> = {
  kind: "decomposition",
  name: "lq-lora",
  paper: "Guo et al., 2023 (https://arxiv.org/abs/2311.12023)",
  calibrated: false,
  options,
  needs: needsPlusLowRank,

  check(size, chosen) {
    for (const format of formatsFor(size.cols, chosen))
      checkPlusLowRank("lq-lora", size, { ...chosen, format });
  },

  decompose(source, context, { format, rounds, ...chosen }) {
    return codesAndLowRank("lq-lora", source, context, { ...chosen, format: format! }, async (parts) => {
      const { first: low, second: codes } = await inTurn(parts, rounds);
      return parts.finished(codes, low);
    });
  },

  mixture: {
    budget: ({ bits }) => bits,
    least({ rows, cols }, chosen) {
      const { rank = defaultRank({ rows, cols }), factors } = chosen;
      const codes = formatsFor(cols, chosen).map((name) => bytesPerMatrix(formatByName(name), rows, cols));
      const factor = formatByName(factors);
      const low = rank === 0 ? 0 : bytesPerMatrix(factor, rows, rank) + bytesPerMatrix(factor, rank, cols);
      return Math.min(...codes) + low;
    },
    async candidates(W, context, chosen) {
      const weighed = await weigh("lq-lora", W, context, chosen);
      const found: Candidate<LqLoraOptions>[] = [];
      try {
        for (const format of formatsFor(W.cols, chosen)) {
          const options = { ...chosen, format, bits: undefined };
          const { first, second, error } = await inTurn(bothParts(weighed, context, options), 1);
          found.push({ options, bytes: bytesOf(sumOf(first, second)), error });
        }
      } finally {
        weighed.free();
      }
      return found;
    },
  },
};

function inTurn({ W, nearest, low, errorOf }: CodesAndLowRank, rounds: number): Promise<Round> {
  return alternate(W, { first: low, second: nearest, errorOf, rounds, untilRise: true });
}

/** The format, or those to choose from that fill rows of this size. */
function formatsFor(cols: number, { format, formats }: LqLoraOptions): readonly string[] {
  if (format !== undefined) return [format];
  const fitting = formats.filter((name) => fits(name, cols));
  if (fitting.length > 0) return fitting;
  throw new InputError(
    `lq-lora: none of ${formats.join(", ")} fills rows of ${cols}; add one without groups to formats`,
  );
}
