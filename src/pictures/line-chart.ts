import { type Axis, linearAxis, logarithmicAxis } from "./axis.ts";
import { draw, drawing, type Picture, path, tenth } from "./svg.ts";

export type Point = readonly [x: number, y: number];

export interface Line {
  readonly label: string;
  /** Class of color, 0 … 6. */
  readonly color: number;
  readonly points: readonly Point[];
  /** `band`: lowest and highest of many points a pixel, drawn faintly; not in the legend. `marks`: a dot at each point. */
  readonly look?: "band" | "dashed" | "dotted" | "marks";
}

export interface LineChart {
  /** What is shown, in words: its name for those who do not see it. */
  readonly label: string;
  readonly lines: readonly Line[];
  readonly width: number;
  /** Below the legend. */
  readonly height: number;
  /** First and last step of the picture. */
  readonly from: number;
  readonly to: number;
  /** Powers of ten at equal distances; values that are not positive are left out. */
  readonly logarithmic?: boolean;
  /** Whether 0 belongs to the picture; default: no. */
  readonly zero?: boolean;
  /** A value in words, in the legend; default: four digits. */
  readonly text?: (value: number) => string;
  /** Step whose values the legend tells and a line marks; default: the last. */
  readonly cursor?: number;
}

/** Beyond so many points per line neighbours share one. */
const MOST_POINTS = 500;
const LEFT = 46;
const RIGHT = 10;
const BOTTOM = 22;
const ROW = 17;

/**
 * Values over steps as lines, with a legend that tells the values at one step.
 * The height of the picture follows from the lines themselves; of a `band`
 * only the middle 98 % count, so that one spike does not flatten the rest.
 */
export function lineChart(chart: LineChart): Picture {
  const { width, from, to, logarithmic = false, zero = false, text = digits, cursor, label } = chart;
  const usable = ([x, y]: Point) => x >= from && x <= to && Number.isFinite(y) && (!logarithmic || y > 0);
  const lines = chart.lines.map((line) => ({ ...line, points: line.points.filter(usable) }));
  const named = lines.filter(({ look }) => look !== "band");
  const legend = legendOf(
    named.map((line) => {
      const value = valueAt(line.points, cursor ?? Number.POSITIVE_INFINITY);
      return { ...line, label: value === undefined ? line.label : `${line.label} ${text(value)}` };
    }),
    width,
  );
  const top = legend.height + 6;
  const height = chart.height + legend.height;
  const values = lines.flatMap(({ points, look }) => {
    const sorted = points.map(([, y]) => y).sort((a, b) => a - b);
    const cut = look === "band" ? Math.floor(sorted.length / 100) : 0;
    return sorted.length === 0 ? [] : [sorted[cut], sorted[sorted.length - 1 - cut]];
  });
  if (values.length === 0) {
    const waiting = draw("text", { x: width / 2, y: height / 2, "text-anchor": "middle" }, "nothing yet");
    return drawing(width, height, label, [waiting]);
  }
  if (zero) values.push(0);
  const low = Math.min(...values);
  const high = Math.max(...values) || (zero ? 1 : 0); // zeros lie on the ground
  const pad = logarithmic ? 0 : 0.04 * (high - low);
  const bottom = height - BOTTOM;
  const xAxis = linearAxis(from, to, LEFT, width - RIGHT, Math.max(2, width / 90));
  const axis = logarithmic ? logarithmicAxis : linearAxis;
  const yAxis = axis(zero ? low : low - pad, high + pad, bottom, top, Math.max(2, (bottom - top) / 34));
  const parts = [
    ...frame(xAxis, yAxis, width, top, bottom),
    // Clipped by an inner picture, which needs no name that another picture could have too.
    draw(
      "svg",
      {
        x: LEFT,
        y: top,
        width: width - LEFT - RIGHT,
        height: bottom - top,
        viewBox: `${LEFT} ${top} ${width - LEFT - RIGHT} ${bottom - top}`,
      },
      ...lines.flatMap((line) => lineOf(line, xAxis, yAxis)),
      ...(cursor === undefined ? [] : [cursorAt(xAxis.at(cursor), top, bottom)]),
    ),
    ...legend.parts,
  ];
  return drawing(width, height, label, parts, [LEFT, width - RIGHT]);
}

/** Four digits, as long as they say something: `3.142`, `12340`, `0.0008`. */
export function digits(value: number): string {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1000) return value.toFixed(0);
  return size < 0.001 ? value.toExponential(2).replace("e+", "e") : value.toPrecision(4);
}

