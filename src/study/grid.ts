import { remove, whatIs } from "../files/disk.ts";
import { fs, paths } from "../files/node.ts";
import type { Job, Progress } from "../record/record.ts";
import { matchesPattern } from "../tensor/pattern.ts";
import { InputError } from "../tensor/tensor.ts";
import { type Recipe, type RecipeInput, readRecipe } from "../training/recipe.ts";
import { readYaml } from "../training/recipe-file.ts";
import { type Identity, identityOf, readJson } from "../training/run-folder.ts";
import { findSources, type Sources, vocabularyOf } from "../training/text.ts";
import type { BackendChoice } from "../verbs/load.ts";
import { type TrainResult, train } from "../verbs/train.ts";
import { learnTokenizer } from "./texts.ts";

/** One run of a grid: a recipe of `train`, and the name of its folder. */
export interface GridRun {
  readonly name: string;
  /** Its paths are absolute. */
  readonly recipe: RecipeInput;
  /** Size of a vocabulary whose tokenizer has not been made yet. */
  readonly vocabulary?: number;
}

/** A run as the folder of the grid holds it. */
export interface PlannedRun extends GridRun {
  /** The recipe with its defaults. */
  readonly full: Recipe;
  readonly folder: string;
  /** Undefined while the tokenizer that it is to use has not been made. */
  readonly identity?: Identity;
  /** `other`: the folder holds a run of another recipe or other data. */
  readonly state: "new" | "begun" | "finished" | "other";
  /** Tokens that it learns from; before the text is tokenized, a guess from its bytes. */
  readonly tokens: number;
  /** Floating-point operations of the whole run, as `operationsPerToken` counts them. */
  readonly operations: number;
  /** Time of its steps: what they took, or what they are likely to take. */
  readonly seconds: number;
}

export interface GridOptions extends BackendChoice {
  /** Folder of the grid; runs are folders of their names in `runs/`. */
  readonly out: string;
  /** Names of the runs that are meant, `*` for any text, several with commas; default: all. */
  readonly only?: string;
  /** Runs whose recipe or data changed begin anew; unless told they are refused. */
  readonly redo?: boolean;
}

/** Bytes of English text for one token of a small vocabulary; only for the time that is estimated before anything ran. */
const BYTES_PER_TOKEN = 3.3;
/** Operations a second of training on a laptop; only until a run of the grid has finished. */
const SPEED = 1.5e11;

/** Whether a name is one of the patterns of `only`. */
export function chosen(name: string, only: string | undefined): boolean {
  if (only === undefined) return true;
  return only.split(",").some((pattern) => matchesPattern(name, pattern.trim()));
}

/** Trainable numbers of a recipe's model: in its linear layers, and in embedding and head. Norms are left out, as Spectra does. */
export function parametersOf(model: Recipe["model"], vocabulary: number) {
  const { dim, layers, heads, kvHeads, ffn, tiedHead } = model;
  const attention = 2 * dim * dim + 2 * dim * ((dim / heads) * kvHeads);
  return {
    linear: layers * (attention + 3 * dim * ffn),
    others: (tiedHead ? 1 : 2) * vocabulary * dim,
  };
}

/**
 * Floating-point operations of training on one token: 6 for each weight that is
 * multiplied by (forward 2, backward 4), and of attention, over half of the context on average,
 * 6·context·dim a layer.
 */
function operationsPerToken({ model }: Recipe, vocabulary: number): number {
  const { linear } = parametersOf(model, vocabulary);
  return 6 * (linear + vocabulary * model.dim + model.layers * model.context * model.dim);
}

/**
 * Finds out what of a grid is done. Every recipe is checked before anything
 * runs; an InputError names the run. Runs of a grid that learn a tokenizer of
 * one size from one text share it: `shareTokenizers` makes it.
 */
export async function planGrid(
  runs: readonly GridRun[],
  { out, only }: Pick<GridOptions, "out" | "only">,
): Promise<PlannedRun[]> {
  const { join } = paths();
  const found = new Map<string, Sources>();
  const meant = runs.filter(({ name }) => chosen(name, only));
  if (meant.length === 0) {
    throw new InputError(
      `--only ${only}: no run is called so; there are ${runs
        .slice(0, 3)
        .map(({ name }) => name)
        .join(", ")}, …`,
    );
  }
  const read = meant.map((run) => ({ ...run, full: readRecipe(run.recipe, `run ${run.name}`) }));
  for (const { name, full } of read) {
    if (full.from !== undefined || full.loss.teacher !== undefined)
      throw new InputError(`run ${name}: a study's runs have neither from nor loss.teacher; leave them out`);
  }
  const planned: (Omit<PlannedRun, "seconds"> & { readonly result?: TrainResult })[] = [];
  for (const run of read) {
    const { name, recipe, full } = run;
    const folder = join(out, "runs", name);
    const { file } = full.data.tokenizer;
    const hasTokenizer = file === undefined || (await whatIs(file)) === "file";
    const data = { ...full.data, tokenizer: hasTokenizer ? full.data.tokenizer : { train: 1, sample: 1 } };
    const key = JSON.stringify(data);
    const sources = found.get(key) ?? (await findSources({ ...full, data }, "."));
    found.set(key, sources);
    const identity = hasTokenizer ? await identityOf(full, sources.data) : undefined;
    const { state, result } = await stateOf(folder, identity);
    const vocabulary = hasTokenizer ? await vocabularyOf(full, sources) : (run.vocabulary ?? 0);
    const perStep = full.batch * full.model.context;
    const guess = full.steps === undefined ? sources.trainingBytes / BYTES_PER_TOKEN : full.steps * perStep;
    const known = planned.find((p) => p.result && p.full.steps === undefined && full.steps === undefined);
    const tokens = result?.tokens ?? known?.tokens ?? guess;
    const operations = tokens * operationsPerToken(full, vocabulary);
    planned.push({ name, recipe, full, folder, identity, state, tokens, operations, result });
  }
  const times = planned.flatMap(({ result, full, operations }) =>
    result ? [{ family: full.family, operations, seconds: result.trainingSeconds }] : [],
  );
  const speed = (family: string): number => {
    const same = times.filter((time) => time.family === family);
    const seen = same.length > 0 ? same : times;
    const seconds = seen.reduce((sum, time) => sum + time.seconds, 0);
    return seconds > 0 ? seen.reduce((sum, time) => sum + time.operations, 0) / seconds : SPEED;
  };
  return planned.map(({ result, ...run }) => ({
    ...run,
    seconds: result?.trainingSeconds ?? run.operations / speed(run.full.family),
  }));
}

