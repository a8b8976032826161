import { roundBf16 } from "../tensor/half.ts";
import { sizeOf, type Tensor } from "../tensor/tensor.ts";
import { needSize, type Procedure } from "./kernel.ts";
import { noBound, setBf16At } from "./moments.ts";

/**
 * w ← R(w), rest ← R(w − R(w)), R the nearest bf16: what collage.ts trains
 * from. w f32 (n); rest i32 (⌈n/2⌉), two bf16 each, the first in the lower half.
 */
export const splitBf16: Procedure<[w: Tensor, rest: Tensor]> = {
  check(w, rest) {
    needSize("splitBf16: rest", rest, Math.ceil(sizeOf(w.shape) / 2));
  },

  numbers(w) {
    return [sizeOf(w.shape)];
  },

  integers: [1],
  writes: [0, 1],

  run([w, rest], [n]) {
    for (let i = 0; i < n; i++) {
      const high = roundBf16(w.data[i]);
      setBf16At(rest.ids, i, roundBf16(w.data[i] - high));
      w.data[i] = high;
    }
  },

  bound: noBound([0, 1]),
};
