import { expect, it } from "vitest";
import { openReference } from "../backends/reference.ts";
import { formatByName } from "../formats/index.ts";
import { partKey } from "../record/make.ts";
import { bytesOf, partsOf, type Weight } from "../tensor/weight.ts";
import { type Compressor, decomposition, rounding } from "./compressor.ts";
import { tryShapes } from "./dry-run.ts";
import { qtip } from "./qtip.ts";
import { reallm } from "./reallm.ts";
import { roundedModel } from "./round-model.ts";
import { rtn } from "./rtn.ts";
import { sourceOf, tinyModel } from "./tiny-model.suite.ts";

const sentences = Array.from({ length: 4 }, (_, s) =>
  Int32Array.from({ length: 32 }, (_, i) => (7 * i * (s + 1) + s * s + i * i) % 50),
);

const compressors: Record<string, Compressor> = {
  "codes of a format": rounding(rtn, formatByName("int4")),
  "a book of all matrices": decomposition(reallm, { bits: 2, rank: 0, share: true }),
  "the same rotations": decomposition(qtip, { bits: 2 }),
};

it.each(Object.entries(compressors))("a dry run counts %s as a file stores them", async (_, linear) => {
  const model = tinyModel(3);
  const input = { model, source: sourceOf(model), name: "tiny", backend: openReference() };
  const plan = { linear, calibration: sentences };
  const tried = await tryShapes(input, plan);
  const shared = new Set(tried.flatMap((one) => [...one.shared]));
  const own = ({ weight }: { weight: Weight }) => bytesOf(weight, new Set(shared));
  const bytes =
    tried.reduce((sum, one) => sum + one.names.length * own(one), 0) +
    [...shared].reduce((sum, part) => sum + part.bytes.byteLength, 0);

  const { weights } = await roundedModel(input, plan);
  const stored = new Map<string, number>();
  for (const { names } of tried) {
    for (const name of names) {
      for (const [, part] of partsOf(weights.get(name)!))
        stored.set(await partKey(part), part.bytes.byteLength);
    }
  }
  expect(bytes).toBe([...stored.values()].reduce((a, b) => a + b, 0));
});
