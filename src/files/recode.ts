import type { GroupFormat } from "../formats/format.ts";
import { decodeWeight, encodeWeight, formatByName, formats } from "../formats/index.ts";
import { sizeOf } from "../tensor/tensor.ts";
import { onlyPart, type Parts, packedWeight, type Weight } from "../tensor/weight.ts";

/** Rows of a weight in another format, and whether they stand for exactly the same numbers. */
export interface Recoded {
  readonly parts: Parts;
  readonly lossless: boolean;
}

/** Whole rows of a weight in a format. Throws an InputError for weights that the format cannot hold. */
export function recode(weight: Weight, format: string): Recoded {
  const only = weight.expression.kind === "packed" ? onlyPart(weight) : undefined;
  if (only?.format === format) return { parts: only.parts, lossless: true };
  if (only && equalType(only.format, weight.shape) === format)
    return { parts: regrouped(weight, format), lossless: true };

  const W = decodeWeight(weight);
  const { parts } = onlyPart(encodeWeight(formatByName(format), weight.shape, W.data));
  const isSame = (stored: Float32Array) => stored.every((value, i) => value === W.data[i]);
  return { parts, lossless: isSame(decodeWeight(packedWeight(weight.shape, format, parts)).data) };
}

/**
 * The ggml type that has every level of one of our integer formats, so that its scale need only be repeated:
 *
 *   intB            scale·(code − 2^(B−1))   q4_0 for B ≤ 4, q8_0 above
 *   intB-offset     scale·code + offset      q4_1 for B ≤ 4, none above
 */
export function equalType(format: string, shape: readonly number[]): string | undefined {
  const known = formats.get(format);
  const cols = shape.at(-1) ?? 1;
  if (known?.kind !== "group" || !known.stem.startsWith("int") || cols % GGML_GROUP !== 0) return undefined;
  const group = known.groupShape.kind === "group" ? known.groupShape.size : cols;
  if (group % GGML_GROUP !== 0) return undefined;
  const hasOffset = known.parts(1, cols).some(({ name }) => name === "offsets");
  if (hasOffset) return known.codeBits <= 4 ? "q4_1" : undefined;
  return known.codeBits <= 4 ? "q4_0" : "q8_0";
}

const GGML_GROUP = 32;

/** Codes moved to the middle of the other type, scales repeated for each of its groups. */
function regrouped(weight: Weight, type: string): Parts {
  const { format, parts } = onlyPart(weight);
  const cols = weight.shape.at(-1) ?? 1;
  const rows = sizeOf(weight.shape) / cols;
  const source = formatByName(format) as GroupFormat;
  const target = formatByName(type) as GroupFormat;
  const { codes, parameters } = source.unpack(parts, rows, cols);
  const shift = "offsets" in parts ? 0 : target.codeCount / 2 - source.codeCount / 2;
  const groups = codes.length / GGML_GROUP;
  const repeat = groups / parameters.length;
  return target.pack(
    {
      codes: codes.map((code) => code + shift),
      parameters: Array.from({ length: groups }, (_, g) => parameters[Math.floor(g / repeat)]),
    },
    rows,
    cols,
  );
}
