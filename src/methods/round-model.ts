import type { Backend } from "../backends/backend.ts";
import type { TensorSource } from "../files/file.ts";
import type { Format } from "../formats/format.ts";
import { checkFinite, decodeWeight, encodeWeight, formatByName } from "../formats/index.ts";
import type { Model, TensorSpec } from "../models/model.ts";
import { pauses } from "../record/pause.ts";
import type { Job } from "../record/record.ts";
import { hostTensor, InputError, type Matrix, matrix, type Tensor } from "../tensor/tensor.ts";
import type { Weight } from "../tensor/weight.ts";
import type { Compressor } from "./compressor.ts";
import { drawnOnce } from "./drawn-once.ts";
import { type Fisher, openFisher } from "./fisher.ts";
import { type Flow, type Hessian, openFlow } from "./flow.ts";
import type { Context } from "./method.ts";
import { type RoundedLayer, roundedLayer } from "./rounded-layer.ts";
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
  /** Where finished matrices stay, so that an interrupted run goes on where it was, to the same bits. */
  readonly kept?: Kept;
}

/** Matrices that an earlier run of the same plan has finished, and a place for those that this one does. */
export interface Kept {
  /** As it was given to `put`; undefined where there is none. */
  get(name: string): Promise<{ readonly weight: Weight; readonly layer: RoundedLayer } | undefined>;
  put(name: string, weight: Weight, layer: RoundedLayer): Promise<void>;
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
  linear.checkAll?.(model.tensors.filter(isLinear).map(({ shape: [rows, cols] }) => ({ rows, cols })));
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

/** What compresses each matrix. Where that depends on them all, they are seen in float first, on ways of their own. */
async function surveyed(
  input: Rounded,
  plan: RoundingPlan,
  fisher: Fisher | undefined,
  job: Job,
): Promise<Compressor> {
  let { linear } = plan;
  while (linear.survey) {
    const survey = linear.survey();
    const observer: Compressor = {
      ...linear,
      async compress(W, context) {
        await survey.see(W, context);
        return encodeWeight(formatByName("f32"), [W.rows, W.cols], W.data);
      },
    };
    const asSurvey: Job = { ...job, onProgress: (at) => job.onProgress?.({ ...at, task: "survey" }) };
    const way = blockByBlock(
      input,
      { ...plan, linear: observer, others: undefined, tuning: undefined, kept: undefined },
      fisher,
      asSurvey,
    );
    while (!(await way.next()).done);
    linear = await survey.choose();
  }
  return linear;
}

async function* blockByBlock(
  input: Rounded,
  plan: RoundingPlan,
  fisher: Fisher | undefined,
  job: Job,
): AsyncGenerator<RoundedTensor> {
  const { model } = input;
  const steps = stepsOf(input, plan, fisher, job);
  const flow = plan.calibration?.length
    ? await openFlow(input, plan.calibration, limitOf(plan), job)
    : undefined;
  try {
    for (const spec of model.tensors.filter(({ block }) => block === undefined)) {
      const other = await steps.other(spec);
      yield other;
      if (spec.role === "embedding") await flow?.embed(other.name, other.weight);
    }
    for (let i = 0; i < model.config.layers; i++) {
      const specs = model.tensors.filter(({ block }) => block === i);
      yield* flow ? calibratedBlock({ input, plan, job, steps, flow }, i, specs) : plainBlock(steps, specs);
    }
    steps.progress();
  } finally {
    await flow?.close();
  }
}

/** What is done to one tensor at a time. */
interface Steps {
  /** Floats of a stored tensor. */
  floats(spec: TensorSpec): Promise<Matrix>;
  /** A tensor that is not a linear layer. */
  other(spec: TensorSpec): Promise<RoundedTensor>;
  /** A matrix that an earlier run has finished. */
  kept(spec: TensorSpec): Promise<FinishedMatrix | undefined>;
  compress(spec: TensorSpec, W: Matrix, H?: Tensor): Promise<Weight>;
  /** Describes a matrix and keeps it for a later run. */
  finish(
    spec: TensorSpec,
    W: Matrix,
    weight: Weight,
    more?: { readonly H?: Tensor; readonly tuned?: RoundedLayer["tuned"] },
  ): Promise<FinishedMatrix>;
  /** Says how many matrices were begun; `counted` more are from now on. */
  progress(counted?: number, note?: string): void;
}

type FinishedMatrix = Required<RoundedTensor>;

function stepsOf(
  { model, source, backend, name }: Rounded,
  plan: RoundingPlan,
  fisher: Fisher | undefined,
  job: Job,
): Steps {
  const pause = pauses(job);
  const { linear } = plan;
  const total = model.tensors.filter(isLinear).length;
  const compared = new Map<string, Pick<RoundedLayer, "tried" | "left">>();
  let done = 0;

  async function read(spec: TensorSpec): Promise<Weight> {
    await pause();
    const weight = await source.read(spec.name);
    checkFinite(name, spec.name, weight);
    return weight;
  }

  const steps: Steps = {
    floats: async (spec) => decodeWeight(await read(spec)),

    async other(spec) {
      const stored = await read(spec);
      const format = formatOf(spec, source, plan);
      const rounded = spec.role !== "norm" && plan.others !== undefined;
      if (stored.expression.kind === "packed" && stored.expression.format === format.name && !rounded) {
        return { name: spec.name, weight: stored };
      }
      const W = decodeWeight(stored);
      const weight = within(`${name}: ${spec.name}`, () => encodeWeight(format, spec.shape, W.data));
      if (!rounded) return { name: spec.name, weight };
      const layer = await roundedLayer(backend, { name: spec.name, W, weight, method: "rtn" }, job);
      return { name: spec.name, weight, layer };
    },

    async kept(spec) {
      const found = await plan.kept?.get(spec.name);
      return found && { name: spec.name, ...found };
    },

    async compress(spec, W, H) {
      steps.progress(1, spec.name);
      const context: Context = {
        ...job,
        backend,
        name: spec.name,
        H,
        stored: () => read(spec),
        fisher: await fisher?.of(spec.name),
        tried: (tried, left) => compared.set(spec.name, left.length === 0 ? { tried } : { tried, left }),
      };
      return withinAsync(`${name}: ${spec.name}`, () => linear.compress(W, context));
    },

    async finish(spec, W, weight, { H, tuned } = {}) {
      const described = {
        name: spec.name,
        W,
        weight,
        method: linear.name,
        stacked: linear.stacked !== undefined,
        H,
      };
      const layer = {
        ...(await roundedLayer(backend, described, job)),
        ...compared.get(spec.name),
        ...(tuned === undefined ? {} : { tuned }),
      };
      await plan.kept?.put(spec.name, weight, layer);
      return { name: spec.name, weight, layer };
    },

    progress(counted = 0, note) {
      job.onProgress?.({
        task: "compress",
        done,
        total,
        unit: "matrices",
        ...(note === undefined ? {} : { note }),
      });
      done += counted;
    },
  };
  return steps;
}

/** A block without calibration: one matrix after the other. */
async function* plainBlock(steps: Steps, specs: readonly TensorSpec[]): AsyncGenerator<RoundedTensor> {
  for (const spec of specs) {
    if (!isLinear(spec)) yield await steps.other(spec);
    else {
      const kept = await steps.kept(spec);
      if (kept) {
        steps.progress(1, spec.name);
        yield kept;
      } else {
        const W = await steps.floats(spec);
        yield await steps.finish(spec, W, await steps.compress(spec, W));
      }
    }
  }
}

/** A run with calibration. */
interface Calibrated {
  readonly input: Rounded;
  readonly plan: RoundingPlan;
  readonly job: Job;
  readonly steps: Steps;
  readonly flow: Flow;
}

/** A block on the backend whose linear layers are being replaced. */
interface OpenBlock {
  readonly i: number;
  readonly tensors: Map<string, Tensor>;
  replace(name: string, weight: Weight): void;
}

/** Block i with calibration; then sends the activations through it, as it has become. */
async function* calibratedBlock(
  run: Calibrated,
  i: number,
  specs: readonly TensorSpec[],
): AsyncGenerator<RoundedTensor> {
  const { input, plan, steps, flow } = run;
  const { model, backend } = input;
  const linears = specs.filter(isLinear);
  const kept = await keptOf(steps, linears, plan);
  // Without trueSequential, inputs of the layers still to be compressed come through the block in float.
  const atOnce = plan.trueSequential || kept.size === linears.length;
  const tensors = new Map<string, Tensor>();
  const block: OpenBlock = {
    i,
    tensors,
    replace(name, weight) {
      backend.free(tensors.get(name)!);
      tensors.set(name, backend.upload(drawnOnce(weight)));
    },
  };
  try {
    for (const spec of specs) {
      const { name, shape } = spec;
      const done = kept.get(name);
      if (done && atOnce) tensors.set(name, backend.upload(drawnOnce(done.weight)));
      else if (isLinear(spec))
        tensors.set(name, backend.upload(hostTensor(shape, (await steps.floats(spec)).data)));
      else {
        const other = await steps.other(spec);
        tensors.set(name, backend.upload(hostTensor(shape, decodeWeight(other.weight).data)));
        yield other;
      }
    }
    for (const done of kept.values()) {
      steps.progress(1, done.name);
      yield done;
    }
    const waiting = new Map(
      linears.filter(({ name }) => !kept.has(name)).map((spec) => [spec.name, spec] as const),
    );
    if (waiting.size > 0)
      yield* plan.tuning
        ? tunedBlock(run, block, waiting, plan.tuning)
        : compressedBlock(run, block, waiting);
    if (!atOnce) for (const { name, weight } of kept.values()) block.replace(name, weight);
    if (i + 1 < model.config.layers) await flow.advance(i, tensors);
  } finally {
    for (const tensor of tensors.values()) backend.free(tensor);
  }
}

/** The matrices of a block that an earlier run has finished. Tuning moves them together, so it is all or none. */
async function keptOf(
  steps: Steps,
  linears: readonly TensorSpec[],
  { tuning }: RoundingPlan,
): Promise<Map<string, FinishedMatrix>> {
  const found = new Map<string, FinishedMatrix>();
  for (const spec of linears) {
    const kept = await steps.kept(spec);
    if (kept) found.set(spec.name, kept);
    else if (tuning) return new Map();
  }
  return found;
}

/** Compresses the waiting matrices of a block. */
async function* compressedBlock(
  run: Calibrated,
  block: OpenBlock,
  waiting: Map<string, TensorSpec>,
): AsyncGenerator<RoundedTensor> {
  const { backend } = run.input;
  while (waiting.size > 0) {
    const hessians = await run.flow.hessians(
      block.i,
      block.tensors,
      waiting,
      run.plan.trueSequential ? 1 : Infinity,
    );
    try {
      for await (const { spec, W, weight, H } of compressWith(run, block, waiting, hessians)) {
        yield await run.steps.finish(spec, W, weight, { H });
      }
    } finally {
      for (const { H } of hessians) backend.free(H);
    }
  }
}

/** Compresses all matrices of a block, then tunes them together. */
async function* tunedBlock(
  run: Calibrated,
  block: OpenBlock,
  waiting: Map<string, TensorSpec>,
  tuning: TuningOptions,
): AsyncGenerator<RoundedTensor> {
  const { input, plan, job, steps, flow } = run;
  const { model, backend } = input;
  const { i } = block;
  const targets = await flow.outputs(i, block.tensors);
  const found: Hessian[] = [];
  try {
    const compressed: Omit<CompressedMatrix, "W">[] = [];
    while (waiting.size > 0) {
      const hessians = await flow.hessians(i, block.tensors, waiting, plan.trueSequential ? 1 : Infinity);
      found.push(...hessians);
      for await (const { spec, weight, H } of compressWith(run, block, waiting, hessians)) {
        compressed.push({ spec, weight, H });
      }
    }
    const { matrices, ...tuned } = await tuneBlock(
      {
        model,
        backend,
        rope: flow.rope,
        i,
        matrices: new Map(compressed.map(({ spec, weight }) => [spec.name, weight])),
        others: block.tensors,
      },
      {
        lengths: plan.calibration!.map(({ length }) => length),
        input: flow.input,
        output: (j) => targets.read(j),
      },
      tuning,
      job,
    );
    for (const { spec, H } of compressed) {
      const weight = matrices.get(spec.name)!;
      block.replace(spec.name, weight);
      yield await steps.finish(spec, await steps.floats(spec), weight, { H, tuned });
    }
  } finally {
    for (const { H } of found) backend.free(H);
    await targets.close();
  }
}

/** A matrix as it was and as it became. */
interface CompressedMatrix {
  readonly spec: TensorSpec;
  readonly W: Matrix;
  readonly weight: Weight;
  readonly H: Tensor;
}

/** Compresses and replaces the waiting matrices whose Hessians are found. */
async function* compressWith(
  { input, steps }: Calibrated,
  block: OpenBlock,
  waiting: Map<string, TensorSpec>,
  hessians: readonly Hessian[],
): AsyncGenerator<CompressedMatrix> {
  for (const { names, H } of hessians) {
    for (const name of names) {
      const spec = waiting.get(name)!;
      const floats = block.tensors.get(name)!;
      const [rows, cols] = floats.shape;
      const W = matrix(rows, cols, (await input.backend.read(floats)) as Float32Array);
      const weight = await steps.compress(spec, W, H);
      block.replace(name, weight);
      waiting.delete(name);
      yield { spec, W, weight, H };
    }
  }
}

function isLinear({ role }: TensorSpec): boolean {
  return role === "linear";
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
