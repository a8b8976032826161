/**
 * A picture: an element of SVG with what is in it. The same tree becomes text
 * for a report and elements for a live page; neither way can text turn into
 * markup.
 */
export interface Picture {
  readonly tag: string;
  readonly attributes: Readonly<Record<string, string | number>>;
  readonly children: readonly (Picture | string)[];
}

export function draw(
  tag: string,
  attributes: Picture["attributes"] = {},
  ...children: (Picture | string)[]
): Picture {
  return { tag, attributes, children };
}

/**
 * A whole picture of a size, in pixels, that says in words what it shows.
 * `steps` are the pixels of its first and last step, for a page on which one
 * can point at them.
 */
export function drawing(
  width: number,
  height: number,
  label: string,
  parts: readonly Picture[],
  steps?: readonly [first: number, last: number],
): Picture {
  const pointed: Picture["attributes"] = steps ? { "data-steps": steps.map(tenth).join(" ") } : {};
  return draw(
    "svg",
    { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": label, ...pointed },
    ...parts,
  );
}

/** A picture as text of SVG. */
export function markup({ tag, attributes, children }: Picture): string {
  const written = Object.entries(attributes).map(([name, value]) => ` ${name}="${escaped(String(value))}"`);
  const inside = children.map((child) => (typeof child === "string" ? escaped(child) : markup(child)));
  return `<${tag}${written.join("")}>${inside.join("")}</${tag}>`;
}

/** Text as it may stand in HTML, inside elements and inside quoted attributes. */
export function escaped(text: string): string {
  return text.replace(/[&<>"]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c]!);
}

/** A path's points with a tenth of a pixel; a point that is not a number breaks the line. */
export function path(points: Iterable<readonly [x: number, y: number]>): string {
  let d = "";
  let pen = "M";
  for (const [x, y] of points) {
    if (!Number.isFinite(x) || !Number.isFinite(y)) {
      pen = "M";
      continue;
    }
    d += `${pen}${tenth(x)} ${tenth(y)}`;
    pen = "L";
  }
  return d;
}

/** A length in pixels as pictures write it. */
export function tenth(pixels: number): number {
  return Math.round(10 * pixels) / 10;
}

/** What the classes of pictures look like, in a light and in a dark scheme; colors told apart with any eyes (Okabe and Ito, 2008, https://jfly.uni-koeln.de/color/). */
export const style = `
:root { color-scheme: light dark; --ink: #1f2328; --soft: #59636e; --rule: #d8dee4; --paper: #ffffff; --card: #f6f8fa;
  --c0: #0072b2; --c1: #d55e00; --c2: #008060; --c3: #b8558c; --c4: #2a94cf; --c5: #a97500; --c6: #59636e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9aa4af; --rule: #373e47; --paper: #0f1318; --card: #171c23;
  --c0: #56b4e9; --c1: #f08a3c; --c2: #2fc79a; --c3: #e09cc3; --c4: #8fd3f7; --c5: #e9b93c; --c6: #9aa4af; } }
svg[role=img] { display: block; max-width: 100%; height: auto; font: 12px system-ui, sans-serif; }
svg text { fill: var(--soft); font-variant-numeric: tabular-nums; }
svg text.strong { fill: var(--ink); }
svg .rule { stroke: var(--rule); stroke-width: 1; fill: none; }
svg .cursor { stroke: var(--soft); stroke-width: 1; stroke-dasharray: 2 3; }
svg .line { fill: none; stroke-width: 1.75; stroke-linejoin: round; stroke-linecap: round; }
svg .faint { stroke-width: 1; opacity: 0.35; }
svg .dashed { stroke-dasharray: 6 4; }
svg .dotted { stroke-dasharray: 1 4; stroke-width: 2.25; }
svg .bars { stroke: none; opacity: 0.55; }
svg .outline { fill: none; stroke: var(--ink); stroke-width: 1; }
${[0, 1, 2, 3, 4, 5, 6].map((c) => `svg .c${c} { stroke: var(--c${c}); } svg .f${c} { fill: var(--c${c}); }`).join("\n")}
`;
