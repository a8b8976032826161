import { halfEven, halfUp } from "../tensor/rounding.ts";
import { InputError } from "../tensor/tensor.ts";
import { onlyPart, packedWeight, type Weight } from "../tensor/weight.ts";
import type { GroupFormat } from "./format.ts";
import { type IntegerBits, integer } from "./integer.ts";

/** Widths at which a matrix of 8 bits can be read. */
export const widths = [8, 6, 4, 3, 2] as const satisfies readonly IntegerBits[];

/** What a matrix of this format is called at fewer bits; undefined for formats that are read whole alone. */
export function narrowFormat(name: string, bits: IntegerBits): GroupFormat | undefined {
  return name === "int8" || name === "int8-offset"
    ? integer(bits, { offset: name === "int8-offset" })
    : undefined;
}

/**
 * A matrix that was stored in `int8-offset` or `int8`, as a matrix of fewer
 * bits: exactly what `nested` (kernels/nested.ts; its rules 0 and 1) gave at
 * that width in training.
 *
 *   int8-offset  c -> clip(⌊c/2^(8−B) + ½⌋, 0, 2^B − 1)                                       MatQuant
 *   int8         c − 128 -> clip(round((c − 128)/2^(8−B)), −2^(B−1), 2^(B−1) − 1), ties to even   Double Rounding
 */
export function narrowed(weight: Weight, bits: IntegerBits): Weight {
  const { format: name, parts } = onlyPart(weight);
  const format = narrowFormat(name, bits);
  if (!format) {
    throw new InputError(
      `narrowed: reads matrices of int8 and int8-offset at fewer bits, got ${name}; pack it as one of these`,
    );
  }
  const offset = name === "int8-offset";
  const [rows, cols] = weight.shape;
  const size = 2 ** (8 - bits);
  const { codes, parameters } = integer(8, { offset }).unpack(parts, rows, cols);
  // The middle of the codes of both widths is the level 0 where there is no offset.
  const [middle, own] = offset ? [0, 0] : [128, 2 ** (bits - 1)];
  const round = offset ? halfUp : halfEven;
  const coded = {
    codes: codes.map((code) => Math.min(2 ** bits - 1, round((code - middle) / size) + own)),
    parameters: parameters.map((group) => ({ scale: group.scale * size, offset: group.offset })),
  };
  return packedWeight(weight.shape, format.name, format.pack(coded, rows, cols));
}
