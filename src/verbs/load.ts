import type { Backend } from "../backends/backend.ts";
import { type BackendName, openBackend } from "../backends/index.ts";
import { checkTensors, checkVocabulary, type ModelFile, openModel } from "../files/index.ts";
import { checkFinite } from "../formats/index.ts";
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

/** The tokenizer that came with a model or was given for it. */
export function tokenizerOf({ file, model }: Opened): Tokenizer {
  if (!file.tokenizer)
    throw new InputError(`${file.name}: comes without a tokenizer; give its file with --tokenizer`);
  const tokenizer = tokenizerFrom(file.tokenizer);
  checkVocabulary(file.name, model.config.vocabulary, tokenizer);
  return tokenizer;
}

/** Throws an UnsupportedError for weights that the backend's memory cannot hold, before any is read. */
function checkRoom({ name, source }: ModelFile, { tensors }: Model, backend: Backend): void {
  const needed = tensors.reduce((sum, tensor) => sum + source.bytes(tensor.name), 0);
  const { memoryBytes } = backend.limits;
  if (needed <= memoryBytes) return;
  const [needs, has] = [needed, memoryBytes].map((bytes) => `${(bytes / 2 ** 30).toFixed(1)} GiB`);
  throw new UnsupportedError(
    `${name}: its weights need ${needs}, the ${backend.name} backend has room for ${has}; ` +
      "use a model in a smaller format, or another backend",
  );
}

async function uploadAll(
  { file, model }: Opened,
  backend: Backend,
  { activations, cache, positions = model.config.context }: Omit<LoadOptions, "tokenizer">,
  job: Job,
): Promise<LoadedWeights> {
  checkRoom(file, model, backend);
  const weights = new Map<string, Tensor>();
  const bytes = new Map<string, number>();
  const rope = backend.upload(ropeTable(model.config, Math.min(positions, model.config.context)));
  const freeTensors = () => {
    for (const tensor of [...weights.values(), rope]) backend.free(tensor);
  };
  try {
    const pause = pauses(job);
    for (const [done, spec] of model.tensors.entries()) {
      await pause();
      job.onProgress?.({ task: "load", done, total: model.tensors.length, unit: "tensors", note: file.name });
      const weight = await file.source.read(spec.name);
      checkFinite(file.name, spec.name, weight);
      const read = naming(`${file.name}: tensor ${spec.name}`, () => forKernels(spec, weight));
      const multiplies = spec.role === "linear" || spec.name === model.headWeight;
      weights.set(spec.name, backend.upload(read, multiplies ? { activations } : {}));
      bytes.set(spec.name, "data" in read ? read.data.byteLength : bytesOf(read));
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
