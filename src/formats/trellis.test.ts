import { describe, expect, it, test } from "vitest";
import { generator, normals } from "../tensor/random.ts";
import { matrix } from "../tensor/tensor.ts";
import { bitsPerWeight, decode, encode, formatByName } from "./index.ts";
import { weightAt } from "./trellis.suite.ts";
import { TRELLIS_BITS, trellisCodes, trellisValue } from "./trellis.ts";

test("the values of the 16,384 states are about those of a normal distribution", () => {
  const values = Float64Array.from({ length: 2 ** TRELLIS_BITS }, (_, s) => trellisValue(s));
  const mean = values.reduce((a, b) => a + b) / values.length;
  const deviation = Math.sqrt(values.reduce((sum, v) => sum + (v - mean) ** 2, 0) / values.length);
  expect(Math.abs(mean)).toBeLessThan(0.01);
  expect(deviation).toBeCloseTo(1, 2);
});

describe.each([2, 3, 4] as const)("trellis%i", (bits) => {
  const format = formatByName(`trellis${bits}`);

  it("decodes like a reader of single bits", () => {
    const [rows, cols] = [21, 35];
    const parts = encode(format, matrix(rows, cols, normals(generator(bits), rows * cols)));
    const W = decode(format, parts, rows, cols);
    const scales = new Float16Array(parts.scales.bytes.slice().buffer);
    for (let i = 0; i < W.length; i++) {
      const [r, c] = [Math.floor(i / cols), i % cols];
      expect(W[i]).toBe(weightAt(parts.codes, scales[r], bits, rows, r, c));
    }
    expect(bitsPerWeight(format, 352, 352)).toBe(bits + 16 / 352);
  });

  it("stores zeros as zeros", () => {
    expect(decode(format, encode(format, matrix(3, 16)), 3, 16).every((x) => x === 0)).toBe(true);
  });

  // The bound of any code is 4^−bits; methods.md 2.2 computed 0.0725, 0.0196 and 0.0059 without tail-biting.
  it("loses of Gaussian numbers what the paper's code of 14 bits loses", () => {
    let lost = 0;
    const tiles = 6;
    for (let i = 0; i < tiles; i++) {
      const x = normals(generator(100 + i), 256);
      const codes = trellisCodes(x, bits);
      for (let t = 0; t < 256; t++) {
        let state = 0;
        for (let j = 0; j * bits < 14; j++) state |= codes[(t + j) % 256] << (j * bits);
        lost += (x[t] - trellisValue(state & 16383)) ** 2 / (256 * tiles);
      }
    }
    expect(lost).toBeLessThan({ 2: 0.079, 3: 0.0225, 4: 0.0072 }[bits]);
    expect(lost).toBeGreaterThan(4 ** -bits);
  });
});

test("of all streams with its first twelve bits, it takes the nearest", () => {
  const x = normals(generator(5), 8);
  const loss = (codes: ArrayLike<number>) => {
    let sum = 0;
    for (let t = 0; t < 8; t++) {
      let state = 0;
      for (let j = 0; j < 7; j++) state |= codes[(t + j) % 8] << (2 * j);
      sum += (x[t] - trellisValue(state & 16383)) ** 2;
    }
    return sum;
  };
  const found = trellisCodes(x, 2);
  let least = Number.POSITIVE_INFINITY;
  for (let end = 0; end < 16; end++) {
    const stream = [...found.subarray(0, 6), end & 3, end >> 2];
    least = Math.min(least, loss(stream));
  }
  expect(loss(found)).toBeCloseTo(least, 6);
});
