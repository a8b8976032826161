import type { Cell, Fit, Gap } from "./analysis.ts";
import { svg } from "./svg.ts";

/** Validation loss of a run while it learned. */
export interface Curve {
  readonly run: string;
  readonly family: string;
  readonly size: string;
  /** Tokens learned from, and mean loss over windows of the held-out text, nats per token. */
  readonly points: readonly (readonly [tokens: number, loss: number])[];
}

const COLORS: { readonly [family: string]: string } = {
  float: "#4b5563",
  Q8: "#93c5fd",
  Q6: "#3b82f6",
  Q4: "#1d4ed8",
  Q3: "#7c3aed",
  trilm: "#059669",
  bilm: "#d97706",
};
const OTHERS = ["#be123c", "#0e7490", "#4d7c0f", "#a16207", "#86198f"];

/** A difference from the float model has the color of the family that it is of. */
const known = (family: string) => COLORS[family.replace(/ − float$/, "")];

function colorOf(families: readonly string[]) {
  const unknown = families.filter((family) => known(family) === undefined);
  return {
    field: "family",
    type: "nominal",
    title: null,
    scale: {
      domain: families,
      range: families.map((family) => known(family) ?? OTHERS[unknown.indexOf(family) % OTHERS.length]),
    },
    legend: { orient: "top" },
  };
}

const unique = <T>(values: readonly T[]): T[] => [...new Set(values)];
const losses = { type: "quantitative", title: "loss, nats per token", scale: { zero: false, padding: 8 } };
const logarithmic = (field: string, title: string) => ({
  field,
  type: "quantitative",
  title,
  scale: { type: "log", nice: false, padding: 20 },
  axis: { format: "~s", tickCount: 6 },
});

/** Loss of every family at every size against a quantity of it, with 95 % intervals; an SVG. `laws` draws the fits. */
async function lossAgainst(
  cells: readonly Cell[],
  x: ReturnType<typeof logarithmic>,
  at: (cell: Cell) => number,
  laws: readonly { readonly family: string; readonly x: number; readonly loss: number }[],
): Promise<string> {
  const families = unique(cells.map(({ family }) => family));
  const color = colorOf(families);
  const values = cells.map((cell) => ({
    family: cell.family,
    x: at(cell),
    loss: cell.loss.value,
    low: cell.loss.low,
    high: cell.loss.high,
  }));
  const y = (field: string) => ({ ...losses, field });
  const line = laws.length > 0 ? { data: { values: laws } } : {};
  return svg({
    width: 820,
    height: 420,
    data: { values },
    layer: [
      { ...line, mark: { type: "line", opacity: 0.5 }, encoding: { x, y: y("loss"), color } },
      {
        mark: { type: "rule", strokeWidth: 1.5 },
        encoding: { x, y: y("low"), y2: { field: "high" }, color },
      },
      {
        mark: { type: "point", filled: true, size: 55, opacity: 1 },
        encoding: { x, y: y("loss"), color },
      },
    ],
  });
}

const POINTS = 40;

/** Loss against parameters, with the fitted laws between the smallest and the largest size; an SVG. */
export function sizeChart(cells: readonly Cell[], fits: readonly Fit[]): Promise<string> {
  const laws = fits
    .filter(({ by, offset }) => by === "total" && offset)
    .flatMap(({ family, A, alpha, E }) => {
      const N = cells.filter((cell) => cell.family === family).map((cell) => cell.N);
      const [low, high] = [Math.min(...N), Math.max(...N)];
      return Array.from({ length: POINTS + 1 }, (_, i) => {
        const x = low * (high / low) ** (i / POINTS);
        return { family, x, loss: A.value * x ** -alpha.value + E.value };
      });
    });
  return lossAgainst(
    cells,
    logarithmic("x", "parameters: linear layers, embedding, head"),
    ({ N }) => N,
    laws,
  );
}

/** Loss against bits of the model as Spectra counts them; an SVG. */
export function bitsChart(cells: readonly Cell[]): Promise<string> {
  return lossAgainst(
    cells,
    logarithmic("x", "bits: 16·(embedding + head) + b·linear"),
    ({ bits }) => bits,
    [],
  );
}

/** Differences of families against parameters, with 95 % intervals; an SVG. */
export function gapChart(gaps: readonly Gap[]): Promise<string> {
  const values = gaps.map(({ of, against, N, value, low, high }) => ({
    family: `${of} − ${against}`,
    x: N,
    value,
    low,
    high,
  }));
  const x = logarithmic("x", "parameters: linear layers, embedding, head");
  const y = (field: string) => ({
    field,
    type: "quantitative",
    title: "difference of loss, nats per token",
  });
  const color = colorOf(unique(values.map(({ family }) => family)));
  return svg({
    width: 820,
    height: 300,
    data: { values },
    layer: [
      { mark: { type: "line", opacity: 0.5 }, encoding: { x, y: y("value"), color } },
      {
        mark: { type: "rule", strokeWidth: 1.5 },
        encoding: { x, y: y("low"), y2: { field: "high" }, color },
      },
      { mark: { type: "point", filled: true, size: 55, opacity: 1 }, encoding: { x, y: y("value"), color } },
    ],
  });
}

/** Loss on held-out text while learning, one picture a family, one line a size; an SVG. */
export function curvesChart(curves: readonly Curve[]): Promise<string> {
  const values = curves.flatMap(({ run, family, size, points }) =>
    points.map(([tokens, loss]) => ({ run, family, size, tokens, loss })),
  );
  return svg({
    data: { values },
    facet: {
      column: { field: "family", type: "nominal", title: null, sort: unique(curves.map((c) => c.family)) },
    },
    spec: {
      width: 250,
      height: 300,
      mark: { type: "line", strokeWidth: 1.5 },
      encoding: {
        x: { field: "tokens", type: "quantitative", title: "tokens", axis: { format: "~s", tickCount: 4 } },
        y: { ...losses, field: "loss" },
        detail: { field: "run", type: "nominal" },
        color: {
          field: "size",
          type: "ordinal",
          title: "linear parameters",
          sort: unique(curves.map((c) => c.size)),
          scale: { scheme: "viridis" },
          legend: { orient: "top" },
        },
      },
    },
  });
}
