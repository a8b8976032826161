import { type Matrix, matrix } from "../tensor/tensor.ts";
import { checkGroup, elements, type OpaqueFormat, partOf, rowScales } from "./format.ts";

/**
 * E81B: vectors of eight weights at 256 points of the lattice E8, 8 bits each;
 * 1 + 16/cols bits per weight. What is left of weights in `e8p` is stored so
 * for a third bit.
 *
 *   codes   u8  (rows, cols/8)
 *   scales  f16 (rows, 1)
 *
 *   0 … 127    ±1/2 everywhere: bit i is the sign of place i, 1 for −, that of place 7 makes the number of minus signs even
 *   128 … 239  ±1 at two places i < j: 128 + 4·(number of the pair) + (sign of i) + 2·(sign of j), 1 for −
 *   240        zeros
 *   241 … 255  2 at place 0 … 7, then −2 at place 0 … 6
 *   weight     scale·point
 *
 * The residual book of QuIP#: Tseng, Chee, Sun, Kuleshov and De Sa, 2024 (https://arxiv.org/abs/2402.04396, section 4.3).
 */
export const e81b: OpaqueFormat = {
  kind: "opaque",
  name: "e81b",
  stem: "e81b",
  spec: "lowbit: src/formats/e81b.ts",
  codeBits: 1,
  groupShape: { kind: "vector", size: 8 },

  parts(rows, cols) {
    checkGroup("e81b", cols, 8);
    return [
      { name: "codes", dtype: "u8", shape: [rows, cols / 8] },
      { name: "scales", dtype: "f16", shape: [rows, 1] },
    ];
  },

  encode(w, rows, cols) {
    checkGroup("e81b", cols, 8);
    const scales = rowScales("e81b", w, rows, cols, BEST_SHARE);
    const codes = Uint8Array.from({ length: (rows * cols) / 8 }, (_, v) => {
      const scale = scales[Math.floor((8 * v) / cols)];
      return nearest(w.subarray(8 * v, 8 * v + 8).map((x) => (scale === 0 ? 0 : x / scale)));
    });
    return packE81B(codes, scales, cols);
  },

  decode(parts, rows, cols) {
    const scales = elements(parts.scales, Float16Array);
    const values = new Float32Array(rows * cols);
    for (const [v, code] of parts.codes.bytes.entries()) {
      const scale = scales[Math.floor((8 * v) / cols)];
      for (let i = 0; i < 8; i++) values[8 * v + i] = scale * e81bPoints.data[8 * code + i];
    }
    return values;
  },
};

/** Scale of a row as a share of its root mean square where Gaussian numbers lose the least, as measured. */
const BEST_SHARE = 1 / 0.61;

/** Stored parts of codes (rows, cols/8) and the scales of the rows. */
export function packE81B(codes: ArrayLike<number>, scales: Float32Array, cols: number) {
  const rows = scales.length;
  return {
    codes: partOf("u8", [rows, cols / 8], Uint8Array.from(codes)),
    scales: partOf("f16", [rows, 1], Float16Array.from(scales)),
  };
}

/** The points (256, 8) by their codes, before scaling. */
export const e81bPoints: Matrix = points();

function points(): Matrix {
  const all = matrix(256, 8);
  const at = (code: number) => all.data.subarray(8 * code, 8 * code + 8);
  for (let signs = 0; signs < 128; signs++) {
    let minus = 0;
    at(signs).forEach((_, i, point) => {
      const sign = i < 7 ? (signs >> i) & 1 : minus;
      minus ^= sign;
      point[i] = sign ? -0.5 : 0.5;
    });
  }
  let code = 128;
  for (let i = 0; i < 8; i++) {
    for (let j = i + 1; j < 8; j++) {
      for (let signs = 0; signs < 4; signs++, code++) {
        at(code)[i] = signs & 1 ? -1 : 1;
        at(code)[j] = signs & 2 ? -1 : 1;
      }
    }
  }
  for (let i = 0; i < 15; i++) at(241 + i)[i % 8] = i < 8 ? 2 : -2;
  return all;
}

function nearest(x: Float32Array): number {
  let code = 0;
  let least = Number.POSITIVE_INFINITY;
  for (let k = 0; k < 256; k++) {
    let sum = 0;
    for (let i = 0; i < 8; i++) sum += (x[i] - e81bPoints.data[8 * k + i]) ** 2;
    if (sum < least) [least, code] = [sum, k];
  }
  return code;
}
