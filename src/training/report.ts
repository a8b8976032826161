import { escaped, markup, style } from "../pictures/svg.ts";
import type { Record } from "../record/record.ts";
import { eventsInWords, factsOf, flattened, histogramsOf, lastStep, panelsOf, type Seen } from "./panels.ts";

/** How a page of pictures is laid out; the live page and the report share it. */
export const layout = `${style}
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 84rem; margin: 0 auto; padding: 1.25rem 1rem 3rem; }
h1 { font-size: 1.4rem; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 2rem 0 0.75rem; }
h3 { font-size: 0.95rem; font-weight: 600; margin: 0 0 0.5rem; }
p { margin: 0.25rem 0; }
.note { color: var(--soft); font-size: 0.85rem; }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); gap: 0.75rem 1rem; margin: 1rem 0; }
.facts dt { color: var(--soft); font-size: 0.8rem; }
.facts dd { margin: 0; font-size: 1.05rem; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(25rem, 100%), 1fr)); gap: 1rem; }
.panel { background: var(--card); border: 1px solid var(--rule); border-radius: 8px; padding: 0.75rem; margin: 0; min-width: 0; }
.panel.wide { grid-column: 1 / -1; }
.panel svg[role=img] { width: 100%; }
.scrolled { overflow-x: auto; }
.scrolled svg[role=img] { width: 100%; min-width: 46rem; }
.histograms { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: 0.75rem; }
table { border-collapse: collapse; font-size: 0.85rem; }
td { padding: 0.15rem 1rem 0.15rem 0; vertical-align: top; overflow-wrap: anywhere; }
td:first-child { color: var(--soft); }
details { margin-top: 1rem; }
summary { cursor: pointer; }
pre { font-size: 12px; overflow: auto; max-height: 40rem; background: var(--card); padding: 1rem; }
`;

const NARROW = 420;
const WIDE = 1180;

/** What came out, on held-out text. */
interface Result {
  readonly validation: {
    readonly loss: number;
    readonly lossStandardError: number | null;
    readonly trainedLoss: number;
    readonly tokens: number;
    readonly widths?: readonly {
      readonly bits: number;
      readonly loss: number;
      readonly lossStandardError: number | null;
    }[];
  };
}

/**
 * One page that tells how a run went: its losses, rates, norms and speed over
 * all steps, what became of its weights, and the record behind the numbers. It
 * needs nothing from elsewhere and runs nothing.
 */
export function trainingReport(name: string, record: Record<Result>, seen: Seen): string {
  const view = { from: 0, to: lastStep(seen) };
  const { environment, started, options, validation } = record;
  const { recipe } = options as { readonly recipe?: unknown };
  const { trainedLoss, tokens, widths = [] } = validation;
  const withError = ({ loss, lossStandardError }: Pick<Result["validation"], "loss" | "lossStandardError">) =>
    `${loss.toFixed(4)}${lossStandardError === null ? "" : ` ± ${lossStandardError.toFixed(4)}`} nats per token`;
  const results: [string, string][] = [
    ["loss of the model as it is stored", withError(validation)],
    ...widths.map((width): [string, string] => [`read at ${width.bits} bits`, withError(width)]),
    ["before its weights were rounded to their formats", `${trainedLoss.toFixed(4)} nats per token`],
    ["measured on", `${tokens.toLocaleString("en-US")} tokens`],
  ];
  const panels = panelsOf(seen).map(({ title, note, wide, draw }) => {
    const picture = markup(draw({ ...view, width: wide ? WIDE : NARROW }));
    const below = note ? `<p class="note">${escaped(note)}</p>` : "";
    return `<section class="panel${wide ? " wide" : ""}"><h3>${escaped(title)}</h3><div${wide ? ' class="scrolled"' : ""}>${picture}</div>${below}</section>`;
  });
  const histograms = histogramsOf(seen, 160).map(markup);
  const events = eventsInWords(seen);
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>${escaped(name)}: training</title>
<style>${layout}</style>
</head>
<body>
<h1>${escaped(name)}</h1>
<p class="note">trained with lowbit ${escaped(environment.lowbit)}, ${escaped(started.slice(0, 10))}, ${escaped(environment.backend)} backend, ${environment.threads} threads, ${escaped(environment.platform)}</p>
${factList(factsOf(seen))}
<h2>Result on held-out text</h2>
${pairs(results)}
${events.length === 0 ? "" : `<h2>What happened</h2>\n${pairs(events)}\n`}<h2>The run</h2>
<div class="panels">
${panels.join("\n")}
</div>
<p class="note">Thin lines are single steps, thick ones exponential means over about a fiftieth of the run; dots are measured on held-out text. Numbers beside the names are those at the end.</p>
${histograms.length === 0 ? "" : `<h2>Weights</h2>\n<p class="note">Trained weights divided by the scale of their row, w/γ, at the end; outlined as they were before the first step.</p>\n<div class="histograms">\n${histograms.join("\n")}\n</div>`}
<h2>Behind it</h2>
<details><summary>The recipe</summary>${pairs(flattened(recipe))}</details>
<details><summary>The record, as data</summary><pre>${escaped(JSON.stringify(record, null, 2))}</pre></details>
</body>
</html>
`;
}

function factList(facts: readonly [string, string][]): string {
  return `<dl class="facts">${facts.map(([name, value]) => `<div><dt>${escaped(name)}</dt><dd>${escaped(value)}</dd></div>`).join("")}</dl>`;
}

function pairs(rows: readonly [string, string][]): string {
  return `<table>${rows.map(([name, value]) => `<tr><td>${escaped(name)}</td><td>${escaped(value)}</td></tr>`).join("")}</table>`;
}