/**
 * What stands in a run's folder. A finished run is the same when its identity
 * is, or when the recipe beside it says the same as it is read today: a key
 * that recipes got later does not make finished runs strangers.
 */
async function stateOf(
  folder: string,
  identity: Identity | undefined,
): Promise<{ state: PlannedRun["state"]; result?: TrainResult }> {
  const { join } = paths();
  const read = async (name: string) => {
    const path = join(folder, name);
    return (await whatIs(path)) === "file" ? readJson(path) : undefined;
  };
  const begun = (await read(join("work", "run.json"))) as Identity | undefined;
  const finished = (await read("record.json")) as (TrainResult & { readonly verb?: string }) | undefined;
  if (!begun && !finished) return { state: "new" };
  if (!identity) return { state: "other" };
  const same = (other: Identity | undefined) =>
    other?.recipe === identity.recipe && other.data === identity.data;
  if (begun) return { state: same(begun) ? "begun" : "other" };
  if (finished!.verb !== "train" || !finished!.identity) return { state: "other" };
  if (same(finished!.identity)) return { state: "finished", result: finished };
  const kept = join(folder, "recipe.yaml");
  if ((await whatIs(kept)) !== "file" || finished!.identity.data !== identity.data) return { state: "other" };
  const again = await identityOf(readRecipe(await readYaml(kept), kept), []);
  return again.recipe === identity.recipe ? { state: "finished", result: finished } : { state: "other" };
}

/**
 * The same runs with one tokenized text for all, in `OUT/tokens`, and the path of one tokenizer in place of learning one
 * each, `OUT/tokenizer/tokenizer.json`. All recipes that learn one must agree on text and size.
 */
export function withSharedTokenizer(runs: readonly GridRun[], out: string): GridRun[] {
  const { join } = paths();
  const file = join(out, "tokenizer", "tokenizer.json");
  return runs.map(({ name, recipe }) => {
    const vocabulary = recipe.data.tokenizer?.train;
    const data = { ...recipe.data, cache: recipe.data.cache ?? join(out, "tokens") };
    if (vocabulary === undefined) return { name, recipe: { ...recipe, data } };
    return { name, recipe: { ...recipe, data: { ...data, tokenizer: { file } } }, vocabulary };
  });
}

/** Makes the tokenizer of `withSharedTokenizer`, unless it is there: the same that each run would have learned. */
export async function shareTokenizer(runs: readonly GridRun[], out: string, job: Job): Promise<void> {
  const learning = runs
    .map(({ recipe }) => recipe.data)
    .filter(({ tokenizer }) => tokenizer?.train !== undefined);
  if (learning.length === 0) return;
  const [first] = learning;
  if (learning.some((data) => JSON.stringify(data) !== JSON.stringify(first))) {
    throw new InputError(
      "study: its runs learn tokenizers of different texts or sizes; give data.tokenizer.file",
    );
  }
  const run = runs.find(({ recipe }) => recipe.data === first)!;
  await learnTokenizer(readRecipe(run.recipe, `run ${run.name}`), paths().join(out, "tokenizer"), job);
}

/**
 * Trains what is left of a planned grid, one run after another, each in its
 * folder, from where it stands. Progress is that of the whole grid. Refuses
 * before it begins when a folder holds another run, unless told to `redo`.
 */
export async function runGrid(
  planned: readonly PlannedRun[],
  { backend, threads, redo = false }: GridOptions,
  job: Job = {},
): Promise<void> {
  const other = planned.find(({ state }) => state === "other");
  if (other && !redo) {
    throw new InputError(
      `${other.name}: ${other.folder} holds a run of another recipe or other data; give --redo to train it anew, or choose another folder`,
    );
  }
  const left = planned.filter(({ state }) => state !== "finished");
  const total = left.reduce((sum, { operations }) => sum + operations, 0);
  let before = 0;
  for (const [i, { name, recipe, folder, state, operations }] of left.entries()) {
    job.signal?.throwIfAborted();
    if (state === "other") await remove(folder);
    await fs().mkdir(paths().dirname(folder), { recursive: true });
    let share = 0; // of the run: a hundredth is for measuring it at its end, and reading the text counts nothing
    const onProgress = ({ task, done, total: steps, note }: Progress) => {
      if (task === "train") share = (0.99 * done) / steps;
      job.onProgress?.({
        task: "study",
        done: (before + share * operations) / 1e12,
        total: total / 1e12,
        unit: "TFLOP",
        note: `${name} (${i + 1} of ${left.length}) ${task} ${done}/${steps}${note ? `, ${note}` : ""}`,
      });
    };
    await train({ recipe, out: folder, resume: true, backend, threads }, { ...job, onProgress });
    before += operations;
  }
}
