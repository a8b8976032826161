/** How the learning rate goes over a run; `warmup` steps of linear rise come first. */
export type Schedule =
  /** From `peak` down half a cosine to `final`·peak. */
  | { readonly kind: "cosine"; readonly peak: number; readonly warmup: number; readonly final: number }
  /** Down two straight lines that aim at 0 at the end; the second, from the middle on, is the lower one. */
  | {
      readonly kind: "trilm";
      readonly p1: number;
      readonly p2: number;
      readonly warmup: number;
      /** Default: true. */
      readonly removesDecay?: boolean;
    };

/**
 * Learning rate of step t = 0 … T−1, where the first w = `warmup` steps rise
 * towards what the formula gives at w.
 *
 *   cosine   peak·(final + (1−final)·(1 + cos(π·(t−w)/(T−w)))/2)
 *   trilm    P1·(1−t/T) for t < T/2, then P2·(1−t/T)
 *
 * Loshchilov and Hutter, 2017 (https://arxiv.org/abs/1608.03983), eq. 5; Kaushal et al.,
 * 2024 (Spectra, https://arxiv.org/abs/2407.12327), section 3.3 and table 3.
 */
export function rateAt(schedule: Schedule, t: number, T: number): number {
  const w = Math.min(schedule.warmup, T - 1);
  if (t < w) return (rateAt(schedule, w, T) * (t + 1)) / (w + 1);
  if (schedule.kind === "cosine") {
    const { peak, final } = schedule;
    return peak * (final + ((1 - final) * (1 + Math.cos((Math.PI * (t - w)) / (T - w)))) / 2);
  }
  return (t < T / 2 ? schedule.p1 : schedule.p2) * (1 - t / T);
}

/** Weight decay of step t: constant, but for TriLM, which drops it at two thirds of the run (section 3.3) unless told. */
export function decayAt(schedule: Schedule, decay: number, t: number, T: number): number {
  return schedule.kind === "trilm" && schedule.removesDecay !== false && 3 * t >= 2 * T ? 0 : decay;
}
