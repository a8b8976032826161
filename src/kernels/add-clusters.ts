import type { Tensor } from "../tensor/tensor.ts";
import { matrixShape, needMatrix, needSize, type Procedure, TINY, UNIT } from "./kernel.ts";
import { checkVectors } from "./vectors.ts";

/**
 * What the vectors of each entry of a codebook come to: their mean is sums/masses.
 *
 *   sums_kj = Σ w_ij·x_ij,  masses_kj = Σ w_ij       over the vectors i with codes_i = k
 *
 * x (n, d), codes (n) i32, w (m, d) as in `nearestEntries`; sums and masses (entries, d) are written over. Accumulates
 * in 64 bits. A code that is no entry counts nowhere.
 */
export const addClusters: Procedure<[sums: Tensor, masses: Tensor, x: Tensor, codes: Tensor, w: Tensor]> = {
  check(sums, masses, x, codes, w) {
    const [n, d] = checkVectors("addClusters", x, w);
    needSize("addClusters: codes", codes, n);
    const [entries] = matrixShape("addClusters: sums", sums);
    needMatrix("addClusters: sums", sums, entries, d);
    needMatrix("addClusters: masses", masses, entries, d);
  },

  numbers(sums, _masses, x, _codes, w) {
    const [n, d] = matrixShape("addClusters: x", x);
    return [n, d, sums.shape[0], w.shape[0]];
  },

  writes: [0, 1],
  integers: [3],

  run([sums, masses, x, codes, w], [n, d, entries, m]) {
    const [s, t] = [new Float64Array(entries * d), new Float64Array(entries * d)];
    for (let i = 0; i < n; i++) {
      const k = codes.ids[i];
      if (k < 0 || k >= entries) continue;
      for (let j = 0; j < d; j++) {
        const weight = w.data[(i % m) * d + j];
        s[k * d + j] += weight * x.data[i * d + j];
        t[k * d + j] += weight;
      }
    }
    sums.data.set(s);
    masses.data.set(t);
  },

  // Stored once; of sums in 64 bits what cancels is 2⁻⁵³ of the terms' magnitudes, n at most times.
  bound([, , x, codes, w], [sums, masses], [n, d, entries, m]) {
    const terms = new Float64Array(entries * d);
    for (let i = 0; i < n; i++) {
      const k = codes.ids[i];
      if (k < 0 || k >= entries) continue;
      for (let j = 0; j < d; j++) terms[k * d + j] += Math.abs(w.data[(i % m) * d + j] * x.data[i * d + j]);
    }
    const stored = (data: Float32Array) =>
      Float64Array.from(data, (value, i) => Math.abs(value) * 2 * UNIT + terms[i] * n * 2 ** -52 + TINY);
    return [stored(sums.data), stored(masses.data)];
  },
};
