import { writeFileAtomic } from "../files/index.ts";
import { paths } from "../files/node.ts";
import { baseName, type RanOn, startRecord } from "../record/make.ts";
import type { Fingerprint, Job, Record } from "../record/record.ts";
import { InputError } from "../tensor/tensor.ts";
import { readLog } from "../training/log.ts";
import { readRecipe } from "../training/recipe.ts";
import { readYaml } from "../training/recipe-file.ts";
import { findSources, type Sources } from "../training/text.ts";
import { backendFor } from "../verbs/load.ts";
import { type AblationRun, ablationOf, type Cell, type Fit, fitOf, gapsOf } from "./analysis.ts";
import { claimsOf, MARGIN } from "./claims.ts";
import { type Derivation, derive } from "./derive.ts";
import {
  chosen,
  type GridOptions,
  type GridRun,
  type PlannedRun,
  planGrid,
  runGrid,
  shareTokenizer,
  withSharedTokenizer,
} from "./grid.ts";
import { heldOut, type Measurement, measureStored, readMeasurement } from "./measure.ts";
import { type Measured, Replicates } from "./replicates.ts";
import { readSuite, type Suite, type SuiteRun, suiteRuns } from "./suite.ts";
import type { Curve } from "./suite-charts.ts";
import { type Findings, suiteHtml, suiteMarkdown, suitePictures } from "./suite-report.ts";
import { heldOutDocuments, type Named, trainingText } from "./texts.ts";

export interface StudyOptions extends GridOptions {
  /** The study's YAML file. */
  readonly recipe: string;
  /** Says which runs there are, and does nothing. */
  readonly dryRun?: boolean;
}

/** A run of the study; recipe and folder are given by a dry run alone, since records hold no paths. */
export type RunRow = Pick<PlannedRun, "name" | "state" | "tokens" | "operations" | "seconds"> &
  Partial<Pick<PlannedRun, "identity" | "recipe" | "folder">>;

export interface StudyResult extends Findings {
  readonly runs: readonly RunRow[];
  /** Files that were written, in the study's folder. */
  readonly written: readonly string[];
}

/** A model to be measured: a trained one, or one made from it. */
interface Item {
  readonly name: string;
  readonly run: SuiteRun;
  readonly family: string;
  readonly folder: string;
  /** Calibration set. */
  readonly repeat?: number;
  readonly derivation?: Derivation;
}

/** An item with what was measured. */
interface MeasuredItem extends Item {
  readonly measurement: Measurement;
}

/**
 * Spectra's study: trains the suite of a recipe, makes the quantized models,
 * measures all of them as they are stored on the same held-out text, and
 * answers the paper's claims. What is done already is not done again: runs are known by
 * recipe and data, derived models and measurements by the content of what they are of.
 * With `only`, the rest is left as it is, and the answers are those of all that has been measured.
 */
export async function study(options: StudyOptions, job: Job = {}): Promise<Record<StudyResult>> {
  const { resolve, dirname } = paths();
  const where = baseName(options.recipe);
  const suite = readSuite(await readYaml(options.recipe), where);
  const finish = startRecord("study", {
    suite: { ...suite, base: withoutPaths(suite.base) },
    ...(options.only === undefined ? {} : { only: options.only }),
  });
  const out = resolve(options.out);
  const own = suiteRuns(suite, dirname(options.recipe));
  const runs = withSharedTokenizer(own, out);
  const plan = { ...options, out };
  let planned = await planGrid(runs, plan); // finds what is wrong with the recipes before anything is made
  if (options.dryRun) {
    const rows = planned.map(({ full: _, ...run }) => run);
    const none = { cells: [], gaps: [], fits: [], claims: [], curves: [], protocol: [] };
    return finish(undefined, {}, { runs: rows, written: [], ...none });
  }
  await shareTokenizer(own, out, job);
  planned = await planGrid(runs, plan);
  await runGrid(planned, plan, job);

  planned = await planGrid(runs, plan);
  const all = options.only === undefined ? planned : await planAll(runs, out);
  const sources = await findSources(planned[0].full, ".");
  const { measured, ranOn } = await measureAll(
    suite,
    own.filter(({ name }) => all.some((run) => run.name === name && run.state === "finished")),
    { plan, planned: planned[0], sources },
    job,
  );
  const found = await find(suite, measured);
  const missing = own.length - all.filter(({ state }) => state === "finished").length;
  const findings = {
    ...found,
    protocol: [
      ...found.protocol,
      ...(missing > 0
        ? [`${missing} of ${own.length} runs are not finished; the answers are of the others.`]
        : []),
    ],
  };
  const models: Fingerprint[] = measured.map(({ name, measurement }) => ({ ...measurement.model, name }));
  const rows = all.map(({ full: _, recipe: _recipe, folder: _folder, ...run }) => run);
  const pictures = await suitePictures(findings);
  const drawn = pictures.filter(({ svg }) => svg.startsWith("<svg"));
  const written = ["report.html", "report.md", "study.json", ...drawn.map(({ file }) => file)];
  const record = finish(
    ranOn,
    { models, data: sources.data, seed: suite.bootstrap.seed },
    { runs: rows, written, ...findings },
  );
  const contents = [
    suiteHtml(record, pictures),
    suiteMarkdown(record, drawn),
    `${JSON.stringify(record, null, 1)}\n`,
    ...drawn.map(({ svg }) => svg),
  ];
  for (const [i, name] of written.entries()) {
    await writeFileAtomic(paths().join(out, name), new TextEncoder().encode(contents[i]));
  }
  return record;
}

