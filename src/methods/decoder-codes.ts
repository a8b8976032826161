import { z } from "zod";
import type { Backend } from "../backends/backend.ts";
import { codeBitsFor, MOST_CODE_BITS, packCodes } from "../formats/codebook.ts";
import type { Job } from "../record/record.ts";
import { type Matrix, matrix } from "../tensor/tensor.ts";
import type { Weight } from "../tensor/weight.ts";
import { type DecoderShape, decoderWithin, upscaling } from "./decoder-shape.ts";
import { type TrainingOptions, trainDecoder } from "./decoder-training.ts";
import { importance, scaled, storedScales } from "./vector-codes.ts";

export interface DecoderOptions extends DecoderShape, TrainingOptions {
  /** Weights of a row that share a scale. Default: the row. */
  readonly group?: number;
}

/** What a person may set of it. */
export const decoderSettings = z.strictObject({
  /** Side of a patch; divides rows and columns of the matrices. With calibration errors are spread from patch to patch. */
  patch: z.int().min(1).default(8),
  /** By how much each stage of the decoder makes its images larger; their product divides a patch. */
  strides: z.array(z.int().min(1)).min(1).max(6).default([2]),
  /** Codes at each place of a latent image. */
  codes: z.int().min(1).max(64).default(1),
  /** Latent values of a code. */
  length: z.int().min(1).max(64).default(4),
  /** Entries of the book of the latent. */
  entries: z
    .int()
    .min(2)
    .max(2 ** MOST_CODE_BITS)
    .default(256),
  /** Stored bits that the decoder may have for each weight. */
  bits: z.number().positive().max(8).default(0.1),
  /** Channels of its widest layer, at most: what a decoder of many matrices may store it must also compute. */
  width: z.int().min(1).max(1024).default(16),
  /** How the decoder's weights are stored. */
  weights: z.enum(["int8", "int6", "int4", "f16"]).default("int8"),
  /** Steps of training. Default: 500, and 250 for each of several decoders that are tried. */
  steps: z.int().min(20).optional(),
  /** Learning rate at its peak. */
  rate: z.number().positive().default(0.01),
  /** Patches of a step. Default: a sixteenth of all, those of 65536 weights at most. */
  batch: z.int().min(1).optional(),
});

export type DecoderSettings = z.infer<typeof decoderSettings>;

/** Options of `decoderCodes` out of what a person set. */
export function decoderOptions(
  { bits, weights, steps = 500, ...others }: DecoderSettings,
  { group, seed }: { readonly group?: number; readonly seed: number },
): DecoderOptions {
  return { ...others, steps, decoderBits: bits, format: weights, group, seed };
}

/** A matrix, and what the errors of its columns cost: the diagonal of H. */
export interface ToDraw {
  readonly W: Matrix;
  readonly h?: Float32Array;
}

/**
 * W ≈ scale·D(codes): patches of the scaled matrices, drawn by a small network of convolutions D from latent images,
 * whose values are vectors of a book. Decoder and book are trained for these matrices, which share them
 * (`trainDecoder`); elements count scale²·H_cc.
 *
 * Leconte et al., 2024 (https://arxiv.org/abs/2405.13155), path B, with the decoder of HNeRV (Chen et al., 2023,
 * https://arxiv.org/abs/2304.02633): kernels 1, 3, 5, …, channels divided by 1.2 from stage to stage. Ours: scales are
 * root mean squares, and therefore the head is linear; a narrow stage keeps no least number of channels.
 */
export async function decoderCodes(
  backend: Backend,
  matrices: readonly ToDraw[],
  options: DecoderOptions,
  job: Job = {},
): Promise<Weight[]> {
  const { patch, strides, entries } = options;
  const groupOf = ({ cols }: Matrix) => options.group ?? cols;
  const scales = matrices.map(({ W }) => storedScales(W, groupOf(W)));
  const cut = matrices.map(({ W, h }, i) => {
    const S = scales[i].values;
    const group = groupOf(W);
    return {
      x: patchesOf(matrix(W.rows, W.cols, scaled(W, S, group)), patch),
      m: patchesOf(matrix(W.rows, W.cols, importance(W, S, group, h && [h])), patch),
    };
  });
  const weights = matrices.reduce((sum, { W }) => sum + W.data.length, 0);
  const task = {
    x: joined(cut.map(({ x }) => x)),
    m: joined(cut.map(({ m }) => m)),
    layers: decoderWithin("decoder", options, options.decoderBits * weights),
  };
  const found = await trainDecoder(backend, task, options, job);

  const perPatch = (patch / upscaling(strides)) ** 2 * options.codes;
  let first = 0;
  return matrices.map(({ W: { rows, cols } }, i): Weight => {
    const patches = (rows * cols) / patch ** 2;
    const own = found.codes.subarray(first * perPatch, (first + patches) * perPatch);
    first += patches;
    const codeBits = codeBitsFor(entries);
    const codes = packCodes(own, patches, perPatch, codeBits);
    const latent: Weight = {
      shape: [patches, perPatch * options.length],
      expression: { kind: "codebook", codes, codeBits, book: found.book },
    };
    const shape = [rows, cols];
    const of: Weight = { shape, expression: { kind: "decoder", patch, latent, layers: found.layers } };
    return { shape, expression: { kind: "scaleGroups", scales: scales[i].stored, of } };
  });
}

/** Patches p × p of a matrix, those on the first columns first, from the top down. */
function patchesOf({ rows, cols, data }: Matrix, patch: number): Float32Array {
  const result = new Float32Array(data.length);
  let to = 0;
  for (let right = 0; right < cols; right += patch) {
    for (let r = 0; r < rows; r++, to += patch)
      result.set(data.subarray(r * cols + right, r * cols + right + patch), to);
  }
  return result;
}

function joined(arrays: readonly Float32Array[]): Float32Array {
  const result = new Float32Array(arrays.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const array of arrays) {
    result.set(array, at);
    at += array.length;
  }
  return result;
}
