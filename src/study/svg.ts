const FONT = "system-ui, sans-serif";

/** Draws a Vega-Lite specification without a browser. Loaded only when a report is made: Vega is large. */
export async function svg(specification: object): Promise<string> {
  const [vega, vegaLite] = await Promise.all([import("vega"), import("vega-lite")]);
  const config = {
    font: FONT,
    background: "transparent",
    axis: { labelFontSize: 11, titleFontSize: 12, gridColor: "#e5e7eb", domainColor: "#9ca3af" },
    legend: { labelFontSize: 11, titleFontSize: 11 },
    view: { stroke: null },
  };
  const compiled = vegaLite.compile({ ...specification, config } as Parameters<typeof vegaLite.compile>[0]);
  const view = new vega.View(vega.parse(compiled.spec), { renderer: "none", logLevel: vega.Error });
  try {
    return await view.toSVG();
  } finally {
    view.finalize();
  }
}
