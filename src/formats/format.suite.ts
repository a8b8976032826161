import { describe, expect, it } from "vitest";
import { generator, normals, type Random } from "../tensor/random.ts";
import { InputError, type Matrix, matrix } from "../tensor/tensor.ts";
import type { Parts } from "../tensor/weight.ts";
import { type Coded, type Format, type GroupFormat, groupSize, type Parameters, valuesOf } from "./format.ts";
import { bitsPerWeight, bytesPerMatrix, decode, encode } from "./index.ts";

/**
 * What a test knows about a format on its own: the weights that stored parts
 * stand for, one at a time, read from the documented layout by another road
 * than the format's code; and the stored bits per weight.
 */
export interface Facts {
  weight(parts: Parts, r: number, c: number, cols: number): number;
  /** Bits per weight of four rows of 768 weights. */
  bits: number;
  /** Its encoder fits a scale and searches, so that what it gives is not what it gives of that again. */
  searches?: true;
  /** How far from 0, from a lone weight among zeros, and from the largest weight on the other side of 0, the nearest value may be: parts of the largest weight. */
  missesZero?: number;
  missesLone?: number;
  missesEnd?: number;
}

/** What holds for every format. */
export function formatSuite(format: Format, facts: Facts): void {
  describe(format.name, () => {
    const widths =
      "size" in format.groupShape ? [1, 3].map((n) => n * groupSize(format, 1, 0)) : [1, 3, 17, 255, 256];

    it("stores what bitsPerWeight says", () => {
      for (const cols of widths) {
        const parts = encode(format, matrix(3, cols, normals(generator(1), 3 * cols)));
        const stored = Object.values(parts).reduce((bytes, part) => bytes + part.bytes.byteLength, 0);
        expect(bytesPerMatrix(format, 3, cols)).toBe(stored);
        expect(bitsPerWeight(format, 3, cols)).toBe((8 * stored) / (3 * cols));
        expect(Object.keys(parts)).toEqual(format.parts(3, cols).map((part) => part.name));
      }
      expect(bitsPerWeight(format, 4, 768)).toBeCloseTo(facts.bits, 10);
    });

    it("decodes like the scalar decoder, also from unaligned bytes", () => {
      for (const cols of widths) {
        const parts = encode(format, matrix(5, cols, normals(generator(2), 5 * cols, 0.02)));
        const w = decode(format, parts, 5, cols);
        for (let i = 0; i < w.length; i++)
          expect(w[i]).toBe(facts.weight(parts, Math.floor(i / cols), i % cols, cols));
        expect(decode(format, shifted(parts), 5, cols)).toEqual(w);
      }
    });

    it(`encodes its own values ${facts.searches ? "with less error than it made" : "as the same bytes"}`, () => {
      for (const cols of widths) {
        const W = matrix(2, cols, normals(generator(3), 2 * cols));
        const parts = encode(format, W);
        if (facts.searches) {
          const once = decode(format, parts, 2, cols);
          const twice = decode(format, encode(format, matrix(2, cols, once)), 2, cols);
          expect(squaredError(once, twice)).toBeLessThan(squaredError(W.data, once));
        } else if (format.kind === "group") {
          expect(format.pack(format.unpack(parts, 2, cols), 2, cols)).toEqual(parts);
        } else {
          expect(encode(format, matrix(2, cols, decode(format, parts, 2, cols)))).toEqual(parts);
        }
      }
    });

    it("keeps zeros", () => {
      const cols = widths[widths.length - 1];
      const w = decode(format, encode(format, matrix(2, cols)), 2, cols);
      expect(w.every((x) => x === 0)).toBe(true); // some formats of ggml make it −0
    });

    it("refuses parts of the wrong size, and parts that are missing", () => {
      const cols = widths[0];
      const parts = encode(format, matrix(2, cols));
      const [name] = Object.keys(parts);
      const cut = { ...parts, [name]: { ...parts[name], bytes: parts[name].bytes.subarray(1) } };
      expect(() => decode(format, cut, 2, cols)).toThrow(InputError);
      expect(() => decode(format, {}, 2, cols)).toThrow(`needs ${name} of`);
    });

    if (format.kind === "group") groupSuite(format, facts, widths);
  });
}

function squaredError(a: Float32Array, b: Float32Array): number {
  return a.reduce((sum, x, i) => sum + (x - b[i]) ** 2, 0);
}

