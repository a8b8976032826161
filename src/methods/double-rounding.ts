import { nestedMethod } from "./narrow.ts";

/**
 * Double Rounding: one matrix of 8-bit codes, rounded a second time to every
 * lower width; the losses of all widths are added up.
 *
 *   q = clip(round(W/s), −128, 127), s = max|W|/127, of each row
 *   at r bits Ŵ = s·2^(8−r)·clip(round(q/2^(8−r)), −2^(r−1), 2^(r−1) − 1);  dW = dŴ (straight through)
 *
 * Huang et al., 2025 (https://arxiv.org/abs/2502.01199), widths 8,
 * 6, 4 and 2 alike unless told. Their scale is learned, at a rate of its own
 * for each width (ALRS); here it is that of the largest weight, so there is
 * none to be learned.
 */
export const doubleRounding = nestedMethod(
  { name: "double-rounding", paper: "Huang et al., 2025 (https://arxiv.org/abs/2502.01199)" },
  1,
  [
    [8, 1],
    [6, 1],
    [4, 1],
    [2, 1],
  ],
);
