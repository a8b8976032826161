import { whatIs } from "../files/disk.ts";
import type { ModelFile } from "../files/index.ts";
import { openModel, ropeOrder, snapshotOf } from "../files/index.ts";
import { paths } from "../files/node.ts";
import { checkFinite, decodeWeight } from "../formats/index.ts";
import type { Tuned, TunedBase } from "../methods/method.ts";
import { describe } from "../models/index.ts";
import { llama } from "../models/llama.ts";
import type { Model, ModelConfig } from "../models/model.ts";
import { fingerprint } from "../record/make.ts";
import type { Fingerprint, Job } from "../record/record.ts";
import { type HostTensor, hostTensor, InputError, naming, sizeOf } from "../tensor/tensor.ts";
import type { Weight } from "../tensor/weight.ts";
import { tokenizerFrom } from "../tokenizers/index.ts";
import type { Tokenizer } from "../tokenizers/tokenizer.ts";
import { type Checkpoint, readState, STATE_FILE } from "./checkpoint.ts";
import { differences } from "./differences.ts";
import { modelOf } from "./model.ts";
import { type Recipe, tuningOf } from "./recipe.ts";
import { placed } from "./recipe-file.ts";
import { isChosen, type Trainer } from "./trainer.ts";
import type { Vocabulary } from "./vocabulary.ts";

/** The model that a run starts from. */
export interface Start {
  readonly file: ModelFile;
  readonly model: Model;
  /** What its training went on from there, where a snapshot kept it. */
  readonly state: Checkpoint | undefined;
  /** Hashes of the model, and of the state. */
  readonly fingerprints: readonly Fingerprint[];
}

/**
 * Opens what `from` of a recipe in folder `base` names; undefined when it
 * names nothing. An InputError lists what differs from the recipe's model.
 */
export async function openStart(recipe: Recipe, base: string, job: Job): Promise<Start | undefined> {
  const { from, keepOptimizer } = recipe;
  if (from === undefined) return undefined;
  const spec = placed(from, base);
  const file = await openModel(spec, job);
  try {
    const model = naming(file.name, () => describe(file.config));
    if (tuningOf(recipe)) checkTunable(file.name, model.config, recipe);
    else checkSizes(file.name, model.config, modelOf(recipe, model.config.vocabulary).config);
    const snapshot = await snapshotOf(spec);
    const path = snapshot && paths().join(snapshot.folder, STATE_FILE);
    const state = path !== undefined && (await whatIs(path)) === "file" ? await readState(path) : undefined;
    if (keepOptimizer && !state) {
      throw new InputError(
        `keepOptimizer: ${file.name} has no optimizer states; start from a snapshot of a recipe with snapshots.state, or leave it out`,
      );
    }
    return { file, model, state, fingerprints: await fingerprintsOf(file, state) };
  } catch (error) {
    await file.close();
    throw error;
  }
}

