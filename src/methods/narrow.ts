import { z } from "zod";
import type { IntegerBits } from "../formats/integer.ts";
import { widths } from "../formats/narrow.ts";
import { matrix } from "../tensor/tensor.ts";
import { outputsOf, packLevels } from "./exact-levels.ts";
import type { TrainedMethod, TrainedRounding } from "./method.ts";

/** How the codes of one stored matrix become those of fewer bits: rules of `nested` (kernels/nested.ts). */
type Rule = 0 | 1;

/** A method whose model is stored once, in 8 bits, and read at any width. */
export function nestedMethod(
  { name, paper }: { readonly name: string; readonly paper: string },
  rule: Rule,
  defaults: readonly (readonly [bits: IntegerBits, share: number])[],
): TrainedMethod<{ widths: readonly { bits: number; share: number }[] }> {
  const width = z.strictObject({ bits: z.literal(widths), share: z.number().positive().default(1) });
  const options = z
    .strictObject({
      /** Widths that are trained together, and what the loss of each counts. */
      widths: z
        .array(width)
        .min(1)
        .default(defaults.map(([bits, share]) => ({ bits, share }))),
    })
    .prefault({});
  return {
    name,
    paper,
    options,
    with({ widths }) {
      const total = widths.reduce((sum, { share }) => sum + share, 0);
      const rounding: TrainedRounding = {
        kind: "trained",
        name,
        paper,
        formats: [rule === 0 ? "int8-offset" : "int8"],
        widths: widths.map(({ bits, share }) => ({ bits, share: share / total })),
        forward: (ops, W, _parameters, { bits = 8 }) => ops.nested(W, bits, rule),

        async export(W, format, { backend }, _parameters, { bits = 8 }) {
          const [values, scales, offsets] = await outputsOf(backend, "nested", W, [bits, rule]);
          const times = 2 ** (8 - format.codeBits);
          return packLevels(rounding, matrix(W.rows, W.cols, values), format, (r) => {
            return { scale: scales[r] * times, offset: offsets[r] };
          });
        },
      };
      return rounding;
    },
  };
}
