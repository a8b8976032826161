import { describe, expect, it } from "vitest";
import { openReference } from "../backends/reference.ts";
import {
  checkGroup,
  elements,
  type GroupFormat,
  type Parameters,
  partOf,
  valuesOf,
} from "../formats/format.ts";
import { bitsPerWeight, decode } from "../formats/index.ts";
import { halfAway } from "../tensor/rounding.ts";
import { hostTensor } from "../tensor/tensor.ts";
import { gptq } from "./gptq.ts";
import { rtn } from "./rtn.ts";
import { outputError, toy } from "./toy.suite.ts";
import { trilmRounding } from "./trilm.ts";

// Formats of kinds that no format here has yet, made only to show that the contract holds them and every method writes them.

const clamp = (x: number, top: number) => Math.max(0, Math.min(top, halfAway(x)));

/** Two-level scales as in ggml's K-quants: 256 weights, 8 subgroups with 6-bit scales and offsets in units of two fp16. */
const superblocks: GroupFormat = {
  kind: "group",
  name: "superblocks",
  stem: "superblocks",
  spec: "this test",
  codeBits: 4,
  codeCount: 16,
  groupShape: { kind: "superblock", size: 256, subgroups: 8 },
  parts(rows, cols) {
    checkGroup("superblocks", cols, 256);
    const blocks = cols / 256;
    return [
      { name: "codes", dtype: "u8", shape: [rows, cols] },
      { name: "subgroups", dtype: "u8", shape: [rows, 16 * blocks] },
      { name: "scales", dtype: "f16", shape: [rows, 2 * blocks] },
    ];
  },
  fitGroup(w) {
    const plain = Array.from({ length: 8 }, (_, s) => {
      const part = w.subarray(32 * s, 32 * s + 32);
      const low = Math.min(0, ...part);
      return { scale: (Math.max(0, ...part) - low) / 15, offset: low };
    });
    const scale = Math.f16round(Math.max(...plain.map((p) => p.scale)) / 63);
    const offset = Math.f16round(Math.min(...plain.map((p) => p.offset)) / 63);
    const stored = plain.map((p) => ({
      scale: scale * clamp(p.scale / (scale || 1), 63),
      offset: offset * clamp(p.offset / (offset || 1), 63),
    }));
    return { scale, offset, subgroups: stored };
  },
  nearest(w, { subgroups }, index = 0) {
    const { scale, offset } = subgroups![index >> 5];
    return scale === 0 ? 0 : clamp((w - offset) / scale, 15);
  },
  value(code, { subgroups }, index = 0) {
    const { scale, offset } = subgroups![index >> 5];
    return Math.fround(scale * code + offset);
  },
  pack({ codes, parameters }, rows, cols) {
    const [codesSpec, subgroupsSpec, scalesSpec] = superblocks.parts(rows, cols);
    const small = parameters.flatMap((p) =>
      p.subgroups!.flatMap((s) => [s.scale / (p.scale || 1), s.offset / (p.offset || 1)]),
    );
    const large = parameters.flatMap((p) => [p.scale, p.offset]);
    return {
      codes: partOf("u8", codesSpec.shape, codes),
      subgroups: partOf("u8", subgroupsSpec.shape, Uint8Array.from(small)),
      scales: partOf("f16", scalesSpec.shape, Float16Array.from(large)),
    };
  },
  unpack(parts) {
    const small = parts.subgroups.bytes;
    const large = elements(parts.scales, Float16Array);
    const parameters: Parameters[] = Array.from({ length: large.length / 2 }, (_, b) => ({
      scale: large[2 * b],
      offset: large[2 * b + 1],
      subgroups: Array.from({ length: 8 }, (_, s) => ({
        scale: large[2 * b] * small[16 * b + 2 * s],
        offset: large[2 * b + 1] * small[16 * b + 2 * s + 1],
      })),
    }));
    return { codes: parts.codes.bytes, parameters };
  },
};

/** One scale for a whole tensor, with the levels of a table (NF, FP4). */
const LEVELS = [-1, -0.5, -0.2, 0, 0.2, 0.5, 1];
const oneScale: GroupFormat = {
  kind: "group",
  name: "one-scale",
  stem: "one-scale",
  spec: "this test",
  codeBits: 8,
  codeCount: LEVELS.length,
  groupShape: { kind: "tensor" },
  parts: (rows, cols) => [
    { name: "codes", dtype: "u8", shape: [rows, cols] },
    { name: "scale", dtype: "f16", shape: [1] },
  ],
  fitGroup: (w) => ({
    scale: Math.f16round(w.reduce((most, x) => Math.max(most, Math.abs(x)), 0)),
    offset: 0,
  }),
  nearest: (w, { scale }) =>
    LEVELS.reduce(
      (best, level, i) => (Math.abs(w - scale * level) < Math.abs(w - scale * LEVELS[best]) ? i : best),
      0,
    ),
  value: (code, { scale }) => Math.fround(scale * LEVELS[code]),
  pack: ({ codes, parameters }, rows, cols) => ({
    codes: partOf("u8", [rows, cols], codes),
    scale: partOf("f16", [1], Float16Array.of(parameters[0].scale)),
  }),
  unpack: (parts) => ({
    codes: parts.codes.bytes,
    parameters: [{ scale: elements(parts.scale, Float16Array)[0], offset: 0 }],
  }),
};

describe.each([superblocks, oneScale])("a format to come, $name", (format) => {
  const layer = toy(16, 512, 3);
  const backend = openReference();
  const H = backend.upload(hostTensor([512, 512], layer.H));

  it.each([{}, { actOrder: true }, { staticGroups: true }])(
    "is written by rtn and by gptq %o, and read back",
    async (options) => {
      const coded = [
        await rtn.quantize(layer.W, format, { backend, H }),
        await gptq.quantize(layer.W, format, { backend, H }, options),
      ];
      const errors = coded.map((one) => {
        const parts = format.pack(one, 16, 512);
        expect(decode(format, parts, 16, 512)).toEqual(valuesOf(format, one));
        expect(format.unpack(parts, 16, 512)).toEqual(one);
        return outputError(layer, valuesOf(format, one));
      });
      expect(errors[1]).toBeLessThan(errors[0]);
      expect(bitsPerWeight(format, 16, 512)).toBeLessThan(8.7);
    },
  );
});

it("shards must hold whole groups along the rows too", async () => {
  const { W } = toy(16, 512, 3);
  const shards = { count: 2, along: "rows" } as const;
  const work = trilmRounding.quantize(W, oneScale, { backend: openReference() }, { shards });
  await expect(work).rejects.toThrow("must each hold whole groups of 8192");
});
