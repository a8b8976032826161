import { ShapeError, type Tensor } from "../tensor/tensor.ts";
import { matrixShape, needSize, needWhole, type Procedure } from "./kernel.ts";
import { checkVectors } from "./vectors.ts";

/**
 * Codes of vectors that are sums of entries, one of each of M books, chosen anew by beam search:
 *
 *   errors_i = Σ_j w_ij·(x_ij − Σ_m books_mkj)²,  k = codes_im
 *
 * x (n, d), books (M·K, d) one after another, codes (n, M) i32 as they are and as they become, errors (n); w (m, d), of
 * which vector i has row i mod m. One book after another, its code is tried at all K entries in each of the `beam` best
 * sums so far, of which the first is the one given; the `beam` best of these go on. The error never rises, and a beam of
 * K^(M − 1) finds the best codes that there are. A code that no entry has counts as 0.
 *
 * Cost n·M·beam·K·d·3; where sums differ by less than their roundings, implementations may take different ones.
 */
export const beamEntries: Procedure<
  [codes: Tensor, errors: Tensor, x: Tensor, books: Tensor, w: Tensor, beam: number]
> = {
  check(codes, errors, x, books, w, beam) {
    const [n, d] = checkVectors("beamEntries", x, w);
    const [rows, count] = matrixShape("beamEntries: codes", codes);
    if (rows !== n || count < 1) {
      throw new ShapeError(`beamEntries: codes of ${rows}×${count} do not go with ${n} vectors`);
    }
    needSize("beamEntries: errors", errors, n);
    checkVectors("beamEntries: books", books, w, d);
    if (books.shape[0] % count !== 0) {
      throw new ShapeError(`beamEntries: ${books.shape[0]} entries are not ${count} books of the same size`);
    }
    needWhole("beamEntries: beam", beam, 1);
  },

  numbers(codes, _errors, x, books, w, beam) {
    const [n, d] = matrixShape("beamEntries: x", x);
    return [n, d, codes.shape[1], books.shape[0] / codes.shape[1], w.shape[0], beam];
  },

  writes: [0, 1],
  integers: [0],

  run([codes, errors, x, books, w], [n, d, count, entries, rows, beam]) {
    for (let i = 0; i < n; i++) {
      const weight = (j: number) => w.data[(i % rows) * d + j];
      const own = Array.from(codes.ids.subarray(i * count, (i + 1) * count), (code) =>
        code >= 0 && code < entries ? code : 0,
      );
      const rest = Float64Array.from(x.data.subarray(i * d, (i + 1) * d));
      for (const [m, code] of own.entries()) {
        for (let j = 0; j < d; j++) rest[j] -= books.data[(m * entries + code) * d + j];
      }
      let beams = [{ codes: own, rest, error: rest.reduce((sum, r, j) => sum + weight(j) * r * r, 0) }];
      for (let m = 0; m < count; m++) {
        const tried = beams.flatMap((from) =>
          Array.from({ length: entries }, (_, code) => {
            const rest = from.rest.map((r, j) => {
              return (
                r +
                books.data[(m * entries + from.codes[m]) * d + j] -
                books.data[(m * entries + code) * d + j]
              );
            });
            return { from, code, rest, error: rest.reduce((sum, r, j) => sum + weight(j) * r * r, 0) };
          }),
        );
        beams = tried
          .sort((a, b) => a.error - b.error)
          .slice(0, beam)
          .map(({ from, code, rest, error }) => ({ codes: from.codes.with(m, code), rest, error }));
      }
      codes.ids.set(beams[0].codes, i * count);
      errors.data[i] = beams[0].error;
    }
  },
};
