import type { Backend } from "../backends/backend.ts";
import type { TensorSource } from "../files/file.ts";
import type { Format } from "../formats/format.ts";
import { checkFinite, decodeWeight, encodeWeight, formatByName } from "../formats/index.ts";
import type { Model, TensorSpec } from "../models/model.ts";
import { pauses } from "../record/pause.ts";
import type { Job } from "../record/record.ts";
import { hostTensor, InputError, type Matrix, matrix, type Tensor } from "../tensor/tensor.ts";
import { bitsByUse, bytesOf, describeWeight, type Weight } from "../tensor/weight.ts";
import type { Activations } from "./activations.ts";
import type { Compressor } from "./compressor.ts";
import { type Fisher, openFisher } from "./fisher.ts";
import { openFlow } from "./flow.ts";
import { slices } from "./slices.ts";
import { type TuningOptions, tuneBlock } from "./tune-block.ts";

/** A float model and where to compute. */
export interface Rounded {
  readonly model: Model;
  readonly source: TensorSource;
  readonly backend: Backend;
  /** What a person calls it, for errors. */
  readonly name: string;
}

/** How a model is made smaller. */
export interface RoundingPlan {
  /** Of the linear layers. */
  readonly linear: Compressor;
  /** Format of embedding and head, rounded to nearest. Without it they keep 16 bits: as they are, or f16. */
  readonly others?: Format;
  /** Token ids whose activations the method may see. */
  readonly calibration?: readonly Int32Array[];
  /** Inputs of a layer come through the layers before it in the same block already rounded: four passes a block, not one. */
  readonly trueSequential?: boolean;
  /** After each block the parts of its matrices are tuned, so that it gives what the float block gives. */
  readonly tuning?: TuningOptions;
  /** Activations beyond this many bytes go to a temporary file, and so do squared gradients. Default 1 GiB. */
  readonly activationBytes?: number;
}

/** One rounded matrix, for the record. */
export interface RoundedLayer {
  readonly name: string;
  readonly method: string;
  /** Of parts, what they are: `sum(scaleGroups(int8, codebook(f16)), lowRank(f16, f16))`. */
  readonly format: string;
  /** Stored bits per weight, scales and padding included. */
  readonly bits: number;
  /** The same by what is stored (codes, scales, codebooks, …). */
  readonly split: Readonly<Record<string, number>>;
  /** ‖(W−Ŵ)·X‖²/‖W·X‖² over the calibration tokens, or without them ‖W−Ŵ‖²/‖W‖². */
  readonly relativeError: number;
  readonly errorOf: "output" | "weights";
  /** Of a stack: bytes of each block, and the error with it and those before it. */
  readonly blocks?: readonly { readonly bytes: number; readonly error: number }[];
  /** ‖y − t‖²/‖t‖² of its block on held-out windows, before and after its parts were tuned. */
  readonly tuned?: { readonly before: number; readonly after: number; readonly epochs: number };
}

/** One tensor of the new model. */
export interface RoundedTensor {
  readonly name: string;
  readonly weight: Weight;
  /** Present when it was rounded by the plan. */
  readonly layer?: RoundedLayer;
}

/** The format that a tensor other than a linear layer's will have, known before anything is read; norms are f32. */
export function formatOf(
  { role, name }: TensorSpec,
  source: TensorSource,
  plan: Pick<RoundingPlan, "others">,
): Format {
  if (role === "norm") return formatByName("f32");
  if (plan.others) return plan.others;
  const stored = source.format(name);
  return formatByName(stored === "bf16" ? "bf16" : "f16");
}

