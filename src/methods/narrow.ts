import { z } from "zod";
import type { GroupFormat } from "../formats/format.ts";
import { formatByName, integer } from "../formats/index.ts";
import { halfEven, halfUp } from "../tensor/rounding.ts";
import { InputError, matrix } from "../tensor/tensor.ts";
import { onlyPart, packedWeight, type Weight } from "../tensor/weight.ts";
import { outputsOf, packLevels } from "./exact-levels.ts";
import type { TrainedMethod, TrainedRounding } from "./method.ts";

/** Widths that have a format. */
const WIDTHS = [8, 6, 4, 3, 2] as const;

/** How the codes of one stored matrix become those of fewer bits: rules of `nested` (kernels/nested.ts). */
type Rule = 0 | 1;

/** A method whose model is stored once, in 8 bits, and read at any width. */
export function nestedMethod(
  { name, paper }: { readonly name: string; readonly paper: string },
  rule: Rule,
  defaults: readonly (readonly [bits: 8 | 6 | 4 | 3 | 2, share: number])[],
): TrainedMethod<{ widths: readonly { bits: number; share: number }[] }> {
  const width = z.strictObject({ bits: z.literal(WIDTHS), share: z.number().positive().default(1) });
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

/**
 * A matrix that was stored in `int8-offset` (rule 0) or `int8` (rule 1), as a
 * matrix of fewer bits: exactly what `nested` gave at that width in training.
 */
export function narrowed(weight: Weight, bits: 8 | 6 | 4 | 3 | 2): Weight {
  const { format: name, parts } = onlyPart(weight);
  const offset = name === "int8-offset";
  if (!offset && name !== "int8") {
    throw new InputError(
      `narrowed: reads matrices of int8 and int8-offset at fewer bits, got ${name}; pack it as one of these`,
    );
  }
  const [rows, cols] = weight.shape;
  const wide = formatByName(name) as GroupFormat;
  const format = integer(bits, { offset });
  const size = 2 ** (8 - bits);
  const { codes, parameters } = wide.unpack(parts, rows, cols);
  // The middle of the codes of both widths is the level 0 where there is no offset.
  const [middle, own] = offset ? [0, 0] : [128, 2 ** (bits - 1)];
  const round = offset ? halfUp : halfEven;
  const coded = {
    codes: codes.map((code) => Math.min(2 ** bits - 1, round((code - middle) / size) + own)),
    parameters: parameters.map((group) => ({ scale: group.scale * size, offset: group.offset })),
  };
  return packedWeight(weight.shape, format.name, format.pack(coded, rows, cols));
}
