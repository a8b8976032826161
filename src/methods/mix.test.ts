import { expect, it } from "vitest";
import { openBackend } from "../backends/index.ts";
import { openReference } from "../backends/reference.ts";
import { decodeWeight, formatByName } from "../formats/index.ts";
import { partKey } from "../record/make.ts";
import { partsOf } from "../tensor/weight.ts";
import { type Compressor, decomposition, rounding } from "./compressor.ts";
import { gptq } from "./gptq.ts";
import { lqLora } from "./lq-lora.ts";
import type { Decomposition } from "./method.ts";
import { mix } from "./mix.ts";
import { qtip } from "./qtip.ts";
import { reallm } from "./reallm.ts";
import { roundedModel } from "./round-model.ts";
import { rtn } from "./rtn.ts";
import { sourceOf, tinyModel } from "./tiny-model.suite.ts";

const backend = await openBackend("wasm", {}).catch(() => openReference());
const calibration = [Int32Array.from({ length: 32 }, (_, i) => (7 * i) % 50), Int32Array.of(1, 2, 3)];
const linears = tinyModel(2).tensors.filter(({ role }) => role === "linear");

function rounded(linear: Compressor, onRead?: () => void) {
  const model = tinyModel(2);
  const source = sourceOf(model, onRead);
  return roundedModel({ model, source, name: "tiny", backend }, { linear, calibration });
}

/** Bits per weight of the linear layers as a file holds them, parts of one content once; and in how many ways they were made. */
async function made(linear: Compressor): Promise<{ bits: number; ways: number }> {
  const { weights, layers } = await rounded(linear);
  const bytes = new Map<string, number>();
  for (const { name } of linears) {
    for (const [, part] of partsOf(weights.get(name)!)) bytes.set(await partKey(part), part.bytes.byteLength);
  }
  const size = linears.reduce((sum, { shape: [rows, cols] }) => sum + rows * cols, 0);
  const stored = [...bytes.values()].reduce((sum, one) => sum + one, 0);
  return {
    bits: (8 * stored) / size,
    ways: new Set(layers.map(({ format, bits }) => `${format} ${bits}`)).size,
  };
}

const ints = (...names: string[]) => names.map((name) => rounding(rtn, formatByName(name)));
const widths = (method: Decomposition<object>, of: number[], more: object = {}) =>
  of.map((bits) => decomposition(method, { bits, ...more }));

it.each([
  ["int2 to int8, fisher", () => ints("int2", "int3", "int4", "int8"), 4, "fisher"],
  ["int2 to int8, none", () => ints("int2", "int3", "int4", "int8"), 4, "none"],
  ["gptq beside rtn", () => [rounding(gptq, formatByName("int4")), ...ints("int2")], 3.5, "fisher"],
  ["qtip", () => widths(qtip, [2, 3, 4]), 4, "fisher"],
  [
    "reallm with one book for each width",
    () => widths(reallm, [2, 3], { share: true, rank: 0 }),
    3.4,
    "fisher",
  ],
  [
    "lq-lora",
    () =>
      ["int2-offset", "int4-offset", "int8"].map((format) =>
        decomposition(lqLora, { format, rank: 1, rounds: 2 }),
      ),
    6.5,
    "fisher",
  ],
] as [string, () => Compressor[], number, "fisher" | "none"][])(
  "a mix of %s stays within its bits and comes close to them, in more than one way",
  async (_, ways, budget, weighting) => {
    const { bits, ways: used } = await made(mix(ways(), { bits: budget, weighting }));
    expect(bits).toBeLessThanOrEqual(budget);
    expect(bits).toBeGreaterThan(budget - 0.5);
    expect(used).toBeGreaterThan(1);
  },
);

it("errors of all matrices together are no larger than in any one way of the same size", async () => {
  const source = sourceOf(tinyModel(2));
  const sum = async (linear: Compressor) => {
    const { weights } = await rounded(linear);
    let sum = 0;
    for (const { name } of linears) {
      const W = decodeWeight(await source.read(name)).data;
      for (const [i, w] of decodeWeight(weights.get(name)!).data.entries()) sum += (w - W[i]) ** 2;
    }
    return sum;
  };
  const three = await made(mix(ints("int3"), { bits: 20, weighting: "none" }));
  const mixed = mix(ints("int2", "int3", "int4"), { bits: three.bits, weighting: "none" });
  expect(await sum(mixed)).toBeLessThanOrEqual(await sum(ints("int3")[0]));
});

it("one way alone gives what it gives without a mix", async () => {
  const [way] = ints("int4");
  expect(await rounded(mix([way], { bits: 20, weighting: "fisher" }))).toEqual(await rounded(way));
});

it("a way that does not fit a matrix is left to the others", async () => {
  // Rows of down_proj are 48 wide, all others 32.
  const { layers } = await rounded(mix(ints("int4-g32", "int2"), { bits: 20, weighting: "none" }));
  for (const { name, format } of layers) expect(format).toBe(name.includes("down") ? "int2" : "int4-g32");
});

it.each([
  [
    ints("int3", "int4"),
    3,
    /^mix: no choice of its ways takes 3 bits a weight or fewer; the smallest takes 3\.\d+$/,
  ],
  [widths(qtip, [2, 3]), 2.2, /^mix: no choice of its ways takes 2\.2 bits a weight or fewer/],
  [ints("int4-g128", "int4"), 5, /^mix: way 1 fits no matrix; leave it out \(.*whole groups of 128/],
] as [Compressor[], number, RegExp][])("%#: refuses before anything is read", async (ways, bits, message) => {
  let reads = 0;
  await expect(rounded(mix(ways, { bits, weighting: "none" }), () => reads++)).rejects.toThrow(message);
  expect(reads).toBe(0);
});

it("names the smallest size also where it is known only when all was tried", async () => {
  const ways = widths(reallm, [2, 3], { rank: 0, length: 2, group: 16 });
  await expect(rounded(mix(ways, { bits: 2.01, weighting: "none" }))).rejects.toThrow(
    /^mix: no choice of its ways takes 2\.01 bits a weight or fewer; the smallest takes/,
  );
});

it("needs calibration text for Fisher weights, and says so before anything is read", async () => {
  const model = tinyModel(2);
  const input = { model, source: sourceOf(model), name: "tiny", backend };
  const linear = mix(ints("int4", "int2"), { bits: 5, weighting: "fisher" });
  await expect(roundedModel(input, { linear })).rejects.toThrow("rtn: needs calibration text");
});