/** The keys that all runs share, for a record. */
function withoutPaths(base: Suite["base"]): object {
  const data = base.data as { readonly text?: unknown } | undefined;
  return { ...base, data: { ...data, text: baseName(String(data?.text)) } };
}

/** All runs that can be planned: a family that this version does not know is no error unless it is asked for. */
function planAll(runs: readonly GridRun[], out: string): Promise<PlannedRun[]> {
  const known = runs.filter(({ recipe, name }) => {
    try {
      readRecipe(recipe, name);
      return true;
    } catch (error) {
      if (error instanceof InputError) return false;
      throw error;
    }
  });
  return planGrid(known, { out });
}

/** The models of finished runs and those to be made from them. */
function itemsOf(suite: Suite, runs: readonly SuiteRun[], out: string): Item[] {
  const { join } = paths();
  const { quantized } = suite;
  return runs.flatMap((run) => {
    const folder = join(out, "runs", run.name);
    const items: Item[] = [{ name: run.name, run, family: run.family, folder }];
    if (!quantized || run.ablation || run.family !== quantized.of) return items;
    for (const { name: width, formats } of quantized.widths) {
      for (const seed of quantized.calibration.seeds) {
        const name = `${run.name}-${width}-c${seed}`;
        const made = join(out, "quantized", name);
        const { samples } = quantized.calibration;
        const derivation = {
          name,
          source: folder,
          folder: made,
          formats,
          samples,
          seed,
          options: quantized.options,
        };
        items.push({ name, run, family: width, folder: made, repeat: seed, derivation });
      }
    }
    return items;
  });
}

/** Makes and measures what is chosen; gives everything that has been measured on this text. */
async function measureAll(
  suite: Suite,
  runs: readonly SuiteRun[],
  { plan, planned, sources }: { plan: GridOptions; planned: PlannedRun; sources: Sources },
  job: Job,
): Promise<{ measured: MeasuredItem[]; ranOn: RanOn }> {
  const { join } = paths();
  const { out, only, backend: name, threads } = plan;
  const { full, folder } = planned;
  const tokenizer = full.data.tokenizer.file ?? join(folder, "tokenizer.json");
  const text = await heldOut(heldOutDocuments(full, sources), tokenizer, full.model.context, job);
  let calibration: Named | undefined;
  const calibrationText = async () => {
    calibration ??= await trainingText(full, sources);
    return calibration;
  };
  const items = itemsOf(suite, runs, out);
  const measured: MeasuredItem[] = [];
  const backend = await backendFor({ backend: name, threads }, job);
  try {
    for (const [i, item] of items.entries()) {
      job.signal?.throwIfAborted();
      const file = join(out, "measured", `${item.name}.json`);
      if (chosen(item.name, only) || chosen(item.run.name, only)) {
        const note = item.name;
        job.onProgress?.({ task: "measure", done: i, total: items.length, unit: "models", note });
        const quiet: Job = { signal: job.signal, onWarning: job.onWarning };
        if (item.derivation)
          await derive(item.derivation, calibrationText, { backend: name, threads }, quiet);
        const measurement = await measureStored(item.folder, file, text, backend, quiet);
        measured.push({ ...item, measurement });
      } else {
        const measurement = await readMeasurement(file);
        if (measurement?.text === text.sha256 && measurement.context === text.context)
          measured.push({ ...item, measurement });
      }
    }
  } finally {
    backend.dispose();
  }
  return { measured, ranOn: { name: backend.name, threads: backend.threads } };
}

