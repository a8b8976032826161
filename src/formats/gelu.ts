/** Beyond ±FAR the unit is x or 0, to 10⁻³⁵. */
const FAR = 10;

/**
 * The Gaussian error linear unit in the form with a hyperbolic tangent.
 *
 *   gelu(x) = x·σ(u),  u = 2·√(2/π)·(x + 0.044715·x³),  σ(u) = 1/(1+e^(−u))
 *
 * Hendrycks and Gimpel, 2016 (https://arxiv.org/abs/1606.08415), section 2.
 */
export function gelu(x: number): number {
  return x / (1 + Math.exp(-geluArgument(x)));
}

/** gelu′(x) = σ + x·σ·(1−σ)·u′, taken at the nearest of −10 … 10. */
export function geluSlope(x: number): number {
  const t = nearGelu(x);
  const σ = 1 / (1 + Math.exp(-geluArgument(t)));
  return σ + t * σ * (1 - σ) * (GELU[0] + 3 * GELU[1] * t * t);
}

/** u = GELU₀·x + GELU₁·x³ */
export const GELU = [2 * Math.sqrt(2 / Math.PI), 2 * Math.sqrt(2 / Math.PI) * 0.044715] as const;

export function geluArgument(x: number): number {
  return x * (GELU[0] + GELU[1] * x * x);
}

export function nearGelu(x: number): number {
  return Math.max(-FAR, Math.min(FAR, x)); // NaN stays
}
