import { halfEven } from "../tensor/rounding.ts";
import { type Parameters, storeF16 } from "./format.ts";

/** Weights that share one scale in ggml's ternary formats. */
export const BLOCK = 256;

/**
 * The ternary group {−s, 0, s} of least error Σ m·(w − ŵ)², m the importance.
 *
 * For a given s the best codes are 0 below s/2, so the non-zero weights are
 * the k largest |w| for some k. For these the best scale is
 * s = Σ m·|w| / Σ m, which takes (Σ m·|w|)²/Σ m off the error: try every k.
 * Weights that are γ·{−1, 0, 1} already give γ exactly. O(n log n).
 */
export function fitTernary(name: string, w: Float32Array, importance?: Float32Array): Parameters {
  const order = Array.from(w.keys()).sort((a, b) => Math.abs(w[b]) - Math.abs(w[a]));
  let sum = 0;
  let mass = 0;
  let most = 0;
  let scale = 0;
  for (const i of order) {
    const m = importance ? importance[i] : 1;
    sum += m * Math.abs(w[i]);
    mass += m;
    const gain = mass > 0 ? (sum * sum) / mass : 0;
    if (!(gain <= most)) {
      most = gain;
      scale = sum / mass;
    }
  }
  return { scale: storeF16(name, "scale", scale), offset: 0 };
}

/** Code 0, 1, 2 for −1, 0, 1: w/scale clipped to −1 … 1, then rounded, halves to even (so ±scale/2 is 0). */
export function nearestTernary(w: number, { scale }: Parameters): number {
  if (scale === 0) return 1;
  return halfEven(Math.min(1, Math.max(-1, w / scale))) + 1;
}
