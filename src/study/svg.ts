const FONT = "system-ui, sans-serif";

/**
 * Draws a Vega-Lite specification without a browser. Vega is large, so that it is loaded only when a report is made, and does not
 * come with the published package: without it a sentence stands in the picture's place.
 */
export async function svg(specification: object): Promise<string> {
  const libraries = await Promise.all([import("vega"), import("vega-lite")]).catch((error) => {
    if (error?.code === "ERR_MODULE_NOT_FOUND") return undefined;
    throw error;
  });
  if (!libraries) return "<p>There is no picture: it needs the packages vega and vega-lite.</p>";
  const [vega, vegaLite] = libraries;
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
