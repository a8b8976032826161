import { stringify } from "yaml";
import type { Backend } from "../backends/backend.ts";
import { readSnapshots, type SnapshotEntry, writeFileAtomic, writeModel } from "../files/index.ts";
import { paths } from "../files/node.ts";
import { type StoredBits, storedBits } from "../models/stored.ts";
import { baseName, startRecord } from "../record/make.ts";
import type { Job, Record } from "../record/record.ts";
import { InputError, ShapeError, sizeOf, UnsupportedError } from "../tensor/tensor.ts";
import { bytesOf } from "../tensor/weight.ts";
import type { Reached } from "../training/checkpoint.ts";
import { modelFiles } from "../training/finish.ts";
import { readEvents, readLog } from "../training/log.ts";
import { checkFits, type MemoryPlan, roomFor } from "../training/memory-plan.ts";
import { type Recipe, type RecipeInput, roundingOf } from "../training/recipe.ts";
import { forRecord, openRecipe, type StoredModel } from "../training/recipe-file.ts";
import { trainingReport } from "../training/report.ts";
import { runTraining, type Trained } from "../training/run.ts";
import {
  abandonRunFolder,
  closeRunFolder,
  contentsOf,
  type Identity,
  openRunFolder,
  type RunFolder,
  unlockRunFolder,
} from "../training/run-folder.ts";
import { openStart, type TunedStart, tunedStart } from "../training/start.ts";
import { findSources, vocabularyOf } from "../training/text.ts";
import { readWeightsLog } from "../training/weights-watch.ts";
import { type BackendChoice, backendFor, type Loaded, load, openChecked } from "./load.ts";
import { countTeacher, teacherOf } from "./teacher.ts";

export interface TrainOptions extends BackendChoice {
  /** A recipe's YAML file; or a recipe itself, whose paths then start from the current folder. */
  readonly recipe: string | RecipeInput;
  /** A model that is stored already, which the recipe tunes: `lowbit tune`. */
  readonly stored?: StoredModel;
  /** Folder that becomes the model. */
  readonly out: string;
  /** Continue what stands in `out`; begins when nothing does. */
  readonly resume?: boolean;
  /** Overrides of the recipe: `schedule.peak=0.002`. */
  readonly set?: readonly string[];
  /** Bytes of memory that training may take; default: those of the machine. */
  readonly memory?: number;
}

export interface TrainResult extends Omit<Trained, "model" | "weights" | "vocabulary" | "peakBytes"> {
  /** Bytes: what was foreseen, and the most that tensors took since the run's last start, where the backend counts it. */
  readonly memory: { readonly predicted: MemoryPlan; readonly peak?: number };
  /** Of a stored model: numbers that were trained in its matrices, and what it takes with them. */
  readonly tuned?: { readonly parameters: number; readonly bitsPerWeight: StoredBits };
  /** Models that were kept on the way, `OUT@STEP`. */
  readonly snapshots: readonly SnapshotEntry[];
  readonly identity: Identity;
}

/**
 * Trains a model from a recipe into a Hugging Face folder with its log and its
 * recipe. Killed at any moment, it continues with `resume` to the same bits on
 * the same backend. `reached` is called between the steps of writing; tests
 * end the process there.
 */
