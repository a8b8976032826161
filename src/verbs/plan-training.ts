import type { Backend } from "../backends/backend.ts";
import { fs, paths } from "../files/node.ts";
import { bytesPerMatrix, formatByName } from "../formats/index.ts";
import { type StoredBits, storedBits } from "../models/stored.ts";
import { startRecord } from "../record/make.ts";
import type { Job, Record } from "../record/record.ts";
import { sizeOf } from "../tensor/tensor.ts";
import { BatchOrder, windowCount } from "../training/batches.ts";
import { checkFits, type MemoryPlan, roomFor } from "../training/memory-plan.ts";
import { modelOf } from "../training/model.ts";
import { windowsOf } from "../training/packing.ts";
import type { Recipe, RecipeInput } from "../training/recipe.ts";
import { forRecord, openRecipe } from "../training/recipe-file.ts";
import { findSources, openText, type Sources, vocabularyOf } from "../training/text.ts";
import { type Trial, tryTraining } from "../training/trial.ts";
import { type BackendChoice, backendFor, loadWeights } from "./load.ts";
import { countTeacher, teacherOf } from "./teacher.ts";

export interface PlanOptions extends BackendChoice {
  /** A recipe's YAML file; or a recipe itself, whose paths then start from the current folder. */
  readonly recipe: string | RecipeInput;
  /** Overrides of the recipe: `schedule.peak=0.002`. */
  readonly set?: readonly string[];
  /** Bytes of memory that training may take; default: those of the machine. */
  readonly memory?: number;
  /** Whether a few steps are taken to know the time; default: yes. */
  readonly trial?: boolean;
}

export interface PlanResult {
  /** By role, of the model; what a family trains beside its matrices counts in the memory only. */
  readonly parameters: {
    readonly total: number;
    readonly linear: number;
    readonly embedding: number;
    readonly head: number;
    readonly norm: number;
  };
  /** Of the model as it will be stored. */
  readonly bits: StoredBits;
  readonly storedBytes: number;
  /** Bytes; `available` is what there is. */
  readonly memory: MemoryPlan & { readonly available: number };
  readonly steps: number;
  readonly tokens: number;
  /** What a few steps took, and how long all would take so; without validation and checkpoints. */
  readonly trial?: Trial;
  readonly trainingSeconds?: number;
}

/**
 * What training by a recipe would take: parameters, bits, memory, steps and
 * time. Nothing is left on the disk. Throws an InputError, as training does,
 * for a recipe that does not fit in memory.
 */
export async function planTraining(options: PlanOptions, job: Job = {}): Promise<Record<PlanResult>> {
  job.signal?.throwIfAborted();
  const { recipe, base } = await openRecipe(options.recipe, options.set);
  const sources = await findSources(recipe, base, job);
  const finish = startRecord("train", { dryRun: true, recipe: forRecord(recipe) });
  const vocabulary = await vocabularyOf(recipe, sources);
  const teacherSpec = teacherOf(recipe, base);
  const { counted, fingerprint } = teacherSpec ? await countTeacher(teacherSpec, job) : {};
  const backend = await backendFor(options, job);
  try {
    const room = roomFor(backend, options.memory);
    const available = Math.min(room.backend, room.machine);
    const memory = { ...(await checkFits(recipe, vocabulary, room, counted)), available };
    const steps = recipe.steps ?? (await stepsOfOnePass(recipe, sources, job));
    const trial =
      options.trial === false ? undefined : await tried(recipe, vocabulary, backend, teacherSpec, job);
    return finish(
      backend,
      { models: fingerprint ? [fingerprint] : [], data: sources.data, seed: recipe.seed },
      {
        ...sizesOf(recipe, vocabulary),
        memory,
        steps,
        tokens: steps * recipe.batch * recipe.model.context,
        ...(trial ? { trial, trainingSeconds: steps * trial.secondsPerStep } : {}),
      },
    );
  } finally {
    backend.dispose();
  }
}

/** A trial beside its teacher, where there is one. */
async function tried(
  recipe: Recipe,
  vocabulary: number,
  backend: Backend,
  teacherSpec: string | undefined,
  job: Job,
): Promise<Trial> {
  const teacher = teacherSpec === undefined ? undefined : await loadWeights(teacherSpec, backend, {}, job);
  try {
    return await tryTraining(recipe, vocabulary, backend, teacher, job);
  } finally {
    await teacher?.free();
  }
}

function sizesOf(
  recipe: Recipe,
  vocabulary: number,
): Pick<PlanResult, "parameters" | "bits" | "storedBytes"> {
  const { tensors } = modelOf(recipe, vocabulary);
  const parameters = { total: 0, linear: 0, embedding: 0, head: 0, norm: 0 };
  const bytes = new Map<string, number>();
  for (const { name, shape, role } of tensors) {
    const weights = sizeOf(shape);
    parameters.total += weights;
    parameters[role] += weights;
    const cols = shape[shape.length - 1];
    const format = formatByName(role === "linear" ? recipe.formats.linear : recipe.formats.other);
    bytes.set(name, bytesPerMatrix(format, weights / cols, cols));
  }
  return {
    parameters,
    bits: storedBits(tensors, (name) => bytes.get(name)!),
    storedBytes: [...bytes.values()].reduce((sum, some) => sum + some, 0),
  };
}

/** Where a recipe leaves the steps open, the text is made into ids once, in a folder of its own; none is written. */
async function stepsOfOnePass(recipe: Recipe, sources: Sources, job: Job): Promise<number> {
  const { generate, heldOut } = recipe.data;
  if (generate) {
    // What is held out is chosen by hash: about that share of the ids.
    const windows = windowCount(
      Math.round(generate.tokens * ("share" in heldOut ? 1 - heldOut.share : 1)),
      recipe.model.context,
    );
    return new BatchOrder(recipe.seed, windows, recipe.batch).stepsPerPass;
  }
  const { tmpdir } = process.getBuiltinModule("node:os");
  const folder = await fs().mkdtemp(paths().join(tmpdir(), "lowbit-plan-"));
  try {
    const text = await openText(recipe, sources, folder, job);
    try {
      const windows = windowsOf(recipe.data.packing, text.training, recipe.model.context, recipe.seed);
      return new BatchOrder(recipe.seed, windows.count, recipe.batch).stepsPerPass;
    } finally {
      await text.close();
    }
  } finally {
    await fs().rm(folder, { recursive: true, force: true });
  }
}
