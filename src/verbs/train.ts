import { stringify } from "yaml";
import { readSmall } from "../files/disk.ts";
import { writeFileAtomic, writeModel } from "../files/index.ts";
import { paths } from "../files/node.ts";
import { baseName, startRecord } from "../record/make.ts";
import type { Job, Record } from "../record/record.ts";
import type { Reached } from "../training/checkpoint.ts";
import { modelFiles } from "../training/finish.ts";
import { parseYaml, type Recipe, type RecipeInput, readRecipe } from "../training/recipe.ts";
import { runTraining, type Trained } from "../training/run.ts";
import {
  closeRunFolder,
  contentsOf,
  type Identity,
  identityOf,
  openRunFolder,
} from "../training/run-folder.ts";
import { openStart } from "../training/start.ts";
import { findSources } from "../training/text.ts";
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
}

export interface TrainResult
  extends Pick<Trained, "steps" | "tokens" | "tokensPerSecond" | "trainingSeconds" | "validation"> {
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
  const sources = await findSources(recipe, base);
  const start = await openStart(recipe, base, job);
  try {
    const contents = await contentsOf(recipe, sources.data, start?.fingerprints);
    const identity = identityOf(contents);
    const finish = startRecord("train", { recipe: forRecord(recipe) });
    const backend = await backendFor(options, job);
    try {
      const folder = await openRunFolder(out, contents, resume);
      if (folder.finished) return folder.finished as Record<TrainResult>;
      await writeFileAtomic(join(out, "recipe.yaml"), new TextEncoder().encode(stringify(recipe)));
      const inputs = { models: start?.fingerprints, data: sources.data, seed: recipe.seed };
      const recordOf = <Result extends object>(result: Result) => finish(backend, inputs, result);
      const trained = await runTraining(recipe, { sources, folder, start, recordOf }, backend, job, reached);

      const { model, weights, vocabulary, steps, tokens, tokensPerSecond, trainingSeconds, validation } =
        trained;
      const record = recordOf({ steps, tokens, tokensPerSecond, trainingSeconds, validation, identity });
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

/** A recipe without the paths of this machine. */
function forRecord({ from, ...recipe }: Recipe): object {
  return {
    ...recipe,
    ...(from === undefined ? {} : { from: baseName(from) }),
    data: { ...recipe.data, text: baseName(recipe.data.text) },
  };
}

async function readInput(recipe: string | RecipeInput, dirname: (path: string) => string) {
  if (typeof recipe !== "string") return { input: recipe, where: "recipe", base: "." };
  const where = baseName(recipe);
  const text = new TextDecoder().decode(await readSmall(recipe, LARGEST_RECIPE));
  return { input: parseYaml(text, where), where, base: dirname(recipe) };
}