/** Throws an InputError where the plan cannot be carried out, before any work is done. */
export function checkPlan({ model, source, name }: Rounded, plan: RoundingPlan): void {
  const { linear, calibration } = plan;
  if (linear.calibrated && !calibration?.length) {
    throw new InputError(`${linear.name}: needs calibration text; give some with --calibration, or use rtn`);
  }
  if (plan.tuning && (calibration?.length ?? 0) < 2) {
    throw new InputError(
      `tuning: needs at least 2 windows of calibration text, got ${calibration?.length ?? 0}; give text with --calibration`,
    );
  }
  for (const spec of model.tensors) {
    const [rows, cols] = spec.shape.length === 1 ? [1, spec.shape[0]] : spec.shape;
    within(`${name}: ${spec.name}`, () => {
      if (spec.role === "linear") linear.check({ rows, cols });
      else formatOf(spec, source, plan).parts(rows, cols);
    });
  }
  for (const ids of calibration ?? []) {
    if (ids.length === 0 || ids.length > model.config.context) {
      throw new InputError(
        `calibration: sequences must have 1 to ${model.config.context} tokens (the model's context), got ${ids.length}`,
      );
    }
  }
}

/**
 * Rounds a model block by block and gives its tensors as they are done, in
 * the order in which the work reaches them. In memory are at most one block's
 * weights, its Hessians and the calibration activations (or one sequence of
 * them). Activations flow through the blocks as they were rounded, so that a
 * block sees, and partly mends, what those before it have done.
 */
export async function* roundModel(
  input: Rounded,
  plan: RoundingPlan,
  job: Job = {},
): AsyncGenerator<RoundedTensor> {
  checkPlan(input, plan);
  const { calibration } = plan;
  const fisher = plan.linear.fisher ? await openFisher(input, calibration!, limitOf(plan), job) : undefined;
  try {
    const linear = await surveyed(input, plan, fisher, job);
    yield* blockByBlock(input, { ...plan, linear }, fisher, job);
  } finally {
    await fisher?.close();
  }
}

/** Bytes that each kind of what is kept for later may take in memory. */
function limitOf({ activationBytes = 2 ** 30 }: RoundingPlan): number {
  return activationBytes;
}

/** What compresses each matrix. Where that depends on them all, they are seen in float first, on a way of their own. */
async function surveyed(
  input: Rounded,
  plan: RoundingPlan,
  fisher: Fisher | undefined,
  job: Job,
): Promise<Compressor> {
  const survey = plan.linear.survey?.();
  if (!survey) return plan.linear;
  const observer: Compressor = {
    ...plan.linear,
    async compress(W, context) {
      await survey.see(W, context);
      return encodeWeight(formatByName("f32"), [W.rows, W.cols], W.data);
    },
  };
  const asSurvey: Job = { ...job, onProgress: (at) => job.onProgress?.({ ...at, task: "survey" }) };
  const way = blockByBlock(
    input,
    { ...plan, linear: observer, others: undefined, tuning: undefined },
    fisher,
    asSurvey,
  );
  while (!(await way.next()).done);
  return survey.choose();
}

