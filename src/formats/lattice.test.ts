import { describe, expect, it, test } from "vitest";
import { generator, normals } from "../tensor/random.ts";
import { matrix } from "../tensor/tensor.ts";
import { E8P_SCALE, nearestE8P, packE8P, pointOfE8P } from "./e8p.ts";
import { e81bPoints, packE81B } from "./e81b.ts";
import { decode, encode, formatByName } from "./index.ts";
import { e8pPatterns, e81bPoint } from "./lattice.suite.ts";

/** All points of e8p, (65536, 8). */
const points = Float32Array.from({ length: 65536 * 8 });
for (let code = 0; code < 65536; code++) points.set(pointOfE8P(code), 8 * code);

describe("e8p", () => {
  test("has 227 patterns of a norm² of at most 10 and 29 of 12, all different", () => {
    const norms = e8pPatterns.map((p) => p.reduce((sum, x) => sum + x * x, 0));
    expect(norms.filter((norm) => norm <= 10)).toHaveLength(227);
    expect(norms.filter((norm) => norm === 12)).toHaveLength(29);
    expect(new Set(e8pPatterns.map(String)).size).toBe(256);
  });

  test("has 65,536 points, all of them in E8 but for the shift", () => {
    const seen = new Set<string>();
    for (let code = 0; code < 65536; code++) {
      const point = points.subarray(8 * code, 8 * code + 8);
      seen.add(point.join());
      const shift = code < 32768 ? 0.25 : -0.25;
      const sum = point.reduce((all, x) => all + x - shift, 0);
      if (sum % 2 !== 0 || !point.every((x) => Math.abs(x - shift) % 1 === 0.5)) expect.fail(`code ${code}`);
    }
    expect(seen.size).toBe(65536);
  });

  test("by hand: signs, parity and shift of one vector", () => {
    // Pattern 1 is 3/2 and seven 1/2: the sum 5 is odd, so that an odd number of signs is −. Signs 0b0000001 at bit 8 make
    // place 0 negative, and place 7 stays +; the shift is −1/4 with bit 15. Scale 2.
    const parts = packE8P(Uint16Array.of(0x8101, 0x0001), Float32Array.of(2), 16);
    expect([...decode(formatByName("e8p"), parts, 1, 16)]).toEqual([
      -3.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 3.5, 1.5, 1.5, 1.5, 1.5, 1.5, 1.5, -0.5,
    ]);
  });

  // From numbers that are all nearest to the least points to those beyond the largest.
  it.each([0.3, 1.03, 2.5])("finds the nearest of all points, at scale %f", (scale) => {
    const x = normals(generator(3), 8 * 40, scale);
    for (let i = 0; i < x.length; i += 8) {
      let least = Number.POSITIVE_INFINITY;
      for (let at = 0; at < points.length; at += 8) {
        let sum = 0;
        for (let j = 0; j < 8; j++) sum += (x[i + j] - points[at + j]) ** 2;
        least = Math.min(least, sum);
      }
      const own = pointOfE8P(nearestE8P(x.subarray(i, i + 8)));
      expect(own.reduce((sum, p, j) => sum + (x[i + j] - p) ** 2, 0)).toBeCloseTo(least, 9);
    }
  });

  it("finds every one of its points", () => {
    for (let code = 0; code < 65536; code += 7)
      if (nearestE8P(points.subarray(8 * code, 8 * code + 8)) !== code) expect.fail(`code ${code}`);
  });

  it("packs every code", () => {
    const codes = Uint16Array.from({ length: 65536 }, (_, code) => code);
    const parts = packE8P(codes, new Float32Array(256).fill(1), 2048);
    expect(decode(formatByName("e8p"), parts, 256, 2048)).toEqual(points);
  });

  // methods.md 2.2 computed 0.0923 for the authors' own 29 patterns.
  it("loses at most 0.0935 of Gaussian numbers of the deviation that it is made for", () => {
    expect(E8P_SCALE).toBe(1.03);
    const W = matrix(16, 4096, normals(generator(6), 1 << 16));
    const Ŵ = decode(formatByName("e8p"), encode(formatByName("e8p"), W), 16, 4096);
    expect(W.data.reduce((sum, w, i) => sum + (w - Ŵ[i]) ** 2, 0) / W.data.length).toBeLessThan(0.0935);
  });
});

test("e81b has 256 points of E8, 240 of them its shortest", () => {
  const all = Array.from({ length: 256 }, (_, code) => [...e81bPoints.data.subarray(8 * code, 8 * code + 8)]);
  expect(all).toEqual(all.map((_, code) => e81bPoint(code)));
  const norms = all.map((point) => point.reduce((sum, x) => sum + x * x, 0));
  expect([0, 2, 4].map((norm) => norms.filter((n) => n === norm).length)).toEqual([1, 240, 15]);
  expect(new Set(all.map(String)).size).toBe(256);
  const parts = packE81B(
    Array.from({ length: 256 }, (_, code) => code),
    Float32Array.of(1),
    2048,
  );
  expect([...decode(formatByName("e81b"), parts, 1, 2048)]).toEqual(all.flat());
});

test("rows that vectors do not fill are refused", () => {
  for (const name of ["e8p", "e81b"])
    expect(() => encode(formatByName(name), matrix(2, 12))).toThrow(
      `${name}: rows must be whole groups of 8 weights`,
    );
});
