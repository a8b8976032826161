import { z } from "zod";
import { compare } from "../evaluation/divergence.ts";
import { losses } from "../evaluation/loss.ts";
import { type Sequence, windows } from "../evaluation/sequences.ts";
import type { Cluster } from "../evaluation/statistics.ts";
import { makeFolder, remove, whatIs } from "../files/disk.ts";
import { decodeText, readText, writeFileAtomic } from "../files/index.ts";
import { isObject } from "../files/json.ts";
import { paths } from "../files/node.ts";
import { baseName, fingerprint, startRecord } from "../record/make.ts";
import type { Fingerprint, Job, Record } from "../record/record.ts";
import { lowbitVersion } from "../record/version.ts";
import { checkedBy } from "../tensor/schema-words.ts";
import { InputError } from "../tensor/tensor.ts";
import { spread } from "../training/batches.ts";
import { readYaml } from "../training/recipe-file.ts";
import { readJson } from "../training/run-folder.ts";
import { compress, compressChoices } from "../verbs/compress.ts";
import { type BackendChoice, backendFor, type Loaded, load } from "../verbs/load.ts";
import { answersOf } from "./compression-answers.ts";
import { type CompressionResult, compressionMarkdown } from "./compression-report.ts";
import { type CompressionRun, questionSchema, type SplitResult } from "./compression-run.ts";
import { chosen } from "./grid.ts";

const text = z.strictObject({
  /** Files, one after another. Paths start from the recipe's own folder. */
  files: z.array(z.string()).min(1),
  /** Bytes that are left out at the start: parts of one file can have different roles. */
  from: z.int().min(0).default(0),
  /** So many bytes. Default: all that follow. */
  bytes: z.int().min(1).optional(),
  /** So many windows of it, evenly spread. Default: all. */
  windows: z.int().min(2).optional(),
});

const suite = z.strictObject({
  study: z.literal("compression"),
  /** As commands name models; a path starts from the recipe's own folder. */
  model: z.string(),
  tokenizer: z.string().optional(),
  /** Tokens of a window. Default: the model's context. */
  context: z.int().min(2).optional(),
  calibration: text,
  /** The split on which the best of several candidates is chosen. */
  choose: text,
  /** The split on which it is reported. */
  report: text,
  /** Windows of calibration text are drawn anew with each. */
  seeds: z.array(z.int()).min(1),
  /** Ways to compress, by name: the options of `lowbit compress`. */
  candidates: z.record(z.string(), z.unknown()),
  questions: z.array(questionSchema).default([]),
  /** What a reader must know of the texts: `seen in training`. */
  note: z.string().optional(),
});

/** Whether a study's recipe is one of these. */
export async function isCompressionStudy(recipe: string): Promise<boolean> {
  const raw = await readYaml(recipe);
  return isObject(raw as never) && (raw as { study?: unknown }).study === "compression";
}

export interface CompressionStudyOptions extends BackendChoice {
  readonly recipe: string;
  readonly out: string;
  /** Names of the candidates that are meant. */
  readonly only?: string;
}

/** The float model, the texts and what was measured of it on them. */
interface Setting {
  readonly model: string;
  readonly tokenizer?: string;
  readonly context: number;
  readonly float: Loaded;
  readonly calibration: NamedText;
  readonly splits: { readonly choose: Split; readonly report: Split };
  readonly options: CompressionStudyOptions;
}

/** A candidate with one seed, and what is known of it already. */
interface Item {
  readonly candidate: string;
  readonly seed: number;
  readonly choices: object;
  readonly identity: string;
  /** Its file. */
  readonly place: string;
  readonly known?: CompressionRun;
}

/**
 * What does each way to compress lose at equal bits? Every candidate of a
 * recipe is made by `compress` with every seed, loaded as it is stored and
 * compared with the float model on two splits, window by window; the best of several is
 * chosen on the one and reported on the other. What is done is not done again: runs are
 * known by options, model, texts and version. With `only` the rest is left as it is, and the answers are those of all that
 * has been measured.
 */
