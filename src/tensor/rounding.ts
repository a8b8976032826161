/**
 * The roundings that meet in this field, each by name; nothing else calls
 * Math.round.
 *
 *              −2.5  −0.5  0.5  1.5  2.5
 *   halfEven    −2     0    0    2    2   torch.round, numpy.rint, C rintf
 *   halfAway    −3    −1    1    2    3   C roundf (ggml)
 *   halfUp      −2     0    1    2    3   Math.round
 */
export function halfEven(x: number): number {
  const below = Math.floor(x);
  const rest = x - below;
  if (rest < 0.5) return below;
  if (rest > 0.5) return below + 1;
  return below % 2 === 0 ? below : below + 1;
}

export function halfAway(x: number): number {
  return x < 0 ? -Math.floor(0.5 - x) : Math.floor(x + 0.5);
}

export function halfUp(x: number): number {
  return Math.floor(x + 0.5);
}

/** x rounded to one of its two neighbours, up with probability equal to its distance from the lower one. */
export function stochastic(x: number, random: () => number): number {
  const below = Math.floor(x);
  return below + (random() < x - below ? 1 : 0);
}
