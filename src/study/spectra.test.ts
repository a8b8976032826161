import {
  copyFileSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { refusal } from "../../test/refusal.ts";
import { writeTinyText } from "../../test/tiny-training.ts";
import type { Job, Progress } from "../record/record.ts";
import { evaluate } from "../verbs/evaluate.ts";
import { train } from "../verbs/train.ts";
import { type StudyOptions, study } from "./spectra.ts";

let folder: string;
let recipe: string;
let out: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "lowbit-study-"));
  writeTinyText(folder);
  recipe = join(folder, "study.yaml");
  out = join(folder, "out");
  copyFileSync(join(import.meta.dirname, "../../test/tiny-study.yaml"), recipe);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const run = (options: Partial<StudyOptions> = {}, job: Job = {}) =>
  study({ recipe, out, backend: "reference", ...options }, job);
/** Runs until a progress event is what `when` says, then interrupts. */
const interrupted = async (when: (event: Progress) => boolean, options: Partial<StudyOptions> = {}) => {
  const controller = new AbortController();
  const reason = new Error("interrupted");
  const onProgress = (event: Progress) => {
    if (when(event)) controller.abort(reason);
  };
  await expect(run(options, { signal: controller.signal, onProgress })).rejects.toBe(reason);
};
const at = (...names: string[]) => join(out, ...names);
const json = (...names: string[]) => JSON.parse(readFileSync(at(...names), "utf8"));

test("a dry run lists the runs with their recipes and makes nothing", async () => {
  const { runs } = await run({ dryRun: true });
  expect(runs).toHaveLength(2 * 4 + 8);
  expect(runs[0]).toMatchObject({
    name: "float-s-s1",
    state: "new",
    folder: at("runs", "float-s-s1"),
    tokens: 4 * 2 * 16,
  });
  expect(runs[0].recipe).toMatchObject({
    family: "float",
    seed: 1,
    steps: 4,
    data: { text: join(folder, "text") },
  });
  expect(runs.every(({ seconds }) => seconds > 0)).toBe(true);
  expect(existsSync(out)).toBe(false);
});

test("interrupted in training and in measuring, it goes on; a second start does nothing again", async () => {
  await interrupted(
    ({ task, note }) => task === "study" && note!.startsWith("trilm-s-s2") && note!.includes("train 3/4"),
  );
  expect(json("runs", "float-s-s1", "record.json").verb).toBe("train");
  expect(existsSync(at("runs", "trilm-s-s2", "record.json"))).toBe(false);
  expect(existsSync(at("runs", "trilm-s-s2", "work", "run.json"))).toBe(true);
  const kept = json("runs", "float-s-s1", "record.json").started;

  await interrupted(({ task, note }) => task === "measure" && note === "float-m-s1-Q3-c1");
  expect(existsSync(at("measured", "float-s-s1-Q8-c2.json"))).toBe(true);
  expect(existsSync(at("report.html"))).toBe(false);
  const measured = statSync(at("measured", "float-s-s1-Q8-c2.json")).mtimeMs;

  const record = await run();
  expect(json("runs", "float-s-s1", "record.json").started).toBe(kept);
  expect(statSync(at("measured", "float-s-s1-Q8-c2.json")).mtimeMs).toBe(measured);
  expect(record.runs.every(({ state }) => state === "finished")).toBe(true);
  expect(record.cells.map(({ family, size, models }) => `${family} ${size} ${models}`)).toEqual([
    ...["float s 2", "float m 1", "float l 1"],
    ...["Q8 s 4", "Q8 m 2", "Q8 l 2", "Q3 s 4", "Q3 m 2", "Q3 l 2"],
    ...["trilm s 2", "trilm m 1", "trilm l 1"],
  ]);
  expect(record.models).toHaveLength(4 + 4 + 16 + 8);
  expect(record.ablation!.seeds).toEqual([1, 2]);
  expect(record.claims.length).toBeGreaterThan(15);
  expect(record.curves.every(({ points }) => points.length === 1)).toBe(true);
  expect(record.protocol[0]).toMatch(/^Measured on 2 held-out documents, [\d,]+ tokens in \d+ windows of 16/);
  expect(JSON.stringify(record)).not.toContain(folder);

  // 2·280·8 of embedding and head, 4·8² + 3·8·16 linear.
  const [float] = record.cells;
  expect(float).toMatchObject({ N: 2 * 280 * 8 + 640, linear: 640, bits: 16 * (2 * 280 * 8 + 640) });
  expect(record.cells[9].bits).toBeCloseTo(16 * 4480 + 1.58 * 640, 6);
  expect(float.bytes).toBe(statSync(at("runs", "float-s-s1", "model.safetensors")).size);

  const again: Progress[] = [];
  const second = await run({}, { onProgress: (event) => again.push(event) });
  expect(again.filter(({ task }) => task !== "measure")).toEqual([]);
  const { started: _, seconds: __, ...rest } = second;
  expect(rest).toEqual({ ...JSON.parse(JSON.stringify(record)), started: undefined, seconds: undefined });
}, 60_000);