export async function train(
  options: TrainOptions,
  job: Job = {},
  reached?: Reached,
): Promise<Record<TrainResult>> {
  const { join } = paths();
  const { out, resume = false } = options;
  job.signal?.throwIfAborted();
  const { recipe, base: place } = await openRecipe(options.recipe, options.set, options.stored);
  const sources = await findSources(recipe, place, job);
  const teacherSpec = teacherOf(recipe, place);
  const { counted, fingerprint } = teacherSpec ? await countTeacher(teacherSpec, job) : {};
  const teachers = fingerprint ? [fingerprint] : [];
  const start = await openStart(recipe, place, job);
  let teacher: Loaded | undefined;
  let backend: Backend | undefined;
  let folder: (RunFolder & { readonly finished?: unknown }) | undefined;
  try {
    const contents = await contentsOf(recipe, [...sources.data, ...teachers], start?.fingerprints);
    const { of: _, ...identity } = contents;
    const finish = startRecord(options.stored ? "tune" : "train", { recipe: forRecord(recipe) });
    const opened = await backendFor(options, job);
    backend = opened;
    const room = roomFor(backend, options.memory);
    const base = options.stored && start && (await tunedStart(start, recipe, job));
    const predicted = await checkFits(recipe, await vocabularyOf(recipe, sources), room, counted, base);
    folder = await openRunFolder(out, contents, resume);
    if (folder.finished) return folder.finished as Record<TrainResult>;
    await writeFileAtomic(join(out, "recipe.yaml"), new TextEncoder().encode(stringify(forRecord(recipe))));
    if (teacherSpec) teacher = await load(teacherSpec, backend, {}, job);
    const inputs = {
      models: [...(start?.fingerprints ?? []), ...teachers],
      data: sources.data,
      seed: recipe.seed,
    };
    const recordOf = <Result extends object>(result: Result) => finish(backend, inputs, result);
    const places = {
      sources,
      folder,
      start,
      base,
      teacher: teacher && { running: teacher, tokenizer: teacher.tokenizer },
      openWriter: () => load(sources.writer!.spec, opened, {}, job),
      recordOf,
    };
    const trained = await runTraining(recipe, places, backend, job, reached);

    const { model, weights, vocabulary, peakBytes, ...results } = trained;
    const memory = { predicted, ...(peakBytes === undefined ? {} : { peak: peakBytes }) };
    const record = recordOf({
      ...results,
      ...(base ? { tuned: tunedOf(base, weights) } : {}),
      memory,
      snapshots: await readSnapshots(out),
      identity,
    });
    const { config, generation, tokenizerFiles } = modelFiles(model, vocabulary, roundingOf(recipe)?.widths);
    await writeModel(out, { config, into: "beside" }, [...weights], { tokenizerFiles, generation, record });
    await writeFileAtomic(join(out, "report.html"), await reportOf(folder, record, recipe));
    reached?.("model written");
    await closeRunFolder(folder);
    return record;
  } catch (error) {
    if (folder && isBadInput(error)) await abandonRunFolder(folder);
    throw error;
  } finally {
    if (folder) await unlockRunFolder(folder);
    await teacher?.free();
    backend?.dispose();
    await start?.file.close();
  }
}

export interface TuneOptions extends Omit<TrainOptions, "stored"> {
  /** The model, in any format. */
  readonly model: string;
}

/**
 * Tunes a stored model from a recipe whose family says what moves (qlora, sqft): its matrices stay packed. Everything else is
 * as in `train`: checkpoints, `resume`, log, teacher; the recipe takes sizes and tokenizer from the model.
 */
export async function tune(
  { model: spec, ...options }: TuneOptions,
  job: Job = {},
  reached?: Reached,
): Promise<Record<TrainResult>> {
  const { file, model } = await openChecked(spec, {}, { ...job, onWarning: undefined });
  await file.close();
  const { context, dim, ffn, heads, kvHeads, layers, normEpsilon, ropeBase, tiedHead } = model.config;
  const sizes = { context, dim, ffn, heads, kvHeads, layers, normEpsilon, ropeBase, tiedHead };
  return train({ ...options, stored: { spec, sizes } }, job, reached);
}

function tunedOf({ stored, tuned }: TunedStart, weights: Trained["weights"]): TrainResult["tuned"] {
  const parameters = [...tuned.values()].flatMap((one) => [...one.parameters.values()]);
  return {
    parameters: parameters.reduce((sum, { shape }) => sum + sizeOf(shape), 0),
    bitsPerWeight: storedBits(stored.tensors, (name) => bytesOf(weights.get(name)!)),
  };
}

function isBadInput(error: unknown): boolean {
  return [InputError, ShapeError, UnsupportedError].some((kind) => error instanceof kind);
}

/** The page that shows how the run went. */
async function reportOf({ out, log }: RunFolder, record: Record<TrainResult>, recipe: Recipe) {
  const name = baseName(paths().resolve(out));
  const seen = {
    log: await readLog(log),
    events: await readEvents(log),
    ...(await readWeightsLog(out)),
    clip: recipe.optimizer.clip || undefined,
  };
  return new TextEncoder().encode(trainingReport(name, record, seen));
}