/** What holds for formats of codes and group parameters. */
function groupSuite(format: GroupFormat, facts: Facts, widths: readonly number[]): void {
  const cols = widths[widths.length - 1];
  const groups = (width: number) => (width === 0 ? 0 : width / groupSize(format, 1, width));
  const one = (w: Float32Array) => decode(format, encode(format, matrix(1, w.length, w)), 1, w.length);

  it("gives every code its value, at every place of a row", () => {
    const parameters = Array.from({ length: groups(cols) }, (_, g) => someParameters(format, g));
    for (let first = 0; first < format.codeCount; first++) {
      const codes = Uint8Array.from({ length: cols }, (_, i) => (first + i) % format.codeCount);
      const parts = format.pack({ codes, parameters }, 1, cols);
      const w = decode(format, parts, 1, cols);
      for (let c = 0; c < cols; c++) expect(w[c]).toBe(facts.weight(parts, 0, c, cols));
    }
  });

  it("unpacks what it packs", () => {
    const random = generator(4);
    for (const width of widths) {
      const coded = someCodes(format, random, 3, width);
      expect(format.unpack(format.pack(coded, 3, width), 3, width)).toEqual(coded);
    }
  });

  it("finds the code of each of its values", () => {
    const parameters = someParameters(format, 1);
    for (let code = 0; code < format.codeCount; code++) {
      expect(format.nearest(format.value(code, parameters), parameters)).toBe(code);
    }
  });

  it("finds no nearer value than that of the nearest code", () => {
    const parameters = someParameters(format, 2);
    const values = Array.from({ length: format.codeCount }, (_, code) => format.value(code, parameters));
    for (const w of normals(generator(5), 300, 4 * Math.max(...values.map(Math.abs)))) {
      const least = Math.min(...values.map((value) => Math.abs(value - w)));
      const met = Math.abs(values[format.nearest(w, parameters)] - w);
      expect(met).toBeLessThanOrEqual(least * (1 + 2 ** -20));
    }
  });

  it("keeps a lone weight in a group of zeros, up to the fp16 of its scale", () => {
    for (const value of [0.37, -0.37]) {
      const w = new Float32Array(cols);
      w[5 % cols] = value;
      const decoded = one(w);
      for (let i = 0; i < cols; i++) {
        if (i === 5 % cols) {
          const bound = Math.max(2 ** -10, facts.missesLone ?? 0);
          expect(Math.abs(decoded[i] - value)).toBeLessThanOrEqual(bound * Math.abs(value));
        } else {
          const bound = Math.max(2 ** -10, facts.missesZero ?? 0);
          expect(Math.abs(decoded[i])).toBeLessThanOrEqual(bound * Math.abs(value));
        }
      }
    }
  });

  // An offset that is a whole number of scales misses both ends of −1 … 1 by half a step.
  it("reaches the largest weight on either side", () => {
    const w = Float32Array.from({ length: cols }, (_, i) => (i % 2 ? 1 : -1));
    const halfStep = facts.missesEnd ?? (format.fitGroup(w).offset === 0 ? 0 : 1 / (format.codeCount - 1));
    for (const [i, value] of one(w).entries()) {
      expect(Math.abs(value - w[i])).toBeLessThanOrEqual(halfStep + 2 ** -9);
    }
  });

  it.each([Number.NaN, Infinity, -Infinity, 3e38])("refuses %f", (value) => {
    const w = new Float32Array(cols);
    w[cols - 1] = value;
    expect(() => one(w)).toThrow(InputError);
    expect(() => one(w)).toThrow(format.name);
  });

  it("stores parameters that survive storage", () => {
    const w = normals(generator(6), groupSize(format, 1, cols), 0.05);
    const { scale, offset } = format.fitGroup(w);
    expect(Math.f16round(scale)).toBe(scale);
    expect(Math.f16round(offset)).toBe(offset);
  });

  if ("size" in format.groupShape) {
    const { size } = format.groupShape;
    it("refuses rows that groups do not fill, naming both sizes", () => {
      const wrong: Matrix = matrix(2, size + 1);
      expect(() => encode(format, wrong)).toThrow(InputError);
      expect(() => encode(format, wrong)).toThrow(
        `${format.name}: rows must be whole groups of ${size} weights, got rows of ${size + 1}`,
      );
    });
  }
}

function someParameters(format: GroupFormat, seed: number): Parameters {
  return format.fitGroup(normals(generator(seed), groupSize(format, 1, 256), 0.1));
}

function someCodes(format: GroupFormat, random: Random, rows: number, cols: number): Coded {
  const codes = Uint8Array.from({ length: rows * cols }, () => Math.floor(random() * format.codeCount));
  const parameters = Array.from({ length: (rows * cols) / groupSize(format, rows, cols) }, (_, g) =>
    someParameters(format, g),
  );
  expect(valuesOf(format, { codes, parameters }).every(Number.isFinite)).toBe(true);
  return { codes, parameters };
}

/** The same parts, their bytes at odd addresses. */
function shifted(parts: Parts): Parts {
  return Object.fromEntries(
    Object.entries(parts).map(([name, part]) => {
      const bytes = new Uint8Array(part.bytes.byteLength + 1).subarray(1);
      bytes.set(part.bytes);
      return [name, { ...part, bytes }];
    }),
  );
}
