import { nestedMethod } from "./narrow.ts";

/**
 * MatQuant: one matrix of 8-bit codes whose top bits are good codes of 4 and 2
 * bits; the losses of all widths are added up.
 *
 *   q = clip(round((W − min W)/s), 0, 255), s = (max W − min W)/255, of each row
 *   at r bits Ŵ = s·clip(⌊q/2^(8−r) + ½⌋, 0, 2^r − 1)·2^(8−r) + min W;  dW = dŴ (straight through)
 *
 * Nair et al., 2025 (https://arxiv.org/abs/2502.06786); slices as in kernels/nested.ts.
 * Widths 8, 4 and 2 with shares 0.1, 0.1 and 1 unless told, made to add up to 1:
 * these shares and the scale from least to greatest weight could not be checked
 * with the paper's text.
 */
export const matquant = nestedMethod(
  { name: "matquant", paper: "Nair et al., 2025 (https://arxiv.org/abs/2502.06786)" },
  0,
  [
    [8, 0.1],
    [4, 0.1],
    [2, 1],
  ],
);
