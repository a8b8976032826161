import type { Backend } from "../backends/backend.ts";
import { type BackendName, openBackend } from "../backends/index.ts";
import {
  checkTensors,
  checkVocabulary,
  headOver,
  type ModelFile,
  openDelta,
  openModel,
  overBase,
  type TensorSource,
} from "../files/index.ts";
import { checkFinite } from "../formats/index.ts";
import { compound } from "../kernels/compound.ts";
import { describe } from "../models/index.ts";
import type { CacheName } from "../models/kv-cache.ts";
import type { Model } from "../models/model.ts";
import { ropeTable } from "../models/rope-table.ts";
import type { Running } from "../models/run.ts";
import { forKernels } from "../models/stored.ts";
import { pauses } from "../record/pause.ts";
import type { Fingerprint, Job } from "../record/record.ts";
import { InputError, naming, type Tensor, UnsupportedError } from "../tensor/tensor.ts";
import { bytesOf } from "../tensor/weight.ts";
import { tokenizerFrom } from "../tokenizers/index.ts";
import type { Tokenizer } from "../tokenizers/tokenizer.ts";
import { differences } from "../training/differences.ts";

/** Where a verb computes. Default: the best backend that works here, on all threads. */
export interface BackendChoice {
  readonly backend?: BackendName;
  readonly threads?: number;
}

/** How a model's arithmetic is done. */
export interface RunChoice extends BackendChoice {
  /**
   * What packed matrices are multiplied by: float32, or activations rounded to bytes in groups (kernels/linear.ts), which is
   * several times as fast. Matrices of floats are always multiplied by float32.
   */
  readonly activations?: "float" | "int8";
  /** How keys and values are kept. */
  readonly cache?: CacheName;
}

/** How models run when text is made, unless told. */
export const FAST = { activations: "int8", cache: "f16" } as const satisfies RunChoice;

/** Options with these filled in. */
export function fast<Options extends RunChoice>(options: Options) {
  const { activations = FAST.activations, cache = FAST.cache } = options;
  return { ...options, activations, cache };
}

/** What loading a model depends on. */
export interface LoadOptions extends Pick<RunChoice, "activations" | "cache"> {
  readonly tokenizer?: string;
  /** Positions at which the model can be run: all of its context unless told. */
  readonly positions?: number;
}

/** A model by name, as commands take it, or one that is open already; who is given that one closes it. */
export type ModelSpec = string | ModelFile;

/** Opens the backend that a verb's options ask for; what is used in place of another is a warning of its job. */
export function backendFor({ backend, threads }: BackendChoice, { onWarning }: Job): Promise<Backend> {
  return openBackend({ backend, threads, onWarning });
}

/** A model read from a file, with its weights on a backend. Free it when done. */
export interface LoadedWeights extends Running {
  readonly file: ModelFile;
  /** Bytes of each weight as the kernels read it. */
  readonly bytes: ReadonlyMap<string, number>;
  fingerprint(): Promise<Fingerprint>;
  /** Frees the weights and closes the file; the backend stays. */
  free(): Promise<void>;
}

/** The same with its tokenizer. */
export interface Loaded extends LoadedWeights {
  readonly tokenizer: Tokenizer;
}

/** A model's file, opened and found to hold every tensor that its config asks for. */
export interface Opened {
  readonly file: ModelFile;
  readonly model: Model;
}

/**
 * Opens a model and checks names and shapes against its config; reads headers
 * only, after downloading a model of the hub, which the job's signal stops.
 */
export async function openChecked(
  spec: ModelSpec,
  { tokenizer }: { readonly tokenizer?: string } = {},
  { signal, onProgress, onWarning }: Job = {},
): Promise<Opened> {
  signal?.throwIfAborted();
  const file =
    typeof spec === "string" ? await openModel(spec, { tokenizer, signal, onProgress, onWarning }) : spec;
  try {
    const model = naming(file.name, () => describe(file.config));
    checkTensors(file.name, file.source, model.tensors);
    return { file, model };
  } catch (error) {
    await file.close();
    throw error;
  }
}

/**
 * Reads a model and its tokenizer. Throws an InputError as `loadWeights` does,
 * and for no tokenizer, or one that is smaller than the model's vocabulary.
 */
export async function load(
  spec: ModelSpec,
  backend: Backend,
  options: LoadOptions = {},
  job: Job = {},
): Promise<Loaded> {
  const opened = await openChecked(spec, options, job);
  try {
    const tokenizer = tokenizerOf(opened);
    return { ...(await uploadAll(opened, backend, options, job)), tokenizer };
  } catch (error) {
    await opened.file.close();
    throw error;
  }
}

/**
 * Reads a model onto a backend, one tensor at a time. Throws an InputError for
 * a missing tensor or one of another shape, and for NaN or infinity in the weights.
 */
export async function loadWeights(
  spec: ModelSpec,
  backend: Backend,
  options: Pick<RunChoice, "activations" | "cache"> = {},
  job: Job = {},
): Promise<LoadedWeights> {
  const opened = await openChecked(spec, {}, job);
  try {
    return await uploadAll(opened, backend, options, job);
  } catch (error) {
    await opened.file.close();
    throw error;
  }
}

