import { decodeWeight } from "../formats/index.ts";
import { partKey } from "../record/make.ts";
import { InputError } from "../tensor/tensor.ts";
import { partsOf, type Weight } from "../tensor/weight.ts";
import { allocate, type Choice } from "./allocate.ts";
import type { Compressor, Survey } from "./compressor.ts";
import { needsOf, type Weighting, weigh } from "./error-weights.ts";
import { difference } from "./vector-codes.ts";

export interface MixOptions {
  /** Bits per weight that all linear layers together may take, everything that is stored counted. */
  readonly bits: number;
  /** By what the errors of different matrices are compared; `fisher` in what they cost the loss. */
  readonly weighting: Weighting;
}

type Size = { readonly rows: number; readonly cols: number };

/** Of the errors' H; only `weighting: H` asks for it. */
const DAMPING = 0.01;

/**
 * One of several ways for each matrix, under one budget: every matrix is compressed in every way that fits it, with H
 * of the float model, and an integer linear program takes for each the way with which the errors of all together are
 * least (`allocate`). Then the work is done as with one way alone.
 *
 * Guo, Greengard, Xing and Kim, 2023 (https://arxiv.org/abs/2311.12023), section 3.2, whose ways are NormalFloat
 * formats and whose errors count by the Fisher information; their budget leaves low-rank factors out. What matrices
 * share (a book, signs of a rotation) is counted once, whether or not it is used in the end.
 */
export function mix(ways: readonly Compressor[], options: MixOptions): Compressor {
  const names = new Set(ways.map(({ name }) => name));
  const about = {
    name: names.size === 1 ? ways[0].name : "mix",
    calibrated: needsOf(options.weighting).length > 0 || ways.some((way) => way.calibrated),
    fisher: options.weighting === "fisher" || ways.some((way) => way.fisher),
  };
  const fitting = (size: Size) => ways.filter((way) => whyNot(way, size) === undefined);
  return {
    ...about,
    check(size) {
      if (fitting(size).length === 0) throw whyNot(ways[0], size);
    },
    checkAll(sizes) {
      for (const [n, way] of ways.entries()) {
        const reasons = sizes.map((size) => whyNot(way, size));
        if (reasons.every((reason) => reason !== undefined))
          throw new InputError(`mix: way ${n + 1} fits no matrix; leave it out (${reasons[0]!.message})`);
      }
      const least = sizes.map((size) => Math.min(...fitting(size).map((way) => way.least?.(size) ?? 0)));
      refuse(sumOf(least), sumOf(sizes.map(({ rows, cols }) => rows * cols)), options.bits);
    },
    compress(W, context) {
      throw new Error(`mix: ${context.name} of ${W.rows}×${W.cols} was to be surveyed first`);
    },
    survey: () =>
      ways.some(({ survey }) => survey) ? learning(ways, options) : choosing(ways, options, about),
  };
}

function whyNot(way: Compressor, size: Size): InputError | undefined {
  try {
    way.check(size);
    return undefined;
  } catch (error) {
    if (error instanceof InputError) return error;
    throw error;
  }
}

function refuse(bytes: number, weights: number, bits: number): void {
  const least = (8 * bytes) / weights;
  if (least <= bits) return;
  throw new InputError(
    `mix: no choice of its ways takes ${bits} bits a weight or fewer; the smallest takes ${Math.ceil(1000 * least) / 1000}`,
  );
}

function sumOf(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0);
}

/** For ways that learn something of all matrices before the first: they do, and are mixed then. */
function learning(ways: readonly Compressor[], options: MixOptions): Survey {
  const surveys = ways.map((way) => way.survey?.());
  return {
    async see(W, context, names) {
      for (const [n, survey] of surveys.entries())
        if (whyNot(ways[n], W) === undefined) await survey?.see(W, context, names);
    },
    async choose() {
      const ready: Compressor[] = [];
      for (const [n, survey] of surveys.entries()) ready.push((await survey?.choose()) ?? ways[n]);
      return mix(ready, options);
    },
  };
}

/** What became of a matrix in one way. */
interface Way extends Choice {
  readonly compressor: Compressor;
  bytes: number;
}

/** Measures every way on every matrix, and chooses when it has seen them all. */
function choosing(
  ways: readonly Compressor[],
  { bits, weighting }: MixOptions,
  about: Pick<Compressor, "name" | "calibrated" | "fisher">,
): Survey {
  const names: string[] = [];
  const choices: (readonly Way[])[] = [];
  const owners = new Map<string, Way | "several">();
  let sharedBytes = 0;
  let weights = 0;

  /** A part whose content was met before is stored once, and is taken from the way that it was counted for. */
  async function count(way: Way, weight: Weight): Promise<void> {
    for (const part of new Set(Array.from(partsOf(weight), ([, part]) => part))) {
      const key = await partKey(part);
      const owner = owners.get(key);
      const { byteLength } = part.bytes;
      if (owner === undefined) {
        owners.set(key, way);
        way.bytes += byteLength;
      } else if (owner !== "several") {
        owners.set(key, "several");
        owner.bytes -= byteLength;
        sharedBytes += byteLength;
      }
    }
  }

  return {
    async see(W, context, alike = [context.name!]) {
      const weighed = await weigh("mix", W, context, { weighting, damping: DAMPING });
      try {
        const own: Way[] = [];
        for (const compressor of ways) {
          if (whyNot(compressor, W) !== undefined) continue;
          const weight = await compressor.compress(W, context);
          const error = await weighed.errorOf(difference(weighed.W, decodeWeight(weight)));
          const way = { compressor, bytes: 0, error };
          await count(way, weight);
          own.push(way);
        }
        names.push(...alike);
        choices.push(...alike.map(() => own));
        weights += alike.length * W.data.length;
      } finally {
        weighed.free();
      }
    },
    async choose() {
      const least = sumOf(choices.map((own) => Math.min(...own.map(({ bytes }) => bytes))));
      refuse(least + sharedBytes, weights, bits);
      const picked = await allocate(choices, Math.floor((bits * weights) / 8) - sharedBytes);
      const chosen = new Map(names.map((name, n) => [name, choices[n][picked[n]].compressor]));
      return {
        ...about,
        check() {},
        compress: (W, context) => chosen.get(context.name!)!.compress(W, context),
      };
    },
  };
}
