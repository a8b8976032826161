import { draw, drawing, type Picture, tenth } from "./svg.ts";

export interface Histogram {
  readonly title: string;
  readonly counts: readonly number[];
  /** The same of another time, as an outline. */
  readonly before?: readonly number[];
  /** Value at the left edge of the first bin, and at the right edge of the last. */
  readonly low: number;
  readonly high: number;
  readonly width: number;
}

const HEIGHT = 96;
const TOP = 20;
const BOTTOM = 16;

/** Bars of equal width, the highest as high as the picture; an outline shows how it was before. */
export function histogram({ title, counts, before, low, high, width }: Histogram): Picture {
  const bottom = HEIGHT - BOTTOM;
  const x = (value: number) => tenth(4 + ((value - low) / (high - low)) * (width - 8));
  const marks = [Math.ceil(low), 0, Math.floor(high)];
  return drawing(width, HEIGHT, `${title}: ${said(counts, low, high)}`, [
    draw("text", { class: "strong", x: 4, y: 12 }, title),
    draw("path", { class: "bars f0", d: steps(counts, bottom, width) }),
    ...(before ? [draw("path", { class: "outline", d: steps(before, bottom, width) })] : []),
    draw("line", { class: "rule", x1: 4, x2: width - 4, y1: bottom, y2: bottom }),
    ...marks.map((mark, i) =>
      draw("text", { x: x(mark), y: HEIGHT - 3, "text-anchor": ["start", "middle", "end"][i] }, String(mark)),
    ),
  ]);
}

/** The outline of bars. */
function steps(counts: readonly number[], bottom: number, width: number): string {
  const most = counts.reduce((a, b) => Math.max(a, b), 1);
  const bin = (width - 8) / counts.length;
  let d = `M4 ${bottom}`;
  for (const [i, count] of counts.entries()) {
    d += `V${tenth(bottom - (count / most) * (bottom - TOP))}H${tenth(4 + bin * (i + 1))}`;
  }
  return `${d}V${bottom}`;
}

/** Where most of it is, in words. */
function said(counts: readonly number[], low: number, high: number): string {
  const top = counts.reduce((best, count, i) => (count > counts[best] ? i : best), 0);
  const middle = low + ((top + 0.5) / counts.length) * (high - low);
  return `most weights near ${middle.toFixed(2)}`;
}
