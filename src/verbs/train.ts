import { stringify } from "yaml";
import { readSnapshots, type SnapshotEntry, writeFileAtomic, writeModel } from "../files/index.ts";
import { paths } from "../files/node.ts";
import { startRecord } from "../record/make.ts";
import type { Job, Record } from "../record/record.ts";
import type { Reached } from "../training/checkpoint.ts";
import { modelFiles } from "../training/finish.ts";
import { checkFits, type MemoryPlan, roomFor } from "../training/memory-plan.ts";
import type { RecipeInput } from "../training/recipe.ts";
import { forRecord, openRecipe } from "../training/recipe-file.ts";
import { runTraining, type Trained } from "../training/run.ts";
import { closeRunFolder, contentsOf, type Identity, openRunFolder } from "../training/run-folder.ts";
import { openStart } from "../training/start.ts";
import { findSources, vocabularyOf } from "../training/text.ts";
import { type BackendChoice, backendFor } from "./load.ts";

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
  const sources = await findSources(recipe, base);
  const start = await openStart(recipe, base, job);
  try {
    const contents = await contentsOf(recipe, sources.data, start?.fingerprints);
    const { of: _, ...identity } = contents;
    const finish = startRecord("train", { recipe: forRecord(recipe) });
    const backend = await backendFor(options, job);
    try {
      const room = roomFor(backend, options.memory);
      const predicted = await checkFits(recipe, await vocabularyOf(recipe, sources), room);
      const folder = await openRunFolder(out, contents, resume);
      if (folder.finished) return folder.finished as Record<TrainResult>;
      await writeFileAtomic(join(out, "recipe.yaml"), new TextEncoder().encode(stringify(recipe)));
      const inputs = { models: start?.fingerprints, data: sources.data, seed: recipe.seed };
      const recordOf = <Result extends object>(result: Result) => finish(backend, inputs, result);
      const trained = await runTraining(recipe, { sources, folder, start, recordOf }, backend, job, reached);

      const { model, weights, vocabulary, peakBytes, ...results } = trained;
      const memory = { predicted, ...(peakBytes === undefined ? {} : { peak: peakBytes }) };
      const snapshots = await readSnapshots(out);
      const record = recordOf({ ...results, memory, snapshots, identity });
      const { config, generation, tokenizerFiles } = modelFiles(model, vocabulary);
      await writeModel(out, { config, into: "beside" }, [...weights], { tokenizerFiles, generation, record });
      reached?.("model written");
      await closeRunFolder(folder);
      return record;
    } finally {
      backend.dispose();
    }
  } finally {
    await start?.file.close();
  }
}