async function fingerprintsOf(file: ModelFile, state: Checkpoint | undefined): Promise<Fingerprint[]> {
  const model = { name: file.name, ...(await file.fingerprint()) };
  if (!state) return [model];
  // Parameters and moments by their own hashes: their file also says what made them.
  const hash = process.getBuiltinModule("node:crypto").createHash("sha256");
  let bytes = 0;
  for (const name of [...state.tensors.keys()].sort()) {
    const data = state.tensors.get(name)!;
    hash.update(name).update(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    bytes += data.byteLength;
  }
  return [model, { name: `${file.name} ${STATE_FILE}`, bytes, sha256: hash.digest("hex") }];
}

/** A tuned model keeps its config; its context may be shorter while it is tuned. */
function checkTunable(name: string, { context }: ModelConfig, { model }: Recipe): void {
  if (model.context <= context) return;
  throw new InputError(`model.context: ${model.context} is more than the ${context} of ${name}; lower it`);
}

/**
 * The context may be another one: no weight depends on it. Norms, relu² and roundings that a family adds to a model it
 * adds to the start's too; norms and relu² that the start has stay, roundings may change.
 */
function checkSizes(name: string, start: ModelConfig, own: ModelConfig): void {
  const sizes = ({
    context: _,
    ropePairing: __,
    activations: ___,
    cacheRounding: ____,
    ...rest
  }: ModelConfig) => ({
    ...rest,
    normEpsilon: Math.fround(rest.normEpsilon), // as GGUF keeps them
    ropeBase: Math.fround(rest.ropeBase),
  });
  const before = sizes(start);
  const now: { -readonly [Key in keyof typeof before]?: unknown } = sizes(own);
  for (const key of ["ffnActivation", "subNorm", "outputNorm"] as const) {
    if (before[key] === undefined) delete now[key];
  }
  const met = differences(before, now);
  if (met !== "") throw new InputError(`from: ${name} is another model than the recipe's: ${met}`);
}

/** Throws an InputError unless ids mean the same in both; an unknown tokenizer is a warning. */
export async function checkTokenizer(
  { file, model }: Start,
  { tokenizer, files }: Vocabulary,
  { onWarning }: Job,
): Promise<void> {
  const { vocabulary } = model.config;
  if (!file.tokenizer) {
    onWarning?.(`${file.name}: comes without a tokenizer; it is taken to be the recipe's`);
    if (vocabulary === tokenizer.vocabulary) return;
  } else if (vocabulary === tokenizer.vocabulary && sameIds(tokenizerFrom(file.tokenizer), tokenizer)) {
    return;
  }
  const hash = async (of: Vocabulary["files"]) =>
    of[0] === undefined ? "none" : (await fingerprint("", of[0].bytes.slice())).sha256.slice(0, 12);
  throw new InputError(
    `from: ${file.name} has another tokenizer than the recipe's: ${vocabulary} → ${tokenizer.vocabulary} ids, ` +
      `SHA-256 ${await hash(await file.tokenizerFiles())} → ${await hash(files)}; give its own with data.tokenizer.file`,
  );
}

function sameIds(a: Tokenizer, b: Tokenizer): boolean {
  if (a.vocabulary !== b.vocabulary) return false;
  for (let id = 0; id < a.vocabulary; id++) if (a.piece(id) !== b.piece(id)) return false;
  return true;
}

/**
 * The weights of the start in the order of heads that training uses, float32;
 * from a kept state what was trained, not what was stored. A norm that a
 * family adds starts with ones.
 */
export async function startWeights(
  { file, model, state }: Start,
  own: Model,
): Promise<Map<string, HostTensor>> {
  const weights = new Map<string, HostTensor>();
  const { headDim, ropePairing } = model.config;
  for (const { name, shape, role } of own.tensors) {
    const trained = state?.tensors.get(name);
    if (trained) {
      weights.set(name, hostTensor(shape, trained));
    } else if (file.source.has(name)) {
      const stored = await file.source.read(name);
      checkFinite(file.name, name, stored);
      const data = Float32Array.from(decodeWeight(stored).data);
      const turns = ropePairing === "neighbours" && /\.[qk]_proj\.weight$/.test(name);
      weights.set(name, hostTensor(shape, turns ? reordered(data, shape, headDim) : data));
    } else if (role === "norm") {
      weights.set(name, hostTensor(shape, new Float32Array(sizeOf(shape)).fill(1)));
    } else {
      throw new InputError(`from: ${file.name} has no tensor ${name}`);
    }
  }
  return weights;
}

/**
 * A start that is tuned: its weights as they are stored, and what its family trains of the linear matrices that the
 * recipe names, all of them unless told.
 */
export async function tunedStart(
  { file, model }: Start,
  recipe: Recipe,
  { signal }: Job,
): Promise<TunedStart> {
  const tuning = tuningOf(recipe)!;
  const weights = new Map<string, Weight>();
  const tuned = new Map<string, Tuned>();
  for (const { name, role } of model.tensors) {
    signal?.throwIfAborted();
    const weight = await file.source.read(name);
    checkFinite(file.name, name, weight);
    weights.set(name, weight);
    if (role === "linear" && (recipe.only === undefined || isChosen(name, recipe)))
      tuned.set(
        name,
        naming(file.name, () => tuning.tuned(weight, name)),
      );
  }
  if (recipe.only === undefined && [...tuned.values()].every(({ parameters }) => parameters.size === 0)) {
    throw new InputError(
      `${file.name}: its matrices have none of the parts that move (family ${recipe.family}); name other parts, or give a rank`,
    );
  }
  return { model: llama({ ...model.config, context: recipe.model.context }), stored: model, weights, tuned };
}

/** A stored model in its tuning. */
export interface TunedStart extends TunedBase {
  /** As it is trained, with the recipe's context. */
  readonly model: Model;
  /** As it is stored. */
  readonly stored: Model;
}

function reordered(data: Float32Array, [rows, cols]: readonly number[], headDim: number): Float32Array {
  const moved = new Float32Array(data.length);
  for (const [to, from] of ropeOrder(rows, headDim, "halves").entries()) {
    moved.set(data.subarray(from * cols, (from + 1) * cols), to * cols);
  }
  return moved;
}

/**
 * Brings a new trainer to the start's own parameters, where the same family
 * trained them, and with `keepOptimizer` to its optimizer's states.
 */
export function takeOver(trainer: Trainer, { state }: Start, { family, keepOptimizer }: Recipe): void {
  if (!state) return;
  if (state.family === family) trainer.restore(state.tensors, "parameters");
  if (keepOptimizer) trainer.restore(state.tensors, "moments");
}
