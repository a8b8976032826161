import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { tinyRecipe, writeTinyText } from "../../test/tiny-training.ts";
import { train } from "../verbs/train.ts";
import { eventLine, readLog, type TimedLine } from "./log.ts";
import { eventsInWords, factsOf, flattened, panelsOf, smoothed } from "./panels.ts";
import { trainingReport } from "./report.ts";
import { parseWeightsLine } from "./weights-log.ts";
import { readWeightsLog } from "./weights-watch.ts";

const folder = mkdtempSync(join(tmpdir(), "lowbit-training-report-"));
const text = writeTinyText(folder);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test("every run ends with a report that needs nothing from elsewhere and runs nothing", async () => {
  for (const family of ["float", "trilm"] as const) {
    const out = join(folder, family);
    const record = await train({ recipe: tinyRecipe(text, family), out, backend: "reference" });
    const html = readFileSync(join(out, "report.html"), "utf8");
    expect(html).not.toMatch(/<script|<link|<img|url\(|src=|href=|NaN|undefined|Infinity/);
    expect(html).toContain("default-src 'none'");
    expect(html).toContain(record.validation.loss.toFixed(4));
    const last = (await readLog(join(out, "log.jsonl"))).at(-1)!;
    expect(html).toContain(`decay ${last.weightDecay === 0 ? 0 : last.weightDecay.toPrecision(4)}<`);
    expect(html).not.toContain(folder); // records and reports hold no paths of the machine
    expect(html.includes("Flips, % of weights, each layer")).toBe(family === "trilm");
    const { header } = await readWeightsLog(out);
    expect(html.match(/most weights near/g)?.length).toBe(header!.matrices.length);
  }
});

test("the facts are those of the log", async () => {
  const out = join(folder, "trilm");
  const log = await readLog(join(out, "log.jsonl"));
  const weights = await readWeightsLog(out);
  const facts = Object.fromEntries(factsOf({ log: log.slice(0, 6), ...weights }));
  expect(facts).toMatchObject({ step: "6 of 12", tokens: "384", family: "trilm" });
  expect(facts["validation loss"]).toBe(log[3].validationLoss!.toFixed(4));
  expect(facts["time left"]).toBeDefined();
  const { matrices } = weights.samples.at(-1)!;
  const count = weights.header!.matrices.reduce((sum, { rows, cols }) => sum + rows * cols, 0);
  const zeros = (100 * matrices.reduce((sum, matrix) => sum + matrix.zeros!, 0)) / count;
  expect(facts.zeros).toBe(`${Number(zeros.toPrecision(3))} %`);
  expect(factsOf({ log: [], samples: [] })).toEqual([]);
});

test("smooth lines are exponential means: of a constant itself, of a step the formula", () => {
  const at = (y: (i: number) => number) => Array.from({ length: 500 }, (_, i) => [i, y(i)] as const);
  for (const [, y] of smoothed(at(() => 3))) expect(y).toBeCloseTo(3, 12);
  const β = 1 - 2 / 11; // ten points
  const [, y] = smoothed(at((i) => Number(i >= 400)))[499];
  expect(y).toBeCloseTo((1 - β ** 100) / (1 - β ** 500), 12);
});

test("what happened beside the steps is told in words, and marked where the run went back to", () => {
  const step = (n: number) => ({ step: n, tokens: n, loss: n / 7, rate: 1, weightDecay: 0, gradientNorm: 1 });
  const log = [1, 2, 3].map((n) => ({ ...step(n), timing: { seconds: 1, tokensPerSecond: 1 } }));
  const rollback = { event: "rollback", at: 5, why: "the loss is <NaN>", to: 2, skipped: [3, 4] } as const;
  const chosen = { event: "chosen", layers: [{ name: "a.weight", damage: 0.25 }] } as const;
  const seen = { log, samples: [], events: [chosen, rollback] };
  expect(eventsInWords(seen)).toEqual([
    ["before the first step", "only what rounding hurts most learns: a.weight (+0.25)"],
    ["step 5", "the loss is <NaN>; went back to step 2 and left out batches 3, 4"],
  ]);
  expect(factsOf(seen)).toContainEqual(["rollbacks", "1"]);
  const [loss] = panelsOf(seen);
  expect(JSON.stringify(loss.draw({ width: 400, from: 0, to: 3 }))).toContain("went back to 0.2857");
  const environment = { lowbit: "1", backend: "b", threads: 1, platform: "p" };
  const validation = { loss: 1, lossStandardError: null, trainedLoss: 1, tokens: 1 };
  const html = trainingReport(
    "run",
    { environment, started: "2026", options: {}, validation } as never,
    seen,
  );
  expect(html).toContain("the loss is &lt;NaN&gt;; went back to step 2");
  expect(
    trainingReport("run", { environment, started: "2026", options: {}, validation } as never, {
      ...seen,
      events: [],
    }),
  ).not.toContain("What happened");
  for (const line of seen.events) expect(eventLine(line)).toBe(line);
  for (const bad of [
    null,
    {},
    { ...rollback, skipped: "3" },
    { ...rollback, why: 1 },
    { ...chosen, layers: [{}] },
  ])
    expect(eventLine(bad)).toBeUndefined();
});

test("runs without anything measured yet have their pictures", () => {
  for (const { draw } of panelsOf({ log: [], samples: [] })) {
    expect(JSON.stringify(draw({ width: 400, from: 0, to: 1 }))).toContain("nothing yet");
  }
});

test("what strangers wrote is text in the report", () => {
  const evil = "</title><script>alert(1)</script>";
  const header = {
    lowbit: "weights",
    version: 1,
    family: evil,
    steps: 1,
    every: 1,
    parameters: 1,
    range: [-3, 3],
  };
  const matrices = [{ name: evil, rows: 1, cols: 2 }];
  const line = { step: 1, tokens: 1, loss: 1, rate: 1, weightDecay: 0, gradientNorm: 1 };
  const log = [{ ...line, timing: { seconds: 1, tokensPerSecond: 1 } }] as TimedLine[];
  const sample = {
    step: 1,
    matrices: [{ norm: 1, scale: 1, histogram: [1, 1], zeros: 1 }],
    timing: { seconds: 1 },
  };
  const seen = {
    log,
    header: parseWeightsLine({ ...header, matrices }) as never,
    samples: [parseWeightsLine(sample) as never],
  };
  const environment = { lowbit: evil, backend: evil, threads: 1, platform: evil };
  const validation = { loss: 1, lossStandardError: null, trainedLoss: 1, tokens: 1 };
  const record = { environment, started: evil, options: { recipe: { [evil]: evil } }, validation };
  const html = trainingReport(evil, record as never, seen);
  expect(html).not.toContain("<script");
  expect(html).toContain("&lt;script&gt;");
  expect(flattened({ a: { b: [1, 2] }, c: null })).toEqual([
    ["a.b", "1, 2"],
    ["c", "null"],
  ]);
});

test("lines that are not of weights.jsonl are none", () => {
  const sample = { step: 1, matrices: [{ norm: 1, scale: 1, histogram: [1] }], timing: { seconds: 1 } };
  expect(parseWeightsLine(sample)).toBe(sample);
  for (const bad of [
    null,
    7,
    {},
    { ...sample, step: -1 },
    { ...sample, timing: {} },
    { ...sample, matrices: [null] },
    { ...sample, matrices: [{ ...sample.matrices[0], histogram: ["1"] }] },
    { ...sample, matrices: [{ ...sample.matrices[0], zeros: 0.5 }] },
    { lowbit: "weights", version: 1, matrices: [{}] },
  ]) {
    expect(parseWeightsLine(bad)).toBeUndefined();
  }
});