export async function compressionStudy(
  options: CompressionStudyOptions,
  job: Job = {},
): Promise<Record<CompressionResult>> {
  const { resolve, dirname, join } = paths();
  const where = baseName(options.recipe);
  const study = checkedBy(suite, await readYaml(options.recipe), { where, whole: "recipe" });
  for (const [name, choices] of Object.entries(study.candidates)) {
    checkedBy(compressChoices, choices, { where: `${where}: ${name}` });
  }
  const finish = startRecord("study", { ...study, recipe: where });
  const base = dirname(resolve(options.recipe));
  const own = (path: string) => (path.includes(":") ? path : resolve(base, path));
  const texts = {
    calibration: await textOf(study.calibration, own),
    choose: await textOf(study.choose, own),
    report: await textOf(study.report, own),
  };
  checkApart(texts);

  const backend = await backendFor(options, job);
  try {
    const model = own(study.model);
    const tokenizer = study.tokenizer === undefined ? undefined : own(study.tokenizer);
    const float = await load(model, backend, { tokenizer }, job);
    try {
      const context = study.context ?? float.model.config.context;
      const fingerprint = await float.fingerprint();
      const hashes = [fingerprint, ...Object.values(texts)].map(({ sha256 }) => sha256);
      const windows = [study.choose.windows, study.report.windows];
      const items: Item[] = [];
      // Seed by seed, so that an interrupted study has something of every candidate.
      for (const seed of study.seeds) {
        for (const [candidate, choices] of Object.entries(study.candidates)) {
          const identity = JSON.stringify([lowbitVersion, choices, context, windows, hashes]);
          const place = join(options.out, "runs", `${fileName(candidate)}-s${seed}.json`);
          const known = await knownRun(place, identity);
          items.push({ candidate, seed, choices: choices as object, identity, place, known });
        }
      }
      const splits = {
        choose: await splitOf(float, texts.choose, context, study.choose.windows, job),
        report: await splitOf(float, texts.report, context, study.report.windows, job),
      };
      const setting = { model, tokenizer, context, float, calibration: texts.calibration, splits, options };
      const { runs, failed } = await runAll(items, setting, job);
      const record = finish(
        backend,
        { models: [fingerprint], data: Object.values(texts).map(plain) },
        { runs, failed, answers: answersOf(study.questions, runs), note: study.note },
      );
      await writeFileAtomic(join(options.out, "record.json"), json(record));
      const report = new TextEncoder().encode(compressionMarkdown(record));
      await writeFileAtomic(join(options.out, "report.md"), report);
      return record;
    } finally {
      await float.free();
    }
  } finally {
    backend.dispose();
  }
}

async function knownRun(place: string, identity: string): Promise<CompressionRun | undefined> {
  if ((await whatIs(place)) !== "file") return undefined;
  const run = (await readJson(place)) as CompressionRun;
  return run.identity === identity ? run : undefined;
}

/** Makes what is meant and not known yet. A candidate that is refused fails with all its seeds, and the others go on. */
async function runAll(
  items: readonly Item[],
  setting: Setting,
  job: Job,
): Promise<Pick<CompressionResult, "runs" | "failed">> {
  const { out, only } = setting.options;
  await makeFolder(paths().join(out, "runs"));
  const runs: CompressionRun[] = [];
  const failed = new Map<string, string>();
  for (const [done, item] of items.entries()) {
    const { candidate, seed, known, place } = item;
    if (known) runs.push(known);
    if (known || failed.has(candidate) || !chosen(candidate, only)) continue;
    const note = `${candidate}, seed ${seed}`;
    job.onProgress?.({ task: "study", done, total: items.length, unit: "models", note });
    try {
      const run = await runOne(item, setting, job);
      runs.push(run);
      await writeFileAtomic(place, json(run));
    } catch (error) {
      if (!(error instanceof InputError)) throw error;
      failed.set(candidate, error.message);
    }
  }
  return { runs, failed: Array.from(failed, ([candidate, why]) => ({ candidate, why })) };
}

