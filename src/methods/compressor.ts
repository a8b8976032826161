import type { Format } from "../formats/format.ts";
import { bytesPerMatrix, encode } from "../formats/index.ts";
import { checkedBy } from "../tensor/schema-words.ts";
import { InputError, type Matrix } from "../tensor/tensor.ts";
import { packedWeight, type Weight } from "../tensor/weight.ts";
import { checkRank } from "./low-rank.ts";
import type { Context, Decomposition, Rounding, Shared, StackMeasure } from "./method.ts";
import { type AdapterOptions, withAdapter } from "./tunable.ts";

/** A method with all that was chosen for it: what makes the matrices of linear layers smaller. */
export interface Compressor {
  readonly name: string;
  /** Whether it needs H. */
  readonly calibrated: boolean;
  /** The format that it writes, where that is one and known before anything is read. */
  readonly format?: Format;
  /** The last terms of its sums may be left away. */
  readonly stacked?: StackMeasure;
  /** Throws an InputError where a matrix of this size cannot be made smaller so. */
  check(size: { readonly rows: number; readonly cols: number }): void;
  compress(W: Matrix, context: Context): Promise<Weight>;
  /** Bytes of a matrix of this size at the least, where they are known before any work. */
  least?(size: { readonly rows: number; readonly cols: number }): number;
  /** Throws an InputError where all matrices together cannot be made as small as they are to be. */
  checkAll?(sizes: readonly { readonly rows: number; readonly cols: number }[]): void;
  /** Whether it needs the Fisher information of every weight. */
  readonly fisher?: boolean;
  /** Where what becomes of a matrix depends on all of them: sees them in float before the first is compressed. */
  survey?(): Survey;
}

/** Sees every matrix, then gives the compressor that knows what becomes of each. */
export interface Survey {
  /** With `names`, W stands for all the matrices that are called so. */
  see(W: Matrix, context: Context, names?: readonly string[]): Promise<void>;
  choose(): Promise<Compressor>;
}

/** Codes of a format that a method chooses. An InputError where the format has none to choose. */
export function rounding(method: Rounding, format: Format, options?: object): Compressor {
  const { name, calibrated } = method;
  if (format.kind === "opaque" && name !== "rtn") {
    throw new InputError(`${name}: needs a format of codes and scales, got ${format.name}; use rtn for it`);
  }
  return {
    name,
    calibrated,
    format,
    check: ({ rows, cols }) => void format.parts(rows, cols),
    least: ({ rows, cols }) => bytesPerMatrix(format, rows, cols),
    async compress(W, context) {
      const { rows, cols } = W;
      const parts =
        format.kind === "opaque"
          ? encode(format, W)
          : format.pack(await method.quantize(W, format, context, options), rows, cols);
      return packedWeight([rows, cols], format.name, parts);
    },
  };
}

/** Parts that a method puts together; `options` are checked, and an InputError names the first wrong one. */
export function decomposition(method: Decomposition<object>, options: object): Compressor {
  const { name, shared } = method;
  const chosen = checkedBy(method.options, options, { where: name });
  const needs = method.needs?.(chosen) ?? [];
  const over = (own: object): Compressor => ({
    name,
    calibrated: method.calibrated || needs.length > 0,
    fisher: needs.includes("fisher"),
    stacked: method.stacked?.(chosen),
    check: (size) => method.check(size, chosen),
    least: (size) => method.least?.(size, chosen) ?? 0,
    compress: (W, context) => method.decompose(W, context, own),
  });
  if (!shared?.wanted(chosen)) return over(chosen);
  return { ...over(chosen), survey: () => sharing(shared, chosen, over) };
}

/** Gathers samples of all matrices, and learns what they share. */
function sharing(shared: Shared<object>, chosen: object, over: (learned: object) => Compressor): Survey {
  const samples: unknown[] = [];
  let context: Context | undefined;
  return {
    async see(W, its, names = [""]) {
      context = its;
      samples.push(await shared.sample(W, its, chosen, names.length));
    },
    async choose() {
      return over(await shared.learn(samples, context!, chosen));
    },
  };
}

/** The same with more to tune in each matrix, where the options ask for more. */
export function adapted(compressor: Compressor, options: AdapterOptions): Compressor {
  if (options.rank === 0 && !options.magnitudes) return compressor;
  const { survey } = compressor;
  return {
    ...compressor,
    format: undefined,
    stacked: undefined,
    check({ rows, cols }) {
      checkRank("tuning", { rows, cols }, options.rank);
      compressor.check({ rows, cols });
    },
    compress: async (W, context) => withAdapter(await compressor.compress(W, context), options),
    ...(survey ? { survey: () => adaptedSurvey(survey(), options) } : {}),
  };
}

function adaptedSurvey(survey: Survey, options: AdapterOptions): Survey {
  return {
    see: (W, context, names) => survey.see(W, context, names),
    choose: async () => adapted(await survey.choose(), options),
  };
}
