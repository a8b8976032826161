import { describe, expect, it } from "vitest";
import { openReference } from "../backends/reference.ts";
import { type GroupFormat, valuesOf } from "../formats/format.ts";
import { decodeWeight, formatByName } from "../formats/index.ts";
import { generator, normals } from "../tensor/random.ts";
import { hostTensor, InputError, matrix } from "../tensor/tensor.ts";
import { compressionByName, trainedMethods } from "./index.ts";
import { methodSuite } from "./method.suite.ts";
import { slices } from "./slices.ts";
import { trilm, trilmRounding } from "./trilm.ts";

describe("on the reference", () => methodSuite(async () => openReference()));

const backend = openReference();
const ternaryFormats = ["tq2_0", "tq1_0", "int2", "int2-g64", "int8-g128"].map(
  (name) => formatByName(name) as GroupFormat,
);

/** γ·{−1, 0, 1}, each part with a γ of its own. */
function ternary(rows: number, cols: number, gamma: (r: number, c: number) => number) {
  const random = generator(7);
  const data = Float32Array.from({ length: rows * cols }, (_, i) => {
    return (Math.floor(3 * random()) - 1) * gamma(Math.floor(i / cols), i % cols);
  });
  return matrix(rows, cols, data);
}

describe("trilm", () => {
  it.each(ternaryFormats)(
    "packs what training's forward pass gives, weight by weight: $name",
    async (format) => {
      const W = matrix(4, 512, normals(generator(1), 4 * 512, 0.03));
      const rounding = trilm.with({});
      const at = { step: 0, steps: 1 };
      const forward = backend.scope(() =>
        rounding.forward(backend, backend.upload(hostTensor([4, 512], W.data)), {}, at),
      );
      const exported = await rounding.export(W, format, { backend }, {}, at);
      expect(decodeWeight(exported).data).toEqual(await backend.read(forward));
      const rounded = await trilmRounding.quantize(W, format, { backend });
      expect(valuesOf(format, rounded)).toEqual(await backend.read(forward));
    },
  );

  it("γ is the fp16 of 1e-5 + mean|W|", async () => {
    const W = matrix(1, 256, normals(generator(2), 256));
    const { parameters } = await trilmRounding.quantize(W, formatByName("tq2_0") as GroupFormat, { backend });
    const mean = W.data.reduce((sum, w) => sum + Math.abs(w), 0) / 256;
    expect(parameters).toEqual([{ scale: Math.f16round(1e-5 + mean), offset: 0 }]);
  });

  it.each(ternaryFormats)(
    "gives back matrices that are ternary already, with any shards: $name",
    async (format) => {
      const γ = [0.0123, 0.5, 1.75, 0.03].map(Math.f16round);
      const cases = [
        ternary(8, 512, () => γ[0]),
        ternary(8, 512, (r) => γ[Math.floor(r / 2)]), // sharded along the rows
        ...(format.name === "int2" ? [] : [ternary(8, 512, (_, c) => γ[Math.floor(c / 256)])]),
        matrix(8, 512),
      ];
      for (const W of cases) {
        const coded = await trilmRounding.quantize(W, format, { backend });
        expect(valuesOf(format, coded).map((w) => w + 0)).toEqual(W.data.map((w) => w + 0)); // 0 and −0 are one
      }
    },
  );

  it("rounds float weights with a scale for each shard", async () => {
    const W = matrix(4, 512, normals(generator(3), 4 * 512));
    for (let i = 0; i < 1024; i++) W.data[i] *= 10;
    const format = formatByName("tq2_0") as GroupFormat;
    const { parameters } = await trilmRounding.quantize(
      W,
      format,
      { backend },
      { shards: { count: 2, along: "rows" } },
    );
    expect(new Set(parameters.map((p) => p.scale)).size).toBe(2);
    expect(parameters[0].scale / parameters[7].scale).toBeGreaterThan(8);
    const byColumns = await trilmRounding.quantize(
      W,
      format,
      { backend },
      { shards: { count: 2, along: "cols" } },
    );
    expect(byColumns.parameters[0]).toEqual(byColumns.parameters[2]);
    expect(byColumns.parameters[0]).not.toEqual(byColumns.parameters[1]);
    const odd = trilmRounding.quantize(W, format, { backend }, { shards: { count: 3, along: "rows" } });
    await expect(odd).rejects.toThrow(InputError);
  });

  it("refuses formats without −γ, 0 and γ", async () => {
    const W = matrix(1, 64, normals(generator(4), 64));
    const work = trilmRounding.quantize(W, formatByName("int4-offset") as GroupFormat, { backend });
    await expect(work).rejects.toThrow("has no levels −γ, 0 and γ");
  });
});

describe("names", () => {
  it("suggests the nearest method", () => {
    expect(compressionByName("rtn").name).toBe("rtn");
    expect(() => compressionByName("gtpq")).toThrow("did you mean gptq?");
    for (const [name, method] of Object.entries(trainedMethods)) expect(method.name).toBe(name);
  });
});

describe("slices", () => {
  it("cover everything once, in order, whatever a step costs", () => {
    for (const products of [0, 1, 2 ** 20, 2 ** 40]) {
      const parts = [...slices(3, 300, products)];
      expect(parts[0][0]).toBe(3);
      expect(parts[parts.length - 1][1]).toBe(300);
      for (let i = 1; i < parts.length; i++) expect(parts[i][0]).toBe(parts[i - 1][1]);
    }
    expect([...slices(0, 4, 2 ** 40)]).toHaveLength(4);
    expect([...slices(5, 5, 1)]).toEqual([]);
  });
});