async function runOne(
  { candidate, seed, choices, identity }: Item,
  { model, tokenizer, context, float, calibration, splits, options }: Setting,
  { signal, onWarning }: Job,
): Promise<CompressionRun> {
  const output = paths().join(options.out, "models", `${fileName(candidate)}-s${seed}`);
  const { backend, threads } = options;
  const { name, text } = calibration;
  const started = performance.now();
  const { layers, split, bitsPerWeight, bytes } = await compress(
    { ...choices, backend, threads, seed, context, model, tokenizer, output, calibration: { name, text } },
    { signal, onWarning },
  );
  const seconds = (performance.now() - started) / 1000;
  const small = await load(output, float.backend, { tokenizer }, { signal });
  try {
    const measured = async ({ sequences, clusters }: Split): Promise<SplitResult> => {
      const found = await compare(float, small, sequences, { signal });
      const { klMean, sameTop1 } = found.divergence;
      const above = found.clusters.map(({ sum, count }, c) => ({ sum: sum - clusters[c].sum, count }));
      return { clusters: above, klMean, sameTop1 };
    };
    const made: { [description: string]: number } = {};
    for (const { format } of layers) made[format] = (made[format] ?? 0) + 1;
    return {
      candidate,
      seed,
      identity,
      bits: bitsPerWeight.linear,
      split,
      made,
      bytes: bytes.after,
      seconds,
      choose: await measured(splits.choose),
      report: await measured(splits.report),
    };
  } finally {
    await small.free();
    await remove(output);
  }
}

interface NamedText extends Fingerprint {
  readonly text: string;
  readonly files: readonly string[];
  readonly from: number;
}

async function textOf(
  { files, from, bytes }: z.output<typeof text>,
  own: (path: string) => string,
): Promise<NamedText> {
  const parts: string[] = [];
  for (const file of files) parts.push(decodeText(baseName(file), await readText(own(file))));
  const end = bytes === undefined ? undefined : from + bytes;
  const all = new TextEncoder().encode(parts.join("\n\n")).slice(from, end);
  const names = files.map(baseName);
  const range = from === 0 && bytes === undefined ? "" : `, ${all.byteLength} bytes from ${from}`;
  const text = new TextDecoder().decode(all);
  return { ...(await fingerprint(`${names.join(", ")}${range}`, all)), text, files: names, from };
}

function plain({ name, bytes, sha256 }: NamedText): Fingerprint {
  return { name, bytes, sha256 };
}

/** Throws an InputError where two roles have some text in common. */
function checkApart(texts: { readonly [role: string]: NamedText }): void {
  const roles = Object.entries(texts);
  for (const [i, [role, a]] of roles.entries()) {
    for (const [other, b] of roles.slice(i + 1)) {
      const common = a.files.find((file) => b.files.includes(file));
      const apart = a.from + a.bytes <= b.from || b.from + b.bytes <= a.from;
      const ranges = a.files.join() === b.files.join() && apart;
      if (common !== undefined && !ranges)
        throw new InputError(
          `study: ${common} is the text of ${role} and of ${other}; give each its own, or its own part`,
        );
    }
  }
}

/** Windows of a text, and the float model's losses on them. */
interface Split {
  readonly sequences: readonly Sequence[];
  readonly clusters: readonly Cluster[];
}

async function splitOf(
  float: Loaded,
  { text }: NamedText,
  context: number,
  count: number | undefined,
  job: Job,
): Promise<Split> {
  const { all } = await windows(text, float.tokenizer, context, context, job);
  const some = count === undefined ? all : spread(all.length, count).map((i) => all[i]);
  return { sequences: some, clusters: await losses(float, some, job) };
}

function fileName(candidate: string): string {
  return candidate.replace(/[^A-Za-z0-9._#-]+/g, "-");
}

function json(value: object): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(`${JSON.stringify(value)}\n`);
}
