import { stateAt, TRELLIS_BITS, trellisCodes, trellisValue } from "../formats/trellis.ts";
import { ShapeError, type Tensor } from "../tensor/tensor.ts";
import { matrixShape, needSize, type Procedure } from "./kernel.ts";

/**
 * The codes of a trellis for sequences of weights, as `trellisCodes` (formats/trellis.ts) finds them, and their values.
 *
 *   x (n, T), bits 2, 3 or 4 -> codes (n, T) i32, values (n, T)
 *
 * Cost n·(T + 64)·2^L additions. Where two streams are as good as each other up to their roundings, implementations may
 * take different ones.
 */
export const viterbi: Procedure<[codes: Tensor, values: Tensor, x: Tensor, bits: number]> = {
  check(codes, values, x, bits) {
    const [n, length] = matrixShape("viterbi: x", x);
    needSize("viterbi: codes", codes, n * length);
    needSize("viterbi: values", values, n * length);
    if (![2, 3, 4].includes(bits)) throw new ShapeError(`viterbi: bits are 2, 3 or 4, got ${bits}`);
    if (length * bits < TRELLIS_BITS)
      throw new ShapeError(`viterbi: sequences need ${TRELLIS_BITS} bits, got ${length * bits}`);
  },

  numbers(_codes, _values, x, bits) {
    return [x.shape[0], x.shape[1], bits];
  },

  writes: [0, 1],
  integers: [0],

  run([codes, values, x], [n, length, bits]) {
    for (let i = 0; i < n; i++) {
      const found = trellisCodes(x.data.subarray(i * length, (i + 1) * length), bits);
      for (let t = 0; t < length; t++) {
        codes.ids[i * length + t] = found[t];
        values.data[i * length + t] = trellisValue(stateAt((at) => found[at % length], t, bits));
      }
    }
  },
};
