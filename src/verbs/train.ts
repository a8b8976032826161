import { stringify } from "yaml";
import { readSmall } from "../files/disk.ts";
import { writeFileAtomic, writeModel } from "../files/index.ts";
import { paths } from "../files/node.ts";
import { baseName, startRecord } from "../record/make.ts";
import type { Fingerprint, Job, Record } from "../record/record.ts";
import type { Reached } from "../training/checkpoint.ts";
import { modelFiles } from "../training/finish.ts";
import { readLog } from "../training/log.ts";
import { parseYaml, type Recipe, type RecipeInput, readRecipe } from "../training/recipe.ts";
import { trainingReport } from "../training/report.ts";
import { runTraining, type Trained } from "../training/run.ts";
import {
  closeRunFolder,
  type Identity,
  identityOf,
  openRunFolder,
  type RunFolder,
} from "../training/run-folder.ts";
import { findSources } from "../training/text.ts";
import { readWeightsLog } from "../training/weights-watch.ts";
import { type BackendChoice, backendFor, type Loaded, load, openChecked } from "./load.ts";

export interface TrainOptions extends BackendChoice {
  /** A recipe's YAML file; or a recipe itself, whose paths then start from the current folder. */
  readonly recipe: string | RecipeInput;
  /** Folder that becomes the model. */
  readonly out: string;
  /** Continue what stands in `out`; begins when nothing does. */
  readonly resume?: boolean;
  /** Overrides of the recipe: `schedule.peak=0.002`. */
  readonly set?: readonly string[];
}

export interface TrainResult
  extends Pick<
    Trained,
    "steps" | "tokens" | "tokensPerSecond" | "trainingSeconds" | "optimizer" | "validation"
  > {
  readonly identity: Identity;
}

/** A recipe longer than this is not one. */
const LARGEST_RECIPE = 1 << 20;

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
  const { join, dirname } = paths();
  const { out, resume = false, set = [] } = options;
  job.signal?.throwIfAborted();
  const { input, where, base } = await readInput(options.recipe, dirname);
  const recipe = readRecipe(input, where, set);
  const sources = await findSources(recipe, base, job);
  const teacherSpec = recipe.loss.teacher && modelFrom(recipe.loss.teacher, base);
  const models = teacherSpec ? [await fingerprintOf(teacherSpec, job)] : [];
  const identity = await identityOf(recipe, [...sources.data, ...models]);
  const { cache: _, ...data } = recipe.data;
  const finish = startRecord("train", {
    recipe: { ...recipe, data: { ...data, text: baseName(data.text) } },
  });

  const backend = await backendFor(options, job);
  let teacher: Loaded | undefined;
  try {
    const folder = await openRunFolder(out, identity, resume);
    if (folder.finished) return folder.finished as Record<TrainResult>;
    await writeFileAtomic(join(out, "recipe.yaml"), new TextEncoder().encode(stringify(recipe)));
    if (teacherSpec) teacher = await load(teacherSpec, backend, {}, job);
    const recordOf = <Result extends object>(result: Result) =>
      finish(backend, { models, data: sources.data, seed: recipe.seed }, result);
    const trained = await runTraining(recipe, sources, folder, backend, job, recordOf, reached, {
      teacher: teacher && { running: teacher, tokenizer: teacher.tokenizer },
    });

    const { model, weights, vocabulary, ...result } = trained;
    const record = recordOf({ ...result, identity });
    const { config, generation, tokenizerFiles } = modelFiles(model, vocabulary);
    await writeModel(out, { config, into: "beside" }, [...weights], { tokenizerFiles, generation, record });
    await writeFileAtomic(join(out, "report.html"), await reportOf(folder, record, recipe));
    reached?.("model written");
    await closeRunFolder(folder);
    return record;
  } finally {
    await teacher?.free();
    backend.dispose();
  }
}

async function fingerprintOf(spec: string, job: Job): Promise<Fingerprint> {
  const { file } = await openChecked(spec, {}, job);
  try {
    return { name: file.name, ...(await file.fingerprint()) };
  } finally {
    await file.close();
  }
}

/** A model that a recipe names: of the bundle or the hub as it is, a path from the recipe's folder. */
function modelFrom(spec: string, base: string): string {
  const { isAbsolute, join } = paths();
  return /^(bundled|hf):/.test(spec) || isAbsolute(spec) ? spec : join(base, spec);
}

/** The page that shows how the run went. */
async function reportOf({ out, log }: RunFolder, record: Record<TrainResult>, recipe: Recipe) {
  const name = baseName(paths().resolve(out));
  const seen = {
    log: await readLog(log),
    ...(await readWeightsLog(out)),
    clip: recipe.optimizer.clip || undefined,
  };
  return new TextEncoder().encode(trainingReport(name, record, seen));
}

async function readInput(recipe: string | RecipeInput, dirname: (path: string) => string) {
  if (typeof recipe !== "string") return { input: recipe, where: "recipe", base: "." };
  const where = baseName(recipe);
  const text = new TextDecoder().decode(await readSmall(recipe, LARGEST_RECIPE));
  return { input: parseYaml(text, where), where, base: dirname(recipe) };
}
