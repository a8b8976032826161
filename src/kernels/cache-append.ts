import { formatByName } from "../formats/index.ts";
import { halfEven } from "../tensor/rounding.ts";
import { ShapeError, type Tensor } from "../tensor/tensor.ts";
import { matrixShape, needWhole, type Procedure, type View } from "./kernel.ts";

/** Formats other than f32 in which keys and values can be kept: half precision, and symmetric integers of 8 and 4 bits. */
export function isCacheFormat(name: string): boolean {
  return /^(f16|int[48](-g(32|64|128))?)$/.test(name);
}

/**
 * Writes rows (tokens, dim) into a cache (capacity, dim), as its rows at … at+tokens−1.
 *
 *   f32       a copy
 *   f16       each value to the nearest, ties to even; infinite from 65,520 on
 *   int8, int4, per group of a row, all in float32:
 *             scale = f16(min(max|x|/(2^(B−1)−1), 65504)),  code = 2^(B−1) + halfEven(x/scale), within the codes;
 *             with a scale of 0 every value is 0; a group that holds NaN or infinity is NaN, all of it
 *
 * so that every backend stores the same bytes. Rows in the cache's own format are copied as they are.
 */
export const cacheAppend: Procedure<[cache: Tensor, rows: Tensor, at: number]> = {
  check(cache, rows, at) {
    const [capacity, dim] = matrixShape("cacheAppend: cache", cache);
    const [tokens, width] = matrixShape("cacheAppend: rows", rows);
    if (width !== dim) throw new ShapeError(`cacheAppend: rows need ${dim} values, got ${width}`);
    if (rows.format !== "f32" && rows.format !== cache.format) {
      throw new ShapeError(`cacheAppend: rows need to be f32 or ${cache.format}, got ${rows.format}`);
    }
    needWhole("cacheAppend: at", at);
    if (at + tokens > capacity) {
      throw new ShapeError(
        `cacheAppend: rows ${at} … ${at + tokens - 1} need more than the cache's ${capacity}`,
      );
    }
  },

  numbers(_cache, rows, at) {
    return [rows.shape[0], rows.shape[1], at];
  },

  writes: [0],
  caches: [0, 1],

  run([cache, rows], [tokens, dim, at]) {
    if (cache.format === "f32") cache.data.set(rows.data, at * dim);
    else if (rows.format === cache.format) copyRows(cache, rows, at);
    else if (cache.format === "f16") float16s(cache.parts!.data.bytes).set(rows.data, at * dim);
    else appendIntegers(cache, rows.data, tokens, dim, at);
  },

  // Every backend does the same.
  bound([cache]) {
    return [new Float64Array(cache.shape[0] * cache.shape[1])];
  },
};

function float16s({ buffer, byteOffset, byteLength }: Uint8Array): Float16Array {
  return new Float16Array(buffer, byteOffset, byteLength / 2);
}

function copyRows(cache: View, rows: View, at: number): void {
  for (const [name, part] of Object.entries(cache.parts!)) {
    part.bytes.set(rows.parts![name].bytes, (at * part.bytes.length) / cache.shape[0]);
  }
}

function appendIntegers(cache: View, x: Float32Array, tokens: number, dim: number, at: number): void {
  const { codeBits: bits } = formatByName(cache.format);
  const { codes, scales } = cache.parts!;
  const [rowBytes, groups] = [codes.bytes.length, scales.bytes.length / 2].map((n) => n / cache.shape[0]);
  const group = dim / groups;
  const middle = 2 ** (bits - 1);
  codes.bytes.fill(0, at * rowBytes, (at + tokens) * rowBytes);
  for (let t = 0; t < tokens; t++) {
    for (let g = 0; g < groups; g++) {
      const w = x.subarray(t * dim + g * group, t * dim + (g + 1) * group);
      const scale = scaleOf(w, middle - 1);
      float16s(scales.bytes)[(at + t) * groups + g] = scale;
      for (let i = 0; i < group; i++) {
        const level = scale > 0 ? halfEven(Math.fround(w[i] / scale)) : 0;
        const code = middle + Math.max(-middle, Math.min(level, middle - 1));
        const bit = (g * group + i) * bits;
        codes.bytes[(at + t) * rowBytes + (bit >> 3)] |= code << (bit & 7);
      }
    }
  }
}

/** The scale of a group as it is stored; NaN when the group is not finite. */
function scaleOf(w: Float32Array, top: number): number {
  let largest = 0;
  for (const value of w) largest = Math.max(largest, Math.abs(value));
  if (!Number.isFinite(largest)) return Number.NaN;
  return Math.f16round(Math.min(Math.fround(largest / top), 65504));
}
