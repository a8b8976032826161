import type { Format, Parameters } from "./format.ts";

/**
 * The same format, same name and bytes, with a search for the range of each
 * group: of all `candidates`, the parameters of least
 *
 *   Σ m·|w − ŵ|²,  m the importance of a weight (1 where none is given).
 *
 * Frantar et al.'s `mse` option shrinks the range in the same steps but takes
 * the power 2.4 of the error; the square is what the Gaussian table and the
 * layers' output error are measured in. Costs up to 160 roundings a weight. A
 * format without candidates comes back as it is.
 */
export function clipped(format: Format): Format {
  if (format.kind === "opaque" || !format.candidates) return format;
  const { candidates } = format;
  return {
    ...format,
    quantizeGroup: undefined, // the search takes its place
    fitGroup(w, importance) {
      // The largest first, as clipping hurts them most: most candidates are given up after a few weights.
      const order = Uint32Array.from(w.keys()).sort((a, b) => Math.abs(w[b]) - Math.abs(w[a]));
      let best: Parameters | undefined;
      let least = Infinity;
      for (const parameters of candidates(w)) {
        let error = 0;
        for (let n = 0; n < order.length && error < least; n++) {
          const i = order[n];
          const difference = w[i] - format.value(format.nearest(w[i], parameters, i), parameters, i);
          error += (importance ? importance[i] : 1) * difference * difference;
        }
        if (best && !(error < least)) continue;
        best = parameters;
        least = error;
      }
      return best!;
    },
  };
}
