// A format that exists in this file alone gets every kernel on every backend.
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { checkInt8, checkKernel } from "../src/backends/backend.suite.ts";
import type { Backend } from "../src/backends/backend.ts";
import { packedCases } from "../src/backends/cases.suite.ts";
import { openBackend } from "../src/backends/index.ts";
import { checkGroup, elements, type GroupFormat, partOf } from "../src/formats/format.ts";
import { addFormat } from "../src/formats/index.ts";
import { activationGroup } from "../src/formats/levels.ts";
import { backendsHere } from "./backends.ts";

/** Codes stand for `levels` times the scale of their group of 32: a byte for a code, a float32 for a scale. */
function toy(name: string, levels: readonly number[], offset: number): GroupFormat {
  const size = 32;
  const largest = Math.max(...levels.map(Math.abs));
  const format: GroupFormat = {
    kind: "group",
    name,
    stem: name,
    spec: "test/toy-format.test.ts",
    codeBits: 8,
    codeCount: levels.length,
    groupShape: { kind: "group", size },
    parts(rows, cols) {
      checkGroup(name, cols, size);
      return [
        { name: "codes", dtype: "u8", shape: [rows, cols] },
        { name: "scales", dtype: "f32", shape: [rows, cols / size] },
      ];
    },
    fitGroup: (w) => ({ scale: Math.fround(Math.max(...w.map(Math.abs)) / largest), offset }),
    nearest(w, { scale }) {
      const errors = levels.map((level) => Math.abs(scale * level + offset - w));
      return errors.indexOf(Math.min(...errors));
    },
    value: (code, { scale }) => Math.fround(Math.fround(scale * levels[code]) + offset),
    pack({ codes, parameters }, rows, cols) {
      const [one, other] = format.parts(rows, cols);
      return {
        codes: partOf("u8", one.shape, codes.slice()),
        scales: partOf(
          "f32",
          other.shape,
          Float32Array.from(parameters, ({ scale }) => scale),
        ),
      };
    },
    unpack: (parts) => ({
      codes: parts.codes.bytes.slice(),
      parameters: Array.from(elements(parts.scales, Float32Array), (scale) => ({ scale, offset })),
    }),
  };
  return format;
}

const toys = [
  toy("toy-five", [-4, -1, 0, 1, 4], 0),
  toy("toy-shifted", [-128, -3, 0, 5, 127], 0.25),
  toy("toy-curved", [-1.5, -0.4, 0, 0.4, 1.5], 0),
];
for (const format of toys) addFormat(format);

describe.each(await backendsHere())("toy formats, %s", (name) => {
  let backend: Backend;
  beforeAll(async () => {
    backend = await openBackend(name, { threads: 2 });
  });
  afterAll(() => backend.dispose());

  test.each(toys.filter((format) => activationGroup(format) > 0).map((format) => format.name))(
    "%s, int8 activations",
    async (format) => {
      await checkInt8(backend, format);
    },
  );

  test.each(toys.map((format) => format.name))("%s", async (format) => {
    const cases = packedCases(format);
    expect(new Set(cases.map((one) => one.name))).toEqual(new Set(["linear", "embedding", "crossEntropy"]));
    for (const one of cases) {
      expect(backend.supports(one.name, format)).toBe(true);
      await checkKernel(backend, one);
    }
  });
});
