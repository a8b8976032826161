import { escaped } from "../pictures/svg.ts";
import type { Record } from "../record/record.ts";

/** A page that opens offline: a title, what was measured and on what, the body (HTML), and the record behind every number. */
export function page(title: string, record: Record, body: string): string {
  const { environment, started } = record;
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>lowbit report: ${escaped(title.toLowerCase())}</title>
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
  table.words { white-space: normal; }
  table.words th, table.words td { text-align: left; vertical-align: top; }
  th:first-child, td:first-child { text-align: left; }
  tr.chosen td { background: #eff6ff; font-weight: 600; }
  svg { max-width: 100%; height: auto; }
  pre { background: #f9fafb; padding: 1rem; overflow: auto; max-height: 40rem; font-size: 12px; }
</style>
</head>
<body>
<h1>${escaped(title)}</h1>
<p class="note">lowbit ${escaped(environment.lowbit)}, ${escaped(started.slice(0, 10))}, ${escaped(environment.backend)} backend, ${environment.threads} threads, ${escaped(environment.platform)}</p>
${body}

<h2>The record</h2>
<details><summary>Everything above, as data</summary>
<pre>${escaped(JSON.stringify(record, null, 2))}</pre>
</details>
</body>
</html>
`;
}

/** A table, numbers to the right; one of `words` breaks its lines. `classOf` gives the class of each row that has one. */
export function htmlTable(
  header: readonly string[],
  rows: readonly (readonly string[])[],
  { classOf = () => "", words = false }: { classOf?: (row: number) => string; words?: boolean } = {},
): string {
  const cells = (row: readonly string[], tag: string) =>
    row.map((cell) => `<${tag}>${escaped(cell)}</${tag}>`).join("");
  const body = rows.map((row, i) => {
    const named = classOf(i);
    return `<tr${named === "" ? "" : ` class="${named}"`}>${cells(row, "td")}</tr>`;
  });
  return `<div class="wide"><table${words ? ' class="words"' : ""}>
<thead><tr>${cells(header, "th")}</tr></thead>
<tbody>
${body.join("\n")}
</tbody>
</table></div>`;
}
