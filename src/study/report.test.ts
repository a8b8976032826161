import { expect, test } from "vitest";
import { startRecord } from "../record/make.ts";
import type { Record } from "../record/record.ts";
import { advise } from "./advice.ts";
import type { Candidate } from "./candidate.ts";
import { compressed, reference } from "./candidates.suite.ts";
import { type Comparison, reportHtml } from "./report.ts";
import { candidateHeader, candidateRow } from "./rows.ts";

const HOSTILE = `<img src="http://example.com/x.png" onerror='alert(1)'>&amp;</pre></details>`;
const candidates: readonly Candidate[] = [
  reference,
  compressed("int4", 400, { mean: 0.01, standardError: 0.002, low: 0.005, high: 0.015 }),
  compressed("int2", 200, { mean: 9, standardError: 0.1, low: 8.8, high: 9.2 }),
  compressed(HOSTILE, 300, { mean: 0.5 }),
];
const record: Record<Comparison> = startRecord("bit-widths", { text: HOSTILE })(
  { name: "native", threads: 2 },
  {},
  { candidates, advice: advise(candidates), protocol: "Measured on <b>prose</b>." },
);
const page = await reportHtml(record);

/** The text of a piece of HTML. */
const unescaped = (html: string) =>
  html.replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&quot;", '"').replaceAll("&amp;", "&");

test("is one page that needs nothing from outside", () => {
  expect(page.startsWith("<!doctype html>")).toBe(true);
  expect(page.match(/<html/g)).toHaveLength(1);
  const tags = page.match(/<[a-z][^>]*>/gi) ?? [];
  expect(tags.filter((tag) => /^<(script|link|img|image|iframe|object|embed|base|use)\b/i.test(tag))).toEqual(
    [],
  );
  // What a name says is text; only these attributes fetch.
  const fetched = tags.flatMap(
    (tag) => tag.replace(/"[^"]*"/g, "").match(/\s(?:xlink:)?(?:href|src|srcset|data|action|poster)=/g) ?? [],
  );
  expect(fetched).toEqual([]);
  expect(page).not.toMatch(/@import|url\((?!["']?#)/);
});

test("has the advice and its rule", () => {
  expect(unescaped(page)).toContain(record.advice.sentence);
  expect(unescaped(page)).toContain(`The rule: ${record.advice.rule}`);
});

test("has a row for every model with every number of the terminal's table, the chosen one marked", () => {
  const rows = [...page.matchAll(/<tr( class="chosen")?>((?:<td>.*?<\/td>)+)<\/tr>/g)];
  const cells = rows.map(([, , row]) =>
    [...row.matchAll(/<td>(.*?)<\/td>/g)].map(([, cell]) => unescaped(cell)),
  );
  expect(cells).toEqual(candidates.map(candidateRow));
  expect(cells.every((row) => row.length === candidateHeader.length)).toBe(true);
  expect(rows.filter(([, chosen]) => chosen).map(([, , row]) => /<td>(.*?)</.exec(row)?.[1])).toEqual([
    "int4",
  ]);
});

test("has the record behind every number, whole", () => {
  const json = /<pre>([\s\S]*?)<\/pre>/.exec(page)?.[1] ?? "";
  expect(JSON.parse(unescaped(json))).toEqual(JSON.parse(JSON.stringify(record)));
});

test("names are text, never markup", () => {
  expect(page).not.toContain("<img");
  expect(page).not.toContain("<b>prose");
  expect(page.match(/<\/details>/g)).toHaveLength(1);
});

test("draws a mark and an interval for each model, and the error of each layer", () => {
  const [loss = "", layers = ""] = page.match(/<svg[\s\S]*?<\/svg>/g) ?? [];
  const marks = (svg: string, kind: string) =>
    (svg.match(new RegExp(`<g class="mark-${kind} role-mark[\\s\\S]*?</g>`, "g")) ?? [])
      .join("")
      .match(/<(path|line) /g) ?? [];
  expect(marks(loss, "symbol")).toHaveLength(candidates.length);
  expect(marks(loss, "rule")).toHaveLength(candidates.length);
  expect(marks(layers, "rect")).toHaveLength(3 * 2);
  for (const label of ["0 q", "0 down", "int2"]) expect(layers).toContain(`>${label}<`);
  expect(`${loss}${layers}`).not.toMatch(/NaN|undefined|Infinity/);
});
