import { ShapeError, sizeOf, type Tensor } from "../tensor/tensor.ts";
import { type Kernel, matrixShape, needFormat, needMatrix, type View } from "./kernel.ts";

/** Of formats of 8 bits. */
const MOST_LEVELS = 256;

/**
 * A matrix that is moved and put back on its own grid, as training sees a merge: each weight is one of the values that the
 * scale and offset of its group give to the levels of its format.
 *
 *   w_rc = s_rg·l_k + o_rg, k = codes_rc,   y_rc = s_rg·l_j + o_rg, j the first for which |w_rc + d_rc − y_rc| is least
 *   dd = dy, straight through
 *
 * d (rows, cols), codes (rows, cols) i32, l (levels), s and o (rows, groups) -> y (rows, cols). With `keepsZeros` what is 0
 * stays 0 and gets no gradient: the mask of a sparse matrix. All in float32, so that every backend gives the same bits. A
 * code that no level has, and a weight that is not finite, give NaN.
 */
export const snap: Kernel<[d: Tensor, codes: Tensor, l: Tensor, s: Tensor, o: Tensor, keepsZeros: number]> = {
  outputs(d, codes, l, s, o) {
    const [rows, cols] = matrixShape("snap: d", d);
    needMatrix("snap: codes", codes, rows, cols);
    needFormat("snap: codes", codes, "i32");
    if (l.shape.length !== 1 || l.shape[0] > MOST_LEVELS)
      throw new ShapeError(`snap: needs a list of at most ${MOST_LEVELS} levels, got ${l.shape.join("×")}`);
    const [, groups] = matrixShape("snap: s", s);
    needMatrix("snap: s", s, rows, groups);
    needMatrix("snap: o", o, rows, groups);
    if (cols > 0 && cols % groups !== 0)
      throw new ShapeError(`snap: ${groups} groups do not divide rows of ${cols}`);
    return [{ shape: [rows, cols], format: "f32" }];
  },

  numbers(d, _codes, l, s, _o, keepsZeros) {
    return [d.shape[0], d.shape[1], sizeOf(l.shape), s.shape[1], keepsZeros];
  },

  forward([d, codes, l, s, o], [y], numbers) {
    const [rows, cols, levels, groups, keepsZeros] = numbers;
    const width = cols / groups;
    for (let at = 0; at < rows * cols; at++) {
      const g = Math.floor(at / cols) * groups + Math.floor((at % cols) / width);
      const w = valueAt(codes.ids[at], l, s.data[g], o.data[g]);
      const target = Math.fround(w + d.data[at]);
      let nearest = keepsZeros && w === 0 ? 0 : Number.NaN;
      let least = Number.POSITIVE_INFINITY;
      for (let k = 0; k < levels && !(keepsZeros && w === 0); k++) {
        const value = valueAt(k, l, s.data[g], o.data[g]);
        const distance = Math.abs(Math.fround(target - value));
        if (distance < least) [least, nearest] = [distance, value];
      }
      y.data[at] = nearest;
    }
  },

  ids: 1,
  differentiable: [0],

  backward([, codes, l, s, o], _outputs, dy, [dd], numbers) {
    const [rows, cols, , groups, keepsZeros] = numbers;
    const width = cols / groups;
    for (let at = 0; dd && at < rows * cols; at++) {
      const g = Math.floor(at / cols) * groups + Math.floor((at % cols) / width);
      const stays = keepsZeros && valueAt(codes.ids[at], l, s.data[g], o.data[g]) === 0;
      dd.data[at] = stays ? 0 : dy.data[at];
    }
  },

  // Every backend does the same.
  bound: ([d]) => [new Float64Array(sizeOf(d.shape))],
  boundBackward: (_inputs, _outputs, dy, [dd]) => [
    dd && new Float64Array(dy.data.length),
    null,
    null,
    null,
    null,
  ],
};

function valueAt(code: number, l: View, s: number, o: number): number {
  if (code < 0 || code >= l.data.length) return Number.NaN;
  return Math.fround(Math.fround(s * l.data[code]) + o);
}