test("a loss is what evaluate measures on the same documents", async () => {
  const { documents, loss } = json("measured", "trilm-l-s1.json");
  let nats = 0;
  let tokens = 0;
  for (const [i, name] of ["c.txt", "held.txt"].entries()) {
    expect(documents[i].name).toBe(name);
    const { models } = await evaluate({
      models: [at("runs", "trilm-l-s1")],
      text: join(folder, "text", name),
      context: 16,
      backend: "reference",
    });
    nats += models[0].text.loss * models[0].text.tokens;
    tokens += models[0].text.tokens;
  }
  expect(loss).toBeCloseTo(nats / tokens, 6);
});

test("its report is a page that needs nothing from outside, and tables in Markdown", () => {
  const page = readFileSync(at("report.html"), "utf8");
  expect(page.match(/<svg/g)).toHaveLength(4);
  expect(page).not.toMatch(/<(script|link|img)\b|https?:\/\/(?!arxiv\.org|www\.w3\.org)/);
  expect(page.replace(/<pre>[\s\S]*<\/pre>/, "")).not.toMatch(/NaN|undefined/);
  const markdown = readFileSync(at("report.md"), "utf8");
  for (const title of [
    "The models",
    "Gaps at equal size",
    "What Spectra claims",
    "Differences of the schedules",
  ]) {
    expect(markdown).toContain(`## ${title}`);
  }
  for (const [, file] of markdown.matchAll(/!\[[^\]]*\]\((\S+)\)/g))
    expect(readFileSync(at(file), "utf8")).toMatch(/^<svg/);
  expect(markdown).toContain("![Loss against bits](bits.svg)");
  expect(json("study.json")).toMatchObject({ record: "lowbit", verb: "study" });
});

test("a changed recipe is refused by the run's name, and done anew when told", async () => {
  const text = readFileSync(recipe, "utf8");
  const changed = join(folder, "changed.yaml");
  writeFileSync(changed, text.replace("rates: { float: { peak: 0.01 }", "rates: { float: { peak: 0.02 }"));
  expect(await refusal(run({ recipe: changed }))).toMatch(
    /^float-s-s1: \S+ holds a run of another recipe or other data; give --redo/,
  );
  expect(json("runs", "float-s-s1", "record.json").verb).toBe("train");

  const trilm = json("runs", "trilm-s-s1", "record.json").started;
  const before = json("measured", "float-s-s1-Q8-c1.json").model.sha256;
  const record = await run({ recipe: changed, redo: true, only: "float-s-s1" });
  expect(record.cells).toHaveLength(12);
  expect(json("runs", "trilm-s-s1", "record.json").started).toBe(trilm);
  // What is made from it is made anew, too.
  expect(json("measured", "float-s-s1-Q8-c1.json").model.sha256).not.toBe(before);
  expect(await refusal(run({ recipe: changed, only: "float-*" }))).toMatch(/^float-s-s2: /);
}, 60_000);

test("a run that train made from the same recipe is taken as it is", async () => {
  const other = join(folder, "other");
  const only = "float-s-s1";
  await interrupted(({ task }) => task === "study", { out: other, only });
  const [{ recipe: own, folder: place }] = (await run({ out: other, only, dryRun: true })).runs;
  rmSync(place!, { recursive: true });
  const { started } = await train({ recipe: own!, out: place!, backend: "reference" });
  const { runs, cells, protocol } = await run({ out: other, only });
  expect(runs.find(({ name }) => name === only)).toMatchObject({ state: "finished" });
  expect(JSON.parse(readFileSync(join(place!, "record.json"), "utf8")).started).toBe(started);
  expect(cells.map(({ family }) => family)).toEqual(["float", "Q8", "Q3"]);
  expect(protocol.at(-1)).toBe("15 of 16 runs are not finished; the answers are of the others.");
}, 60_000);

test("what is wrong is said before anything is made", async () => {
  const bad = join(folder, "bad.yaml");
  const text = readFileSync(recipe, "utf8");
  const using = (from: string, to: string, options = {}) => {
    writeFileSync(bad, text.replace(from, to));
    return refusal(run({ recipe: bad, out: join(folder, "never"), ...options }));
  };
  expect(await using("peak: 0.01", "peek: 0.01")).toBe(
    "run float-s-s1: unknown key schedule.peek; did you mean schedule.peak?",
  );
  expect(await using("heads: 2", "heads: 3")).toBe("run float-s-s1: model.heads 3 must divide model.dim 8");
  expect(await using("text: text", "text: nowhere")).toContain("nowhere does not exist");
  expect(await using("families:", "family:")).toContain(
    "bad.yaml: unknown key family; did you mean families?",
  );
  expect(await using("", "", { only: "bilm-*" })).toMatch(
    /^--only bilm-\*: no run is called so; there are float-s-s1, /,
  );
  expect(existsSync(join(folder, "never"))).toBe(false);
});
