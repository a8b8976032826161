import { expect, test } from "vitest";
import { generator, normals } from "../tensor/random.ts";
import { halfEven } from "../tensor/rounding.ts";
import { roundRows } from "./round-rows.ts";
import { elementsView } from "./view.ts";

type Options = readonly [bits: number, rule: number, group: number, share: number, limit: number];

function rounded(x: Float32Array, rows: number, options: Options): Float32Array {
  const shape = [rows, x.length / rows];
  const y = elementsView(shape, new Float32Array(x.length));
  const numbers = roundRows.numbers({ shape, format: "f32" } as never, ...options);
  roundRows.forward([elementsView(shape, x)], [y], numbers);
  return y.data;
}

const x = normals(generator(1), 3 * 40, 2);
const rows = [0, 1, 2].map((r) => x.subarray(r * 40, (r + 1) * 40));

test("absmax is BitNet's: clip(round(x·s), −128, 127)/s, s = 127/max(max|x|, 1e-5)", () => {
  const expected = rows.flatMap((row) => {
    const s = 127 / Math.max(...row.map(Math.abs), 1e-5);
    return Array.from(row, (v) => Math.max(-128, Math.min(127, halfEven(v * s))) / s);
  });
  const y = rounded(x, 3, [8, 0, 0, 1, 0]);
  for (const [i, value] of expected.entries()) expect(y[i]).toBeCloseTo(value, 5);
});

test("absmean is BitNet a4.8's: β/√7·RoundClip(√7/(β+ε)·x, −8, 7), β = mean|x|", () => {
  const expected = rows.flatMap((row) => {
    const β = row.reduce((sum, v) => sum + Math.abs(v), 0) / 40;
    const codes = Array.from(row, (v) => halfEven((Math.sqrt(7) / (β + 1e-5)) * v));
    return codes.map((q) => (β / Math.sqrt(7)) * Math.max(-8, Math.min(7, q)));
  });
  const y = rounded(x, 3, [4, 1, 0, 1, 0]);
  for (const [i, value] of expected.entries()) expect(y[i]).toBeCloseTo(value, 5);
});

test("minmax never clips, and groups have scales of their own", () => {
  const y = rounded(x, 3, [4, 2, 8, 1, 0]);
  for (let g = 0; g < x.length; g += 8) {
    const most = Math.max(...x.subarray(g, g + 8).map(Math.abs));
    for (let i = g; i < g + 8; i++) expect(Math.abs(y[i] - x[i])).toBeLessThanOrEqual(most / 14 + 1e-6);
  }
});

test("the largest ⌈share·n⌉ of a row stay as they were rounded, of equal ones the earlier", () => {
  for (const share of [0.5, 0.3, 0.01, 1]) {
    const [all, some] = [1, share].map((s) => rounded(x, 3, [8, 0, 0, s, 0]));
    for (const [r, row] of rows.entries()) {
      const order = Array.from(row.keys()).sort((a, b) => Math.abs(row[b]) - Math.abs(row[a]));
      const kept = new Set(order.slice(0, Math.ceil(share * 40)));
      for (let i = 0; i < 40; i++) expect(some[r * 40 + i]).toBe(kept.has(i) ? all[r * 40 + i] : 0);
    }
  }
  expect(Array.from(rounded(Float32Array.of(1, -2, 2, -2, 0), 1, [8, 0, 0, 0.4, 0]))).toEqual([
    0, -2, 2, 0, 0,
  ]);
});

test("rounding what is rounded changes nothing", () => {
  for (const rule of [0, 3]) {
    const once = rounded(x, 3, [8, rule, 0, 1, 0]);
    const again = rounded(once, 3, [8, rule, 0, 1, 0]);
    for (let i = 0; i < x.length; i++) expect(again[i]).toBeCloseTo(once[i], 5);
  }
});
