/** One direction of a picture: where values stand, and which of them are written. */
export interface Axis {
  /** Pixel of a value. */
  at(value: number): number;
  readonly ticks: readonly number[];
  /** A tick in words. */
  text(value: number): string;
}

/** Values low … high on pixels from … to, ticks at 1, 2 or 5 times a power of ten. */
export function linearAxis(low: number, high: number, from: number, to: number, wanted: number): Axis {
  const span = high > low ? high - low : Math.abs(low) || 1;
  const start = high > low ? low : low - span / 2;
  const step = niceStep(span / Math.max(1, wanted));
  const ticks: number[] = [];
  const first = Math.ceil(start / step - 1e-9);
  const count = Math.floor((start + span) / step + 1e-9) - first + 1;
  // Counted in whole steps, so that 0.1 + 0.2 is written 0.3; from 0, for beyond 2⁵³ adding 1 to one of them is lost.
  for (let k = 0; k < count; k++) ticks.push((first + k) * step);
  const decimals = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  return {
    at: (value) => from + ((value - start) / span) * (to - from),
    ticks,
    text: (value) => (Math.abs(value) < step / 2 ? "0" : short(value, decimals)),
  };
}

/** Positive values on a logarithmic scale, ticks at powers of ten, or at 1, 2 and 5 times them when they are few. */
export function logarithmicAxis(low: number, high: number, from: number, to: number, wanted: number): Axis {
  const bottom = Math.log10(low);
  const span = Math.log10(high) - bottom || 1;
  const start = high > low ? bottom : bottom - span / 2;
  const within = (factors: readonly number[], every: number) => {
    const ticks: number[] = [];
    for (let k = Math.floor(start / every) * every; k <= start + span; k += every)
      for (const factor of factors) {
        const at = k + Math.log10(factor);
        if (at >= start - 1e-9 && at <= start + span + 1e-9) ticks.push(factor * 10 ** k);
      }
    return ticks;
  };
  const sparse = Math.max(1, Math.ceil(span / wanted));
  const powers = within([1], sparse);
  return {
    at: (value) => from + ((Math.log10(value) - start) / span) * (to - from),
    ticks: powers.length >= Math.min(3, wanted) ? powers : within([1, 2, 5], 1),
    text: (value) => short(value, Math.max(0, -Math.floor(Math.log10(value) + 1e-9))),
  };
}

/** The least of 1, 2, 5 times a power of ten that is not below a length. */
function niceStep(length: number): number {
  const power = 10 ** Math.floor(Math.log10(length));
  for (const factor of [1, 2, 5]) if (factor * power >= length * (1 - 1e-9)) return factor * power;
  return 10 * power;
}

/** `12k`, `1.5M`, `0.25`, `2e-5`. */
function short(value: number, decimals: number): string {
  const size = Math.abs(value);
  if (size >= 1e6) return `${Number((value / 1e6).toPrecision(4))}M`;
  if (size >= 1e4) return `${Number((value / 1e3).toPrecision(4))}k`;
  if (size > 0 && size < 0.001) return Number(value.toPrecision(2)).toExponential().replace("e+", "e");
  return value.toFixed(decimals);
}
