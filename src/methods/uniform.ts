import type { TensorSource } from "../files/file.ts";
import { packedOutline, type WeightOutline } from "../files/outline.ts";
import { layOut } from "../files/safetensors.ts";
import type { Format } from "../formats/format.ts";
import { formatByName } from "../formats/index.ts";
import type { Model } from "../models/model.ts";
import { InputError } from "../tensor/tensor.ts";
import { formatOf, type RoundingPlan } from "./round-model.ts";

/** Bits of a code that there are integer formats for. */
const widths = [8, 6, 4, 3, 2];

/** Where a model is to be fitted in. */
interface Fitted {
  readonly model: Model;
  readonly source: TensorSource;
}

/** The formats of a plan. */
interface Formats extends Pick<RoundingPlan, "others"> {
  readonly linear: Format;
}

/** Every tensor of the model that a plan makes, in the order of its file. */
export function outlinesOf(
  { model, source }: Fitted,
  plan: Formats,
): [name: string, outline: WeightOutline][] {
  return model.tensors.map((spec) => [
    spec.name,
    packedOutline(
      spec.name,
      spec.shape,
      (spec.role === "linear" ? plan.linear : formatOf(spec, source, plan)).name,
    ),
  ]);
}

/** The symmetric integers of so many bits, in groups as given, or in the largest that divide every row. */
export function formatOfBits(fitted: Fitted, bits: number, group?: number): string {
  if (!widths.includes(bits)) {
    throw new InputError(`compress: --bits must be one of ${widths.join(", ")}, got ${bits}`);
  }
  const rows = fitted.model.tensors.filter(({ role }) => role === "linear").map(({ shape }) => shape[1]);
  const size = group ?? [128, 64, 32].find((n) => rows.every((cols) => cols % n === 0));
  return formatByName(`int${bits}${size === undefined ? "" : `-g${size}`}`).name;
}

/** The one of `formatOfBits` with the most bits whose file of weights has at most `size` bytes. */
export function formatOfSize(
  fitted: Fitted,
  size: number,
  others: Formats["others"],
  group?: number,
): string {
  let bytes = 0;
  let name = "";
  for (const bits of widths) {
    name = formatOfBits(fitted, bits, group);
    const outlines = outlinesOf(fitted, { linear: formatByName(name), others });
    bytes = layOut(
      outlines.flatMap(([, { parts }]) => parts),
      { format: "pt" },
    ).byteLength;
    if (bytes <= size) return name;
  }
  throw new InputError(
    `compress: --size ${size} is too small; ${name} takes ${bytes} bytes, the least of all`,
  );
}