/** The value of the last point at or before a step. */
export function valueAt(points: readonly Point[], step: number): number | undefined {
  let low = 0;
  let high = points.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (points[middle][0] <= step) low = middle + 1;
    else high = middle;
  }
  return points[low - 1]?.[1];
}

/** Means of neighbours, where there are more points than a picture shows. */
export function thinned(points: readonly Point[], most: number = MOST_POINTS): readonly Point[] {
  if (points.length <= most) return points;
  return groups(points, most).map((group) => [mean(group, 0), mean(group, 1)]);
}

function cursorAt(x: number, top: number, bottom: number): Picture {
  return draw("line", { class: "cursor", x1: tenth(x), x2: tenth(x), y1: top, y2: bottom });
}

/** Rules and numbers of both axes. */
function frame(xAxis: Axis, yAxis: Axis, width: number, top: number, bottom: number): Picture[] {
  const parts: Picture[] = [];
  for (const tick of yAxis.ticks) {
    const y = tenth(yAxis.at(tick));
    if (y < top - 1 || y > bottom + 1) continue;
    parts.push(
      draw("line", { class: "rule", x1: LEFT, x2: width - RIGHT, y1: y, y2: y }),
      draw("text", { x: LEFT - 6, y: y + 4, "text-anchor": "end" }, yAxis.text(tick)),
    );
  }
  return [...parts, ...stepsBelow(xAxis, bottom, width - RIGHT)];
}

/** The numbers of steps below a picture; one at the right edge ends there. */
function stepsBelow(axis: Axis, bottom: number, right: number): Picture[] {
  return axis.ticks.map((tick) => {
    const x = tenth(axis.at(tick));
    return draw(
      "text",
      { x, y: bottom + 16, "text-anchor": x > right - 12 ? "end" : "middle" },
      axis.text(tick),
    );
  });
}

function lineOf({ points, color, look }: Line, xAxis: Axis, yAxis: Axis): Picture[] {
  const place = ([x, y]: Point): Point => [xAxis.at(x), yAxis.at(y)];
  if (look === "band") {
    const band = groups(points, MOST_POINTS / 2).flatMap((group): Point[] => {
      const ys = group.map(([, y]) => y);
      const x = mean(group, 0);
      return ys.length === 1
        ? [[x, ys[0]]]
        : [
            [x, Math.min(...ys)],
            [x, Math.max(...ys)],
          ];
    });
    return [draw("path", { class: `line faint c${color}`, d: path(band.map(place)) })];
  }
  const kept = thinned(points);
  const line = draw("path", { class: `line ${look ?? ""} c${color}`, d: path(kept.map(place)) });
  if (look !== "marks" && kept.length > 1) return [line];
  const dots = kept.map((point) => {
    const [cx, cy] = place(point);
    return draw("circle", { class: `f${color}`, cx: tenth(cx), cy: tenth(cy), r: 2.5 });
  });
  return [line, ...dots];
}

/** Names of the lines above the picture, in as many rows as they need. */
function legendOf(lines: readonly Line[], width: number): { parts: Picture[]; height: number } {
  const parts: Picture[] = [];
  let x = LEFT;
  let row = 0;
  for (const { label, color, look } of lines) {
    const needs = 34 + 6.6 * label.length;
    if (x > LEFT && x + needs > width) {
      x = LEFT;
      row++;
    }
    const y = ROW * row + 10;
    parts.push(
      draw("line", { class: `line ${look ?? ""} c${color}`, x1: x, x2: x + 16, y1: y, y2: y }),
      ...(look === "marks" ? [draw("circle", { class: `f${color}`, cx: x + 8, cy: y, r: 2.5 })] : []),
      draw("text", { class: "strong", x: x + 21, y: y + 4 }, label),
    );
    x += needs;
  }
  return { parts, height: ROW * (row + 1) };
}

/** Points in `most` groups of neighbours, none empty. */
function groups(points: readonly Point[], most: number): Point[][] {
  const count = Math.min(points.length, Math.floor(most));
  return Array.from({ length: count }, (_, g) =>
    points.slice(Math.floor((g * points.length) / count), Math.floor(((g + 1) * points.length) / count)),
  );
}

function mean(points: readonly Point[], coordinate: 0 | 1): number {
  return points.reduce((sum, point) => sum + point[coordinate], 0) / points.length;
}
