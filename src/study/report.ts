import { escaped } from "../pictures/svg.ts";
import type { Record } from "../record/record.ts";
import type { Advice } from "./advice.ts";
import type { Candidate } from "./candidate.ts";
import { layerChart, lossChart } from "./charts.ts";
import { htmlTable, page } from "./page.ts";
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
  const reference = candidates.find((c) => c.reference)?.name ?? "the reference";
  const body = `<p class="advice">${escaped(advice.sentence)}</p>
<p class="note">The rule: ${escaped(advice.rule)}; else none.</p>

<h2>The models</h2>
${htmlTable(candidateHeader, candidates.map(candidateRow), { classOf: (i) => (candidates[i].name === advice.choice ? "chosen" : "") })}
<p class="note">${escaped(protocol)} Loss in nats per token ± standard error over windows; Δ loss is paired with ${escaped(reference)} on the same windows, with its 95 % interval. KL and same top token compare each model's next-token distribution with ${escaped(reference)}'s, token by token. Bytes and bits per weight count everything that is stored: codes, scales, embedding, head and norms.</p>

<h2>Loss against bits per weight</h2>
${loss}
<p class="note">Bars are the 95 % intervals of Δ loss, set on the loss of ${escaped(reference)}: all models were measured on the same windows, so their differences are known much better than each loss by itself (± error in the table). A triangle marks a loss above the picture.</p>

<h2>Error of each layer</h2>
<div class="wide">${layers}</div>
<p class="note">‖(W − Ŵ)X‖² / ‖WX‖² on the calibration activations.</p>`;
  return page("How few bits?", record, body);
}
