/** A difference of losses as tables show it: `+0.0137`, with a minus sign that is as wide. */
export function signed(value: number): string {
  return `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(4)}`;
}

/** A difference with its 95 % interval, where that is known: `+0.0137 [+0.0107, +0.0166]`. */
export function differenceText(mean: number, low?: number | null, high?: number | null): string {
  return low == null || high == null ? signed(mean) : `${signed(mean)} [${signed(low)}, ${signed(high)}]`;
}
