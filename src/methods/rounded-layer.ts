import { z } from "zod";
import type { Backend } from "../backends/backend.ts";
import { decodeWeight } from "../formats/index.ts";
import type { Job } from "../record/record.ts";
import { type Matrix, matrix, type Tensor } from "../tensor/tensor.ts";
import { bitsByUse, bytesOf, describeWeight, type Weight } from "../tensor/weight.ts";
import { rowProducts } from "./row-products.ts";
import { difference } from "./vector-codes.ts";

/** One rounded matrix, for the record; as a schema, because what an interrupted run has kept is read again. */
export const roundedLayerSchema = z.strictObject({
  name: z.string(),
  method: z.string(),
  /** Of parts, what they are: `sum(scaleGroups(int8, codebook(f16)), lowRank(f16, f16))`. */
  format: z.string(),
  /** Stored bits per weight, scales and padding included, and parts that it shares with others. */
  bits: z.number(),
  /** The same by what is stored (codes, scales, codebooks, …). */
  split: z.record(z.string(), z.number()),
  /** ‖(W−Ŵ)·X‖²/‖W·X‖² over the calibration tokens, or without them ‖W−Ŵ‖²/‖W‖². */
  relativeError: z.number(),
  errorOf: z.enum(["output", "weights"]),
  /** Of a stack: bytes of each block, and the error with it and those before it. */
  blocks: z
    .array(z.strictObject({ bytes: z.number(), error: z.number() }))
    .readonly()
    .optional(),
  /** Shapes that were compared, and what was left out and why. */
  tried: z
    .array(z.strictObject({ name: z.string(), bits: z.number(), error: z.number() }))
    .readonly()
    .optional(),
  left: z.array(z.string()).readonly().optional(),
  /** ‖y − t‖²/‖t‖² of its block on held-out windows, before and after its parts were tuned. */
  tuned: z.strictObject({ before: z.number(), after: z.number(), epochs: z.number() }).optional(),
});

export type RoundedLayer = Readonly<z.output<typeof roundedLayerSchema>>;

/** What is known of a rounded matrix beside its error. */
export function storedLayer(name: string, weight: Weight, method: string) {
  const [rows, cols] = weight.shape;
  const perWeight = (stored: number) => stored / (rows * cols);
  const split = Object.entries(bitsByUse(weight)).map(([use, stored]) => [use, perWeight(stored)]);
  return {
    name,
    method,
    format: describeWeight(weight),
    bits: perWeight(8 * bytesOf(weight)),
    split: Object.fromEntries(split) as RoundedLayer["split"],
  };
}

/** W and what it became; with H errors are those of its output. */
export interface Described {
  readonly name: string;
  readonly W: Matrix;
  readonly weight: Weight;
  readonly method: string;
  /** Whether the last terms of the weight's sum may be left away. */
  readonly stacked?: boolean;
  readonly H?: Tensor;
}

/** A rounded matrix with what was lost of it. */
export async function roundedLayer(
  backend: Backend,
  { name, W, weight, method, stacked, H }: Described,
  job: Job = {},
): Promise<RoundedLayer> {
  const errorOf = async (Ŵ: Float32Array) => (H ? outputError(backend, W, Ŵ, H, job) : weightError(W, Ŵ));
  const { expression: e } = weight;
  return {
    ...storedLayer(name, weight, method),
    relativeError: await errorOf(decodeWeight(weight).data),
    errorOf: H ? "output" : "weights",
    ...(stacked && e.kind === "sum" ? { blocks: await blocksOf(e.terms, errorOf) } : {}),
  };
}

async function blocksOf(terms: readonly Weight[], errorOf: (Ŵ: Float32Array) => Promise<number>) {
  const blocks: { bytes: number; error: number }[] = [];
  let sum: Float32Array | undefined;
  for (const term of terms) {
    const { data } = decodeWeight(term);
    const before = sum;
    sum = before ? data.map((w, i) => w + before[i]) : data;
    blocks.push({ bytes: bytesOf(term), error: await errorOf(sum) });
  }
  return blocks;
}

/** ‖W−Ŵ‖²/‖W‖² */
function weightError(W: Matrix, Ŵ: Float32Array): number {
  let lost = 0;
  let all = 0;
  for (let i = 0; i < Ŵ.length; i++) {
    lost += (W.data[i] - Ŵ[i]) ** 2;
    all += W.data[i] ** 2;
  }
  return all === 0 ? 0 : lost / all;
}

/** ‖(W−Ŵ)·X‖²/‖W·X‖² = tr(D·H·Dᵀ)/tr(W·H·Wᵀ), D = W−Ŵ; 0 when no input reaches the layer. */
async function outputError(
  backend: Backend,
  W: Matrix,
  Ŵ: Float32Array,
  H: Tensor,
  job: Job,
): Promise<number> {
  const D = difference(W, matrix(W.rows, W.cols, Ŵ));
  if (D.data.every((d) => d === 0)) return 0;
  const all = await energy(W);
  return all === 0 ? 0 : (await energy(D)) / all;

  async function energy(A: Matrix): Promise<number> {
    const { data } = await rowProducts(backend, A, H, job);
    let sum = 0;
    for (let i = 0; i < data.length; i++) sum += A.data[i] * data[i];
    return sum;
  }
}
