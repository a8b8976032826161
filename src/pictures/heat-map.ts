import { linearAxis } from "./axis.ts";
import { draw, drawing, type Picture, tenth } from "./svg.ts";

export interface HeatMap {
  /** What is shown, in words. */
  readonly label: string;
  readonly rows: readonly { readonly name: string; readonly values: readonly (number | undefined)[] }[];
  /** Step of each column; it reaches back to the column before. */
  readonly steps: readonly number[];
  readonly width: number;
  readonly from: number;
  readonly to: number;
  readonly cursor?: number;
  /** Shades follow the square root of a value, so that small ones are told apart beside large ones. */
  readonly root?: boolean;
  /** A value in words. */
  readonly text: (value: number) => string;
}

const ROW = 15;
const TOP = 22;
const BOTTOM = 22;
const SHADES = 20;

/**
 * One row per layer, one column per measurement, the darker the more; beside
 * each row its value at the cursor or at the end. Shades are those of one
 * color over the paper, from the least to the greatest value of the picture.
 */
export function heatMap({
  label,
  rows,
  steps,
  width,
  from,
  to,
  cursor,
  root = false,
  text,
}: HeatMap): Picture {
  const height = TOP + ROW * rows.length + BOTTOM;
  const left = Math.min(width * 0.4, 10 + 6.4 * Math.max(0, ...rows.map(({ name }) => name.length)));
  const right = width - 50;
  const shown = steps.flatMap((step, i) => (step >= from && step <= to ? [i] : []));
  const values = rows.flatMap((row) => shown.flatMap((i) => row.values[i] ?? []));
  if (values.length === 0) {
    return drawing(width, height, label, [
      draw("text", { x: width / 2, y: height / 2, "text-anchor": "middle" }, "nothing yet"),
    ]);
  }
  const low = values.reduce((a, b) => Math.min(a, b));
  const high = values.reduce((a, b) => Math.max(a, b));
  const axis = linearAxis(from, to, left, right, Math.max(2, (right - left) / 90));
  const shadeOf = (value: number) => {
    const share = high > low ? (value - low) / (high - low) : 0.5;
    return Math.round(SHADES * (root ? Math.sqrt(share) : share));
  };
  const at = cursor === undefined ? shown.at(-1)! : (shown.findLast((i) => steps[i] <= cursor) ?? shown[0]);
  const parts: Picture[] = [];
  for (const [r, { name, values }] of rows.entries()) {
    const y = TOP + ROW * r;
    parts.push(draw("text", { x: left - 6, y: y + 11, "text-anchor": "end" }, name));
    for (const [first, last, shade] of runs(shown, values, shadeOf)) {
      const x1 = axis.at(Math.max(from, steps[first - 1] ?? from));
      const x2 = axis.at(steps[last]);
      if (shade > 0) {
        parts.push(
          draw("rect", {
            class: "f0",
            "fill-opacity": shade / SHADES,
            x: tenth(x1),
            y,
            width: tenth(x2 - x1),
            height: ROW - 2,
          }),
        );
      }
    }
    const value = values[at];
    if (value !== undefined)
      parts.push(draw("text", { class: "strong", x: right + 6, y: y + 11 }, text(value)));
  }
  const bottom = TOP + ROW * rows.length;
  for (const tick of axis.ticks) {
    parts.push(
      draw("text", { x: tenth(axis.at(tick)), y: bottom + 14, "text-anchor": "middle" }, axis.text(tick)),
    );
  }
  const x = tenth(axis.at(steps[at]));
  if (cursor !== undefined) parts.push(draw("line", { class: "cursor", x1: x, x2: x, y1: TOP, y2: bottom }));
  return drawing(width, height, label, [...scale(text(low), text(high), left), ...parts], [left, right]);
}

/** Neighbouring columns of one shade: first, last, shade. */
function* runs(
  columns: readonly number[],
  values: readonly (number | undefined)[],
  shadeOf: (value: number) => number,
): Generator<[first: number, last: number, shade: number]> {
  let open: [number, number, number] | undefined;
  for (const i of columns) {
    const value = values[i];
    const shade = value === undefined ? -1 : shadeOf(value);
    if (open && open[2] === shade) open[1] = i;
    else {
      if (open) yield open;
      open = [i, i, shade];
    }
  }
  if (open) yield open;
}

/** Which shade is how much. */
function scale(low: string, high: string, x: number): Picture[] {
  const from = x + 7 * low.length + 4;
  return [
    draw("text", { x, y: 12 }, low),
    ...[1, 2, 3, 4, 5].map((k) =>
      draw("rect", {
        class: "f0",
        "fill-opacity": k / 5,
        x: from + 14 * (k - 1),
        y: 3,
        width: 14,
        height: 10,
      }),
    ),
    draw("text", { x: from + 76, y: 12 }, high),
  ];
}
