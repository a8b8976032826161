import type { Tensor } from "../tensor/tensor.ts";
import { matrixShape, needSize, type Procedure } from "./kernel.ts";
import { checkVectors } from "./vectors.ts";

/**
 * The entry of a codebook that is nearest to each vector.
 *
 *   codes_i = argmin_k Σ_j w_ij·(x_ij − book_kj)²    the lowest k of equal ones
 *   errors_i = the least sum itself
 *
 * x (n, d), book (entries, d); w (m, d), of which vector i has row i mod m: one row for all, one for each place in a row
 * of a matrix (d columns of importance), or one for each vector. codes (n) i32, errors (n).
 *
 * Cost n·entries·d·3; two implementations may take different entries where the sums differ by less than their roundings.
 */
export const nearestEntries: Procedure<[codes: Tensor, errors: Tensor, x: Tensor, book: Tensor, w: Tensor]> =
  {
    check(codes, errors, x, book, w) {
      const [n, d] = checkVectors("nearestEntries", x, w);
      needSize("nearestEntries: codes", codes, n);
      needSize("nearestEntries: errors", errors, n);
      checkVectors("nearestEntries: book", book, w, d);
    },

    numbers(_codes, _errors, x, book, w) {
      const [n, d] = matrixShape("nearestEntries: x", x);
      return [n, d, book.shape[0], w.shape[0]];
    },

    writes: [0, 1],
    integers: [0],

    run([codes, errors, x, book, w], [n, d, entries, m]) {
      for (let i = 0; i < n; i++) {
        let least = Number.POSITIVE_INFINITY;
        let code = 0;
        for (let k = 0; k < entries; k++) {
          let sum = 0;
          for (let j = 0; j < d; j++)
            sum += w.data[(i % m) * d + j] * (x.data[i * d + j] - book.data[k * d + j]) ** 2;
          if (sum < least) [least, code] = [sum, k];
        }
        codes.ids[i] = code;
        errors.data[i] = least;
      }
    },
  };
