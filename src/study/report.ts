import type { Record } from "../record/record.ts";
import type { Advice } from "./advice.ts";
import type { Candidate } from "./candidate.ts";
import { layerChart, lossChart } from "./charts.ts";
import { candidateHeader, candidateRow } from "./rows.ts";

export interface Comparison {
  readonly candidates: readonly Candidate[];
  readonly advice: Advice;
  /** What the loss was measured on, in words: text, tokens, context, stride. */
  readonly protocol: string;
}

/**
 * One HTML page that opens offline: the advice, the table, loss against bits
 * per weight, the error of each layer, and the record behind every number.
 * Everything in it is drawn from the record.
 */
export async function reportHtml(record: Record<Comparison>): Promise<string> {
  const { candidates, advice, protocol } = record;
  const [loss, layers] = await Promise.all([lossChart(candidates), layerChart(candidates)]);
  const rows = candidates
    .map((c) => {
      const chosen = c.name === advice.choice ? ' class="chosen"' : "";
      return `<tr${chosen}>${candidateRow(c)
        .map((cell) => `<td>${htmlText(cell)}</td>`)
        .join("")}</tr>`;
    })
    .join("\n");
  const head = candidateHeader.map((title) => `<th>${htmlText(title)}</th>`).join("");
  const reference = candidates.find((c) => c.reference)?.name ?? "the reference";
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>lowbit report: how few bits?</title>
<style>
  body { font: 15px/1.5 system-ui, sans-serif; color: #111827; max-width: 82rem; margin: 2rem auto; padding: 0 1rem; }
  h1 { font-size: 1.5rem; margin-bottom: 0.25rem; }
  h2 { font-size: 1.1rem; margin-top: 2.25rem; }
  .advice { background: #eff6ff; border-left: 4px solid #2563eb; padding: 0.75rem 1rem; font-size: 1.05rem; }
  .note { color: #4b5563; }
  .wide { overflow-x: auto; }
  table { border-collapse: collapse; font-variant-numeric: tabular-nums; white-space: nowrap; font-size: 13px; }
  th, td { padding: 0.3rem 0.5rem; text-align: right; border-bottom: 1px solid #e5e7eb; }
  th { font-weight: 600; color: #374151; }
  th:first-child, td:first-child { text-align: left; }
  tr.chosen td { background: #eff6ff; font-weight: 600; }
  svg { max-width: 100%; height: auto; }
  pre { background: #f9fafb; padding: 1rem; overflow: auto; max-height: 40rem; font-size: 12px; }
</style>
</head>
<body>
<h1>How few bits?</h1>
<p class="note">lowbit ${htmlText(record.environment.lowbit)}, ${htmlText(record.started.slice(0, 10))}, ${htmlText(record.environment.backend)} backend, ${record.environment.threads} threads, ${htmlText(record.environment.platform)}</p>
<p class="advice">${htmlText(advice.sentence)}</p>
<p class="note">The rule: ${htmlText(advice.rule)}; else none.</p>

<h2>The models</h2>
<div class="wide"><table>
<thead><tr>${head}</tr></thead>
<tbody>
${rows}
</tbody>
</table></div>
<p class="note">${htmlText(protocol)} Loss in nats per token ± standard error over windows; Δ loss is paired with ${htmlText(reference)} on the same windows, with its 95 % interval. KL and same top token compare each model's next-token distribution with ${htmlText(reference)}'s, token by token. Bytes and bits per weight count everything that is stored: codes, scales, embedding, head and norms.</p>

<h2>Loss against bits per weight</h2>
${loss}
<p class="note">Bars are the 95 % intervals of Δ loss, set on the loss of ${htmlText(reference)}: all models were measured on the same windows, so their differences are known much better than each loss by itself (± error in the table). A triangle marks a loss above the picture.</p>

<h2>Error of each layer</h2>
<div class="wide">${layers}</div>
<p class="note">‖(W − Ŵ)X‖² / ‖WX‖² on the calibration activations.</p>

<h2>The record</h2>
<details><summary>Everything above, as data</summary>
<pre>${htmlText(JSON.stringify(record, null, 2))}</pre>
</details>
</body>
</html>
`;
}

function htmlText(text: string): string {
  return text.replace(/[&<>"]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c]!);
}
