import { halfEven } from "../tensor/rounding.ts";
import { sizeOf, type Tensor } from "../tensor/tensor.ts";
import { lastOf, needSize, type Procedure, rowsOf } from "./kernel.ts";
import {
  type AdamNumbers,
  adamNumbers,
  bytesOf,
  DynamicMap,
  groupScale,
  inverseScale,
  type Moved,
  noBound,
  roundedAdam,
} from "./moments.ts";

/** Elements that share a scale: of the first moment, and of the second where there are no rows and columns. */
export const ADAMW4_BLOCK = 128;

/** The 16 levels of the first moment. */
export const signed4 = new DynamicMap(3, 1, true);

/** The 16 levels of the second moment: (code + 1)/16, none of which is 0. */
export function linear4(code: number): number {
  return (code + 1) / 16;
}

/** Values in `secondScale`: the largest of each row, then of each column; of a vector, of each block. */
export function adamw4Scales(shape: readonly number[]): number {
  if (shape.length < 2) return Math.ceil(sizeOf(shape) / ADAMW4_BLOCK);
  return rowsOf({ shape, format: "f32" }) + lastOf({ shape, format: "f32" });
}

/**
 * One step of AdamW (adamw.ts) on moments that are kept in 4 bits.
 *
 *   m_i = firstScale·signed[code], a scale for each block of 128 in the order of memory: max|m|
 *   v_ij = s_ij·(code+1)/16,  s_ij = min(row_i, column_j), the largest v of the row and of the column;
 *   of a vector, blocks of 128 as for m
 *
 * The step is taken in float32 from the moments before they are rounded to
 * codes. No code of v stands for 0, so that a weight whose v is small beside
 * its neighbours' does not leap by 1/ε.
 *
 * w, gradient (n); first, second i32 (⌈n/8⌉), eight codes each, the first in
 * the lowest bits; firstScale (⌈n/128⌉); secondScale (`adamw4Scales`); norm
 * (1) as in adamw, also that nothing is written when it is not finite.
 *
 * Li et al., 2023 (https://arxiv.org/abs/2309.01507), algorithm 3 and section 4, as
 * https://github.com/thu-ml/low-bit-optimizers (lpmm/functional.py) has it.
 */
export const adamw4: Procedure<
  [
    w: Tensor,
    gradient: Tensor,
    first: Tensor,
    firstScale: Tensor,
    second: Tensor,
    secondScale: Tensor,
    norm: Tensor,
    ...numbers: AdamNumbers,
  ]
> = {
  check(w, gradient, first, firstScale, second, secondScale, norm) {
    const size = sizeOf(w.shape);
    needSize("adamw4: gradient", gradient, size);
    needSize("adamw4: first", first, Math.ceil(size / 8));
    needSize("adamw4: firstScale", firstScale, Math.ceil(size / ADAMW4_BLOCK));
    needSize("adamw4: second", second, Math.ceil(size / 8));
    needSize("adamw4: secondScale", secondScale, adamw4Scales(w.shape));
    needSize("adamw4: norm", norm, 1);
  },

  numbers(w, _gradient, _first, _firstScale, _second, _secondScale, _norm, ...numbers) {
    const columns = w.shape.length < 2 ? 0 : lastOf(w);
    const [n, ...rest] = adamNumbers(w, ...numbers);
    return [n, columns, ...rest];
  },

  integers: [2, 4],
  writes: [0, 2, 3, 4, 5],

  run([w, gradient, first, firstScale, second, secondScale, norm], [n, columns, ...rest]) {
    if (!Number.isFinite(norm.data[0])) return;
    const step = roundedAdam([n, ...rest], norm.data[0]);
    const [codes1, codes2] = [bytesOf(first.ids), bytesOf(second.ids)];
    const scales = secondScale.data;
    const rows = columns === 0 ? 0 : n / columns;
    /** What v at i is kept relative to. */
    const scaleAt = (i: number) =>
      columns === 0
        ? scales[Math.floor(i / ADAMW4_BLOCK)]
        : Math.min(scales[Math.floor(i / columns)], scales[rows + (i % columns)]);

    const [m, v] = [new Float32Array(n), new Float32Array(n)];
    for (let i = 0; i < n; i++) {
      const moved: Moved = {
        w: w.data[i],
        first: Math.fround(firstScale.data[Math.floor(i / ADAMW4_BLOCK)] * signed4.levels[nibble(codes1, i)]),
        second: Math.fround(scaleAt(i) * linear4(nibble(codes2, i))),
      };
      step(moved, gradient.data[i]);
      w.data[i] = moved.w;
      m[i] = moved.first;
      v[i] = moved.second;
    }

    scales.fill(0);
    for (let i = 0; i < n; i++) {
      const places =
        columns === 0 ? [Math.floor(i / ADAMW4_BLOCK)] : [Math.floor(i / columns), rows + (i % columns)];
      for (const at of places) scales[at] = Math.max(scales[at], v[i]);
    }
    for (let at = 0; at < scales.length; at++) scales[at] = groupScale(scales[at]);
    for (let block = 0; block * ADAMW4_BLOCK < n; block++) {
      const from = block * ADAMW4_BLOCK;
      const to = Math.min(n, from + ADAMW4_BLOCK);
      const most = m.subarray(from, to).reduce((a, b) => Math.max(a, Math.abs(b)), 0);
      firstScale.data[block] = groupScale(most);
      for (let i = from; i < to; i++) {
        setNibble(codes1, i, signed4.nearest(Math.fround(m[i] * inverseScale(most))));
        const scale = scaleAt(i);
        const share = scale === 0 ? 0 : Math.fround(v[i] / scale);
        setNibble(codes2, i, Math.max(0, Math.min(15, halfEven(share * 16) - 1)));
      }
    }
  },

  bound: noBound([0, 2, 3, 4, 5]),
};

/** Code i of those that lie two in a byte, the first in the lower half. */
function nibble(bytes: Uint8Array, i: number): number {
  return (bytes[i >> 1] >> (4 * (i & 1))) & 15;
}

function setNibble(bytes: Uint8Array, i: number, code: number): void {
  const shift = 4 * (i & 1);
  bytes[i >> 1] = (bytes[i >> 1] & ~(15 << shift)) | (code << shift);
}
