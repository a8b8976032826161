import { halfAway } from "../tensor/rounding.ts";
import { InputError } from "../tensor/tensor.ts";
import { MOST_BOOK, MOST_CODE_BITS, type Size, takesTooMuch } from "./code-shapes.ts";
import { type DecoderSettings, decoderOptions } from "./decoder-codes.ts";
import { checkDecoderShape, upscaling } from "./decoder-shape.ts";

/** Decoders are tried of so many times the width that is given. */
const WIDTHS = [0.5, 1];
/** Steps of training for each of them. */
const STEPS = 250;

/** What of the options of `reallm` decides on decoders. */
interface Chosen {
  readonly shape: "given" | "auto";
  readonly path: "codes" | "decoder";
  readonly bits: number;
  readonly decoder: DecoderSettings;
  readonly group?: number;
}

/**
 * The decoders that are tried for matrices with so many weights in all, those that suit them, and why others do not. Where
 * the shape is to be found their book is the largest that leaves room for scales and for itself.
 */
export function suited(
  { shape, path, bits, decoder, group }: Chosen,
  sizes: readonly Size[],
  among: number,
): {
  readonly decoders: readonly { readonly settings: DecoderSettings }[];
  readonly unsuited: readonly string[];
} {
  if (path === "codes") return { decoders: [], unsuited: [] };
  if (shape === "given") return { decoders: [{ settings: decoder }], unsuited: [] };
  const weights = upscaling(decoder.strides) ** 2 / decoder.codes; // of a code
  const scales = 16 / (group ?? Math.min(...sizes.map(({ cols }) => cols)));
  const codeBits = Math.floor(((bits - scales) / (1 + MOST_BOOK)) * weights);
  const entries = 2 ** Math.max(1, Math.min(MOST_CODE_BITS, codeBits));
  const decoders: { settings: DecoderSettings }[] = [];
  const unsuited: string[] = [];
  for (const times of WIDTHS) {
    const settings = {
      steps: STEPS,
      ...decoder,
      entries,
      width: Math.max(1, halfAway(times * decoder.width)),
    };
    const why = sizes.map((size) => whyNot(size, among, settings)).find((one) => one !== undefined);
    if (why === undefined) decoders.push({ settings });
    else unsuited.push(`${decoderName(settings)}: ${why}`);
  }
  return { decoders, unsuited };
}

export function decoderName({ width, entries }: DecoderSettings): string {
  return `decoder of ${width} channels, ${entries} entries`;
}

/** Why a decoder does not suit a matrix, one of those with `among` weights that share it. */
function whyNot(size: Size, among: number, decoder: DecoderSettings): string | undefined {
  const { strides, codes, length, entries } = decoder;
  if (takesTooMuch({ length, entries }, among, upscaling(strides) ** 2 / codes))
    return "its book takes more than 5 % of its codes";
  try {
    checkDecoderShape("decoder", size, decoderOptions(decoder, { seed: 0 }));
    return undefined;
  } catch (error) {
    if (error instanceof InputError) return error.message;
    throw error;
  }
}