async function* blockByBlock(
  input: Rounded,
  plan: RoundingPlan,
  fisher: Fisher | undefined,
  job: Job,
): AsyncGenerator<RoundedTensor> {
  const { model, source, backend, name } = input;
  const pause = pauses(job);
  const linears = model.tensors.filter(({ role }) => role === "linear").length;
  let done = 0;

  async function read(spec: TensorSpec): Promise<Weight> {
    await pause();
    const weight = await source.read(spec.name);
    checkFinite(name, spec.name, weight);
    return weight;
  }

  /** A tensor that is not a linear layer. */
  async function keep(spec: TensorSpec): Promise<RoundedTensor> {
    const stored = await read(spec);
    const format = formatOf(spec, source, plan);
    const rounded = spec.role !== "norm" && plan.others !== undefined;
    if (stored.expression.kind === "packed" && stored.expression.format === format.name && !rounded) {
      return { name: spec.name, weight: stored };
    }
    const W = decodeWeight(stored);
    const weight = within(`${name}: ${spec.name}`, () => encodeWeight(format, spec.shape, W.data));
    if (!rounded) return { name: spec.name, weight };
    const relativeError = weightError(W, decodeWeight(weight).data);
    const layer = { ...layerOf(spec, W, weight, "rtn"), relativeError, errorOf: "weights" as const };
    return { name: spec.name, weight, layer };
  }

  async function compress(spec: TensorSpec, W: Matrix, H?: Tensor): Promise<Weight> {
    job.onProgress?.({ task: "compress", done: done++, total: linears, unit: "matrices", note: spec.name });
    const context = { ...job, backend, name: spec.name, H, fisher: await fisher?.of(spec.name) };
    return withinAsync(`${name}: ${spec.name}`, () => plan.linear.compress(W, context));
  }

  /** A matrix with what was lost of it. */
  async function described(spec: TensorSpec, W: Matrix, weight: Weight, H?: Tensor): Promise<RoundedTensor> {
    const { linear } = plan;
    const errorOf = async (Ŵ: Float32Array) => (H ? outputError(backend, W, Ŵ, H, pause) : weightError(W, Ŵ));
    const { expression: e } = weight;
    const layer = {
      ...layerOf(spec, W, weight, linear.name),
      relativeError: await errorOf(decodeWeight(weight).data),
      errorOf: H ? ("output" as const) : ("weights" as const),
      ...(linear.stacked && e.kind === "sum" ? { blocks: await blocksOf(e.terms, errorOf) } : {}),
    };
    return { name: spec.name, weight, layer };
  }

  async function blocksOf(terms: readonly Weight[], errorOf: (Ŵ: Float32Array) => Promise<number>) {
    const blocks: { bytes: number; error: number }[] = [];
    let sum: Float32Array | undefined;
    for (const term of terms) {
      const { data } = decodeWeight(term);
      const before = sum;
      sum = before ? data.map((w, i) => w + before[i]) : data;
      blocks.push({ bytes: bytesOf(term), error: await errorOf(sum) });
    }
    return blocks;
  }

  async function floatsOf(spec: TensorSpec): Promise<Matrix> {
    return decodeWeight(await read(spec));
  }

  const flow = plan.calibration?.length
    ? await openFlow(input, plan.calibration, limitOf(plan), job)
    : undefined;
  try {
    for (const spec of model.tensors.filter(({ block }) => block === undefined)) {
      const kept = await keep(spec);
      yield kept;
      if (spec.role === "embedding") await flow?.embed(kept.name, kept.weight);
    }
    for (let i = 0; i < model.config.layers; i++) {
      const specs = model.tensors.filter(({ block }) => block === i);
      if (!flow) {
        for (const spec of specs) {
          if (spec.role !== "linear") yield await keep(spec);
          else {
            const W = await floatsOf(spec);
            yield await described(spec, W, await compress(spec, W));
          }
        }
        continue;
      }
      const block = new Map<string, Tensor>();
      const found: Tensor[] = [];
      let targets: Activations | undefined;
      try {
        for (const spec of specs) {
          if (spec.role === "linear") block.set(spec.name, uploadFloats(backend, spec, await read(spec)));
          else {
            const kept = await keep(spec);
            block.set(spec.name, uploadFloats(backend, spec, kept.weight));
            yield kept;
          }
        }
        if (plan.tuning) targets = await flow.outputs(i, block);
        const waiting = new Map(
          specs.filter(({ role }) => role === "linear").map((spec) => [spec.name, spec]),
        );
        const replace = (name: string, weight: Weight) => {
          backend.free(block.get(name)!);
          block.set(name, backend.upload(weight));
        };
        const compressed: { spec: TensorSpec; weight: Weight; H: Tensor }[] = [];
        while (waiting.size > 0) {
          const hessians = await flow.hessians(i, block, waiting, plan.trueSequential ? 1 : Infinity);
          found.push(...hessians.map(({ H }) => H));
          for (const { names, H } of hessians) {
            for (const linear of names) {
              const spec = waiting.get(linear)!;
              const floats = block.get(linear)!;
              const [rows, cols] = floats.shape;
              const W = matrix(rows, cols, (await backend.read(floats)) as Float32Array);
              const weight = await compress(spec, W, H);
              replace(linear, weight);
              waiting.delete(linear);
              if (plan.tuning) compressed.push({ spec, weight, H });
              else yield await described(spec, W, weight, H);
            }
          }
          if (!plan.tuning) for (const H of found.splice(0)) backend.free(H);
        }
        if (plan.tuning) {
          const lengths = plan.calibration!.map(({ length }) => length);
          const { matrices, ...tuned } = await tuneBlock(
            {
              model,
              backend,
              rope: flow.rope,
              i,
              matrices: new Map(compressed.map(({ spec, weight }) => [spec.name, weight])),
              others: block,
            },
            { lengths, input: flow.input, output: (j) => targets!.read(j) },
            plan.tuning,
            job,
          );
          for (const { spec, H } of compressed) {
            const weight = matrices.get(spec.name)!;
            replace(spec.name, weight);
            const { layer, ...tensor } = await described(spec, await floatsOf(spec), weight, H);
            yield { ...tensor, layer: { ...layer!, tuned } };
          }
        }
        if (i + 1 < model.config.layers) await flow.advance(i, block);
      } finally {
        for (const tensor of [...block.values(), ...found]) backend.free(tensor);
        await targets?.close();
      }
    }
    job.onProgress?.({ task: "compress", done, total: linears, unit: "matrices" });
  } finally {
    await flow?.close();
  }
}

