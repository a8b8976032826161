import { sizeOf, type Tensor } from "../tensor/tensor.ts";
import { needSize, type Procedure } from "./kernel.ts";
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

/** Elements that share a scale. */
export const ADAMW8_BLOCK = 256;

/** Levels of the first moment and of the second, 256 each. */
export const signed8 = new DynamicMap(7, 1, true);
export const unsigned8 = new DynamicMap(7, 2, false);

/**
 * One step of AdamW (adamw.ts) on moments that are kept in 8 bits: blocks of
 * 256 in the order of memory, each with the largest magnitude in it as its
 * scale, and codes of the dynamic data type.
 *
 *   m = firstScale·signed[code],  v = secondScale·unsigned[code]
 *   the step in float32, from which the weight moves
 *   scale ← max|m|, code ← the nearest level to m/scale; the same for v
 *
 * w, gradient (n); first, second i32 (⌈n/4⌉), four codes each, the first in
 * the lowest byte; firstScale, secondScale (⌈n/256⌉); norm (1) as in adamw,
 * also that nothing is written when it is not finite.
 *
 * Dettmers et al., 2022 (https://arxiv.org/abs/2110.02861), section 2, with blocks of 256 as in
 * https://github.com/bitsandbytes-foundation/bitsandbytes, where they were 2048.
 */
export const adamw8: Procedure<
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
    const blocks = Math.ceil(size / ADAMW8_BLOCK);
    needSize("adamw8: gradient", gradient, size);
    needSize("adamw8: first", first, Math.ceil(size / 4));
    needSize("adamw8: firstScale", firstScale, blocks);
    needSize("adamw8: second", second, Math.ceil(size / 4));
    needSize("adamw8: secondScale", secondScale, blocks);
    needSize("adamw8: norm", norm, 1);
  },

  numbers(w, _gradient, _first, _firstScale, _second, _secondScale, _norm, ...numbers) {
    return adamNumbers(w, ...numbers);
  },

  integers: [2, 4],
  writes: [0, 2, 3, 4, 5],

  run([w, gradient, first, firstScale, second, secondScale, norm], numbers) {
    if (!Number.isFinite(norm.data[0])) return;
    const [n] = numbers;
    const step = roundedAdam(numbers, norm.data[0]);
    const [codes1, codes2] = [bytesOf(first.ids), bytesOf(second.ids)];
    const [m, v] = [new Float32Array(ADAMW8_BLOCK), new Float32Array(ADAMW8_BLOCK)];
    for (let from = 0, block = 0; from < n; from += ADAMW8_BLOCK, block++) {
      const count = Math.min(ADAMW8_BLOCK, n - from);
      let [most1, most2] = [0, 0];
      for (let i = 0; i < count; i++) {
        const moved: Moved = {
          w: w.data[from + i],
          first: Math.fround(firstScale.data[block] * signed8.levels[codes1[from + i]]),
          second: Math.fround(secondScale.data[block] * unsigned8.levels[codes2[from + i]]),
        };
        step(moved, gradient.data[from + i]);
        w.data[from + i] = moved.w;
        m[i] = moved.first;
        v[i] = moved.second;
        most1 = Math.max(most1, Math.abs(m[i]));
        most2 = Math.max(most2, v[i]);
      }
      firstScale.data[block] = groupScale(most1);
      secondScale.data[block] = groupScale(most2);
      const inverse1 = inverseScale(most1);
      const inverse2 = inverseScale(most2);
      for (let i = 0; i < count; i++) {
        codes1[from + i] = signed8.nearest(Math.fround(m[i] * inverse1));
        codes2[from + i] = unsigned8.nearest(Math.fround(v[i] * inverse2));
      }
    }
  },

  bound: noBound([0, 2, 3, 4, 5]),
};
