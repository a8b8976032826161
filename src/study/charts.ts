import type { Candidate } from "./candidate.ts";
import { svg } from "./svg.ts";

const COLORS = {
  float: "#4b5563",
  rtn: "#d97706",
  gptq: "#2563eb",
  ternary: "#059669",
  binary: "#7c3aed",
} as const;
const FAMILIES = Object.keys(COLORS) as (keyof typeof COLORS)[];
const LABELS = {
  float: "float",
  rtn: "RTN",
  gptq: "GPTQ",
  ternary: "ternary (trained)",
  binary: "binary (trained)",
} as const;
// A 2-bit model without training can lose several nats; above this the picture would show nothing else.
const TALLEST = 1.5;

/**
 * Loss against bits per weight of the whole file; an SVG. Bars are the 95 %
 * intervals of the paired difference from the reference, set on its loss: the
 * uncertainty that all models share moves them together and is left out.
 */
export async function lossChart(candidates: readonly Candidate[]): Promise<string> {
  const best = Math.min(...candidates.map((c) => c.loss.mean));
  const ceiling = best + TALLEST;
  const base = candidates.find((c) => c.reference)?.loss.mean ?? best;
  const values = candidates.map((c) => ({
    name: c.name,
    family: LABELS[c.family],
    bits: c.bitsPerWeight.total,
    loss: Math.min(c.loss.mean, ceiling),
    low: Math.min(c.difference?.low === undefined ? c.loss.mean : base + c.difference.low, ceiling),
    high: Math.min(c.difference?.high === undefined ? c.loss.mean : base + c.difference.high, ceiling),
    above: c.loss.mean > ceiling,
  }));
  const color = {
    field: "family",
    type: "nominal",
    title: null,
    scale: { domain: FAMILIES.map((f) => LABELS[f]), range: FAMILIES.map((f) => COLORS[f]) },
    legend: { orient: "top", symbolType: "circle", symbolOpacity: 1 },
  };
  const x = {
    field: "bits",
    type: "quantitative",
    title: "bits per weight, everything stored counted",
    scale: { zero: false, nice: true, padding: 20 },
  };
  const y = {
    type: "quantitative",
    title: "loss, nats per token",
    scale: { zero: false, nice: true, padding: 8 },
  };
  return svg({
    width: 820,
    height: 380,
    data: { values },
    layer: [
      {
        transform: [{ filter: "datum.family === 'RTN' || datum.family === 'GPTQ'" }],
        mark: { type: "line", opacity: 0.35, clip: true },
        encoding: { x, y: { ...y, field: "loss" }, color },
      },
      {
        mark: { type: "rule", strokeWidth: 1.5 },
        encoding: { x, y: { ...y, field: "low" }, y2: { field: "high" }, color },
      },
      {
        mark: { type: "point", filled: true, size: 70, opacity: 1 },
        encoding: {
          x,
          y: { ...y, field: "loss" },
          color,
          shape: {
            field: "above",
            type: "nominal",
            legend: null,
            scale: { domain: [false, true], range: ["circle", "triangle-up"] },
          },
        },
      },
      {
        mark: { type: "text", align: "left", dx: 7, dy: -7, fontSize: 9, color: "#374151" },
        transform: [{ filter: "datum.family !== 'RTN'" }],
        encoding: { x, y: { ...y, field: "loss" }, text: { field: "name" } },
      },
    ],
  });
}

/** Relative output error of every layer of every compressed model, on a logarithmic scale of color; an SVG. */
export async function layerChart(candidates: readonly Candidate[]): Promise<string> {
  const compressed = candidates.filter((c) => c.layers.length > 0);
  const values = compressed.flatMap((c) =>
    c.layers.map((layer) => ({ model: c.name, layer: shortName(layer.name), error: layer.relativeError })),
  );
  return svg({
    width: { step: 26 },
    height: { step: 18 },
    data: { values },
    mark: { type: "rect" },
    encoding: {
      x: {
        field: "layer",
        type: "ordinal",
        title: null,
        sort: null,
        axis: { labelAngle: -60, orient: "bottom" },
      },
      y: { field: "model", type: "ordinal", title: null, sort: null },
      color: {
        field: "error",
        type: "quantitative",
        title: "relative output error",
        scale: { type: "log", scheme: "viridis", reverse: true },
        legend: { format: ".0e", gradientLength: 160, titleLimit: 300 },
      },
    },
  });
}

/** `model.layers.2.mlp.down_proj.weight` → `2 down` */
function shortName(name: string): string {
  const match = /layers\.(\d+)\..*?(\w+?)_proj/.exec(name);
  return match ? `${match[1]} ${match[2]}` : name;
}
