import { ShapeError, type Tensor } from "../tensor/tensor.ts";
import { gamma, type Kernel, matrixShape, needFormat, TINY, type View } from "./kernel.ts";

/**
 * A matrix from its codes, every part of which may be trained but the codes: vectors of d weights are entries of a
 * book, and every group of a row has a scale and an offset. A book of d = 1 holds the levels of a format.
 *
 *   y_rc = s_rg·book_kj + o_rg,  k = codes_rv, c = v·d + j        book (K, d), codes (rows, vectors) i32,
 *                                                                 s and o (rows, groups) -> y (rows, vectors·d)
 *   ds_rg = Σ_{c in g} dy_rc·book_kj,  do_rg = Σ_{c in g} dy_rc,  dbook_kj = Σ_{codes_rv = k} s_rg·dy_rc
 *
 * A code outside 0 … K−1 gives NaN and no gradient.
 */
export const lookUp: Kernel<[book: Tensor, codes: Tensor, s: Tensor, o: Tensor]> = {
  outputs(book, codes, s, o) {
    const [, d] = matrixShape("lookUp: book", book);
    const [rows, vectors] = matrixShape("lookUp: codes", codes);
    needFormat("lookUp: codes", codes, "i32");
    const cols = vectors * d;
    for (const [name, t] of [
      ["s", s],
      ["o", o],
    ] as const) {
      const [r, groups] = matrixShape(`lookUp: ${name}`, t);
      if (r === rows && groups === s.shape[1] && (cols === 0 || cols % groups === 0)) continue;
      throw new ShapeError(`lookUp: ${name} ${r}×${groups} does not divide ${rows}×${cols} into groups`);
    }
    return [{ shape: [rows, cols], format: "f32" }];
  },

  numbers(book, codes, s) {
    return [codes.shape[0], codes.shape[1], book.shape[0], book.shape[1], s.shape[1]];
  },

  forward([book, codes, s, o], [y], numbers) {
    each(codes, numbers, (at, entry, group) => {
      y.data[at] = entry < 0 ? Number.NaN : s.data[group] * book.data[entry] + o.data[group];
    });
  },

  ids: 1,
  differentiable: [0, 2, 3],

  backward([book, codes, s], _outputs, dy, [dbook, , ds, dO], numbers) {
    const forBook = new Float64Array(book.data.length);
    const forScale = new Float64Array(s.data.length);
    const forOffset = new Float64Array(s.data.length);
    each(codes, numbers, (at, entry, group) => {
      if (entry < 0) return;
      forBook[entry] += s.data[group] * dy.data[at];
      forScale[group] += dy.data[at] * book.data[entry];
      forOffset[group] += dy.data[at];
    });
    dbook?.data.set(forBook);
    ds?.data.set(forScale);
    dO?.data.set(forOffset);
  },

  // A product and a sum.
  bound([book, codes, s, o], [y], numbers) {
    const bounds = new Float64Array(y.data.length);
    each(codes, numbers, (at, entry, group) => {
      if (entry >= 0)
        bounds[at] = (Math.abs(s.data[group] * book.data[entry]) + Math.abs(o.data[group])) * gamma(2) + TINY;
    });
    return [bounds];
  },

  // Sums of as many products as there are weights of the entry or the group.
  boundBackward([book, codes, s], _outputs, dy, [dbook, , ds, dO], numbers) {
    const size = [book.data.length, s.data.length, s.data.length];
    const [forBook, forScale, forOffset] = size.map((n) => new Float64Array(n));
    const counts = new Uint32Array(book.data.length);
    const width = (numbers[1] * numbers[3]) / numbers[4];
    each(codes, numbers, (at, entry, group) => {
      if (entry < 0) return;
      counts[entry]++;
      forBook[entry] += Math.abs(s.data[group] * dy.data[at]);
      forScale[group] += Math.abs(dy.data[at] * book.data[entry]) * gamma(width) + TINY;
      forOffset[group] += Math.abs(dy.data[at]) * gamma(width) + TINY;
    });
    return [
      dbook && forBook.map((sum, i) => sum * gamma(counts[i] + 1) + TINY),
      null,
      ds && forScale,
      dO && forOffset,
    ];
  },
};

/** Every weight: its place, that of its number in the book (−1 without one), that of its group. */
function each(
  codes: View,
  [rows, vectors, entries, d, groups]: readonly number[],
  visit: (at: number, entry: number, group: number) => void,
): void {
  const cols = vectors * d;
  const width = cols / groups;
  for (let at = 0; at < rows * cols; at++) {
    const code = codes.ids[Math.floor(at / d)];
    const entry = code >= 0 && code < entries ? code * d + (at % d) : -1;
    visit(at, entry, Math.floor(at / cols) * groups + Math.floor((at % cols) / width));
  }
}
