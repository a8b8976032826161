import { stringify } from "yaml";
import type { Backend } from "../backends/backend.ts";
import { readSnapshots, type SnapshotEntry, writeFileAtomic, writeModel } from "../files/index.ts";
import { paths } from "../files/node.ts";
import { baseName, startRecord } from "../record/make.ts";
import type { Job, Record } from "../record/record.ts";
import { InputError, ShapeError, UnsupportedError } from "../tensor/tensor.ts";
import type { Reached } from "../training/checkpoint.ts";
import { modelFiles } from "../training/finish.ts";
import { readEvents, readLog } from "../training/log.ts";
import { checkFits, type MemoryPlan, roomFor } from "../training/memory-plan.ts";
import { type Recipe, type RecipeInput, roundingOf } from "../training/recipe.ts";
import { forRecord, openRecipe } from "../training/recipe-file.ts";
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
import { openStart } from "../training/start.ts";
import { findSources, vocabularyOf } from "../training/text.ts";
import { readWeightsLog } from "../training/weights-watch.ts";
import { type BackendChoice, backendFor, type Loaded, load } from "./load.ts";
import { countTeacher, teacherOf } from "./teacher.ts";

export interface TrainOptions extends BackendChoice {
  /** A recipe's YAML file; or a recipe itself, whose paths then start from the current folder. */
  readonly recipe: string | RecipeInput;
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
  const { recipe, base } = await openRecipe(options.recipe, options.set);
  const sources = await findSources(recipe, base, job);
  const teacherSpec = teacherOf(recipe, base);
  const { counted, fingerprint } = teacherSpec ? await countTeacher(teacherSpec, job) : {};
  const teachers = fingerprint ? [fingerprint] : [];
  const start = await openStart(recipe, base, job);
  let teacher: Loaded | undefined;
  let backend: Backend | undefined;
  let folder: (RunFolder & { readonly finished?: unknown }) | undefined;
  try {
    const contents = await contentsOf(recipe, [...sources.data, ...teachers], start?.fingerprints);
    const { of: _, ...identity } = contents;
    const finish = startRecord("train", { recipe: forRecord(recipe) });
    const opened = await backendFor(options, job);
    backend = opened;
    const room = roomFor(backend, options.memory);
    const predicted = await checkFits(recipe, await vocabularyOf(recipe, sources), room, counted);
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
      teacher: teacher && { running: teacher, tokenizer: teacher.tokenizer },
      openWriter: () => load(sources.writer!.spec, opened, {}, job),
      recordOf,
    };
    const trained = await runTraining(recipe, places, backend, job, reached);

    const { model, weights, vocabulary, peakBytes, ...results } = trained;
    const memory = { predicted, ...(peakBytes === undefined ? {} : { peak: peakBytes }) };
    const record = recordOf({ ...results, memory, snapshots: await readSnapshots(out), identity });
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