/** The answers, of what was measured. */
async function find(suite: Suite, items: readonly MeasuredItem[]): Promise<Findings> {
  const grid = items.filter(({ run }) => !run.ablation);
  const ablation = ablationOf(
    items.flatMap(({ run, measurement }): AblationRun[] =>
      run.ablation ? [{ combination: run.ablation, seed: run.seed, loss: measurement.loss }] : [],
    ),
  );
  const curves = await curvesOf(grid);
  if (grid.length === 0) {
    return {
      cells: [],
      gaps: [],
      fits: [],
      claims: [],
      ...(ablation ? { ablation } : {}),
      curves,
      protocol: [],
    };
  }
  const { documents } = grid[0].measurement;
  const counts = documents.flatMap((document) => document.counts);
  const losses: Measured[] = grid.map(({ family, run, repeat, measurement }) => ({
    family,
    size: run.size,
    seed: run.seed,
    repeat,
    sums: measurement.documents.flatMap((document) => document.sums),
  }));
  const cut = { documents: documents.map((document) => document.counts.length), counts };
  const replicates = new Replicates(losses, cut, suite.bootstrap);
  const cells = cellsOf(suite, grid, replicates);
  const families = [...new Set(cells.map(({ family }) => family))];
  const fits = families.flatMap((family) =>
    (["total", "linear"] as const).flatMap((by) =>
      [true, false].flatMap((offset): Fit | Fit[] => fitOf(cells, family, by, offset, replicates) ?? []),
    ),
  );
  const pairs = [
    ...families
      .filter((family) => family !== "float" && family !== "bilm")
      .map((family) => [family, "float"]),
    ["trilm", "Q4"],
    ["trilm", "Q3"],
    ["bilm", "trilm"],
  ];
  const gaps = pairs.flatMap(([of, against]) => gapsOf(cells, of, against, replicates));
  const claims = claimsOf({ cells, replicates, fits, ablation });
  const tokens = counts.reduce((sum, n) => sum + n, 0).toLocaleString("en-US");
  const protocol = [
    `Measured on ${documents.length} held-out ${documents.length === 1 ? "document" : "documents"}, ${tokens} tokens in ${counts.length} windows of ${grid[0].measurement.context}, each model as it is stored.`,
    `Intervals hold the middle 95 % of ${suite.bootstrap.resamples} resamples: documents are drawn, then windows of each, the same for all models${
      replicates.hasSeeds
        ? "; to each size the chance among seeds is added as it was seen at the sizes with several, all families together, and that among calibration sets"
        : "; no size has several seeds of all families, so that chance in training is not in them"
    }.`,
    `Losses that differ by less than ${MARGIN} nats are called equal. Nothing is said about sizes that were not trained.`,
  ];
  return { cells, gaps, fits, claims, ...(ablation ? { ablation } : {}), curves, protocol };
}

function cellsOf(suite: Suite, items: readonly MeasuredItem[], replicates: Replicates): Cell[] {
  const { quantized } = suite;
  const bitsOf = new Map(Object.entries(suite.families).map(([family, { bits }]) => [family, bits]));
  for (const { name, bits } of quantized?.widths ?? []) bitsOf.set(name, bits);
  // Quantized families stand behind the one they are of.
  const order = Object.keys(suite.families).flatMap((family) =>
    family === quantized?.of ? [family, ...quantized.widths.map(({ name }) => name)] : [family],
  );
  return order.flatMap((family) =>
    suite.sizes.flatMap(({ name: size }): Cell[] => {
      const own = items.filter((item) => item.family === family && item.run.size === size);
      if (own.length === 0) return [];
      const { parameters, format } = own[0].measurement;
      const { linear, others } = parameters;
      return [
        {
          family,
          size,
          N: linear + others,
          linear,
          bits: 16 * others + bitsOf.get(family)! * linear,
          bytes: own.reduce((sum, { measurement }) => sum + measurement.bytes, 0) / own.length,
          format,
          models: own.length,
          seeds: replicates.seeds(family, size),
          loss: replicates.estimate((loss) => loss(family, size)),
        },
      ];
    }),
  );
}

/** Validation losses in the logs of the trained models. */
async function curvesOf(items: readonly MeasuredItem[]): Promise<Curve[]> {
  const curves: Curve[] = [];
  for (const { name, family, folder, run, derivation } of items) {
    if (derivation) continue;
    const lines = await readLog(paths().join(folder, "log.jsonl"));
    const points = lines.flatMap(({ tokens, validationLoss }): [number, number][] =>
      validationLoss === undefined ? [] : [[tokens, validationLoss]],
    );
    if (points.length > 0) curves.push({ run: name, family, size: run.size, points });
  }
  return curves;
}
