import type { Format } from "../formats/format.ts";
import { encode } from "../formats/index.ts";
import { checkedBy } from "../tensor/schema-words.ts";
import { InputError, type Matrix } from "../tensor/tensor.ts";
import { packedWeight, type Weight } from "../tensor/weight.ts";
import type { Context, Decomposition, Rounding } from "./method.ts";

/** A method with all that was chosen for it: what makes the matrices of linear layers smaller. */
export interface Compressor {
  readonly name: string;
  /** Whether it needs H. */
  readonly calibrated: boolean;
  /** The format that it writes, where that is one and known before anything is read. */
  readonly format?: Format;
  /** Throws an InputError where a matrix of this size cannot be made smaller so. */
  check(size: { readonly rows: number; readonly cols: number }): void;
  compress(W: Matrix, context: Context): Promise<Weight>;
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
  const { name, calibrated } = method;
  const chosen = checkedBy(method.options, options, { where: name });
  return {
    name,
    calibrated,
    check: (size) => method.check(size, chosen),
    compress: (W, context) => method.decompose(W, context, chosen),
  };
}