/**
 * A fine-tuned model over a base that is loaded already: it shares the base's tensors, and only what its delta holds is
 * read and put beside them, so that many of them take little more memory than one. Free it before its base. `spec` is
 * the delta's folder. Throws an InputError for a delta over another base, and for a model of another shape.
 */
export async function loadDelta(
  base: Loaded,
  spec: string,
  options: LoadOptions = {},
  job: Job = {},
): Promise<Loaded> {
  const delta = await openDelta(spec, job);
  try {
    const { added } = await headOver(delta, base.file);
    const file = { ...(await overBase(base.file, delta)), close: () => delta.close() };
    const model = naming(file.name, () => describe(file.config));
    checkTensors(file.name, file.source, model.tensors);
    const met = differences(base.model.config, model.config);
    if (met !== "") throw new InputError(`${file.name}: the delta's config is not its base's: ${met}`);
    const opened = { file, model };
    const tokenizer = tokenizerOf(opened);
    const over = { base, delta, added };
    return { ...(await uploadAll(opened, base.backend, options, job, over)), tokenizer };
  } catch (error) {
    await delta.close();
    throw error;
  }
}

/** The tokenizer that came with a model or was given for it. */
export function tokenizerOf({ file, model }: Opened): Tokenizer {
  if (!file.tokenizer)
    throw new InputError(`${file.name}: comes without a tokenizer; give its file with --tokenizer`);
  const tokenizer = tokenizerFrom(file.tokenizer);
  checkVocabulary(file.name, model.config.vocabulary, tokenizer);
  return tokenizer;
}

/** Throws an UnsupportedError for weights that the backend's memory cannot hold, before any is read. */
function checkRoom({ name }: ModelFile, source: TensorSource, { tensors }: Model, backend: Backend): void {
  const needed = tensors.reduce(
    (sum, tensor) => sum + (source.has(tensor.name) ? source.bytes(tensor.name) : 0),
    0,
  );
  const { memoryBytes } = backend.limits;
  if (needed <= memoryBytes) return;
  const [needs, has] = [needed, memoryBytes].map((bytes) => `${(bytes / 2 ** 30).toFixed(1)} GiB`);
  throw new UnsupportedError(
    `${name}: its weights need ${needs}, the ${backend.name} backend has room for ${has}; ` +
      "use a model in a smaller format, or another backend",
  );
}

/** A base on the backend, and what is put over it. */
interface OverBase {
  readonly base: LoadedWeights;
  readonly delta: ModelFile;
  readonly added: ReadonlySet<string>;
}

async function uploadAll(
  { file, model }: Opened,
  backend: Backend,
  { activations, cache, positions = model.config.context }: Omit<LoadOptions, "tokenizer">,
  job: Job,
  over?: OverBase,
): Promise<LoadedWeights> {
  const source = over?.delta.source ?? file.source;
  checkRoom(file, source, model, backend);
  const weights = new Map<string, Tensor>();
  const bytes = new Map<string, number>();
  const rope = backend.upload(ropeTable(model.config, Math.min(positions, model.config.context)));
  const own: Tensor[] = [rope];
  const freeTensors = () => {
    for (const tensor of own) backend.free(tensor);
  };
  try {
    const pause = pauses(job);
    for (const [done, spec] of model.tensors.entries()) {
      await pause();
      job.onProgress?.({ task: "load", done, total: model.tensors.length, unit: "tensors", note: file.name });
      const shared = over && !source.has(spec.name) ? over.base : undefined;
      if (shared) {
        weights.set(spec.name, shared.weights.get(spec.name)!);
        bytes.set(spec.name, shared.bytes.get(spec.name)!);
        continue;
      }
      // What is added to a matrix that kernels cannot read in parts comes as the whole sum.
      const beside = over?.added.has(spec.name) && spec.role === "linear" ? over.base : undefined;
      const weight = await (beside ? source : file.source).read(spec.name);
      checkFinite(file.name, spec.name, weight);
      const read = naming(`${file.name}: tensor ${spec.name}`, () => forKernels(spec, weight));
      const multiplies = spec.role === "linear" || spec.name === model.headWeight;
      const tensor = backend.upload(read, multiplies ? { activations } : {});
      own.push(tensor);
      const terms = beside && [beside.weights.get(spec.name)!, tensor];
      weights.set(spec.name, terms ? compound(spec.shape, { kind: "sum", terms }) : tensor);
      const size = "data" in read ? read.data.byteLength : bytesOf(read);
      bytes.set(spec.name, size + (beside?.bytes.get(spec.name) ?? 0));
    }
  } catch (error) {
    freeTensors();
    throw error;
  }
  return {
    file,
    model,
    backend,
    weights,
    bytes,
    rope,
    ...(cache === undefined ? {} : { cache }),
    fingerprint: async () => ({ name: file.name, ...(await file.fingerprint()) }),
    free: async () => {
      freeTensors();
      await file.close();
    },
  };
}