/** All tensors of a rounded model by name, and what became of each matrix: for models that fit into memory. */
export async function roundedModel(
  input: Rounded,
  plan: RoundingPlan,
  job: Job = {},
): Promise<{ weights: Map<string, Weight>; layers: RoundedLayer[] }> {
  const weights = new Map<string, Weight>();
  const layers: RoundedLayer[] = [];
  for await (const { name, weight, layer } of roundModel(input, plan, job)) {
    weights.set(name, weight);
    if (layer) layers.push(layer);
  }
  return { weights, layers };
}

/** Floats of a tensor on the backend, whatever it was stored as. */
function uploadFloats(backend: Backend, { shape }: TensorSpec, weight: Weight): Tensor {
  return backend.upload(hostTensor(shape, decodeWeight(weight).data));
}

/** ‖W−Ŵ‖²/‖W‖² */
function weightError(W: Matrix, Ŵ: Float32Array): number {
  let lost = 0;
  let all = 0;
  for (let i = 0; i < Ŵ.length; i++) {
    lost += (W.data[i] - Ŵ[i]) ** 2;
    all += W.data[i] ** 2;
  }
  return all === 0 ? 0 : lost / all;
}

/** What is known of a rounded matrix beside its error. */
function layerOf({ name }: TensorSpec, W: Matrix, weight: Weight, method: string) {
  const perWeight = (stored: number) => stored / W.data.length;
  const split = Object.entries(bitsByUse(weight)).map(([use, stored]) => [use, perWeight(stored)]);
  return {
    name,
    method,
    format: describeWeight(weight),
    bits: perWeight(8 * bytesOf(weight)),
    split: Object.fromEntries(split),
  };
}

/** ‖(W−Ŵ)·X‖²/‖W·X‖² = tr(D·H·Dᵀ)/tr(W·H·Wᵀ), D = W−Ŵ; 0 when no input reaches the layer. */
async function outputError(
  backend: Backend,
  W: Matrix,
  Ŵ: Float32Array,
  H: Tensor,
  pause: () => Promise<void>,
): Promise<number> {
  const D = new Float32Array(Ŵ.length);
  for (let i = 0; i < D.length; i++) D[i] = W.data[i] - Ŵ[i];
  const all = await energy(W.data);
  return all === 0 ? 0 : (await energy(D)) / all;

  async function energy(data: Float32Array): Promise<number> {
    let sum = 0;
    for (const [from, to] of slices(0, W.rows, W.cols * W.cols)) {
      const rows = data.subarray(from * W.cols, to * W.cols);
      const product = backend.scope(() =>
        backend.linear(backend.upload(hostTensor([to - from, W.cols], rows)), H),
      );
      const values = await backend.read(product);
      backend.free(product);
      for (let i = 0; i < rows.length; i++) sum += rows[i] * values[i];
      await pause();
    }
    return sum;
  }
}

/** Puts a tensor's name before the message of an InputError. */
function within<T>(where: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw named(where, error);
  }
}

async function withinAsync<T>(where: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw named(where, error);
  }
}

function named(where: string, error: unknown): unknown {
  return error instanceof InputError ? new InputError(`${where}: ${error.message}`) : error;
}
