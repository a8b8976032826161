import { Tape } from "../autograd/tape.ts";
import type { Backend } from "../backends/backend.ts";
import { type CountingBackend, openCounting } from "../backends/counting.ts";
import type { Operations } from "../kernels/index.ts";
import type { Model } from "../models/model.ts";
import type { Running } from "../models/run.ts";
import { size } from "../record/words.ts";
import { type HostTensor, hostTensor, InputError, sizeOf } from "../tensor/tensor.ts";
import { checkTeacherSizes } from "./loss.ts";
import { modelOf } from "./model.ts";
import { type Recipe, roundingOf } from "./recipe.ts";
import { largestChosen } from "./sensitive.ts";
import type { TunedStart } from "./start.ts";
import { Trainer } from "./trainer.ts";

/** Scratch of the largest kernels, mostly a tile of logits (kernels/cross-entropy.cpp); of the backend, not of tensors. */
const SCRATCH = 2 ** 23;

/** What training takes, bytes. */
export interface MemoryPlan {
  /** Parameters in float32, and what is trained beside them. */
  readonly weights: number;
  readonly gradients: number;
  readonly optimizerStates: number;
  /** Those that are in paged memory instead, which counts for nothing. */
  readonly paged?: number;
  /** Weights of the teacher, where the loss asks one. */
  readonly teacher?: number;
  /** All else that is alive at the peak: what the backward pass needs, and rounded weights. */
  readonly activations: number;
  /** What one block leaves for the backward pass of a micro-batch; with `recompute` one block's is alive at a time. */
  readonly block: number;
  /** The most that tensors take together. */
  readonly peak: number;
  readonly scratch: number;
  /** Memory of the process while a checkpoint is written: the state, and the file that is made of it. */
  readonly checkpoint: number;
  /** Of all that. */
  readonly total: number;
}

/** A recipe's teacher on a backend that only counts. */
export interface CountedTeacher extends Running {
  readonly backend: CountingBackend;
}

/**
 * The memory of training by a recipe: one step of its own model, family, loss
 * and optimizer, run on a backend that only counts (backends/counting.ts),
 * that of the `teacher` where the loss asks one. It is what the native backend
 * measures. Throws an InputError for a teacher whose sizes do not fit the model's.
 */
export async function planMemory(
  recipe: Recipe,
  vocabulary: number,
  teacher?: CountedTeacher,
  base?: TunedStart,
): Promise<MemoryPlan> {
  const { batch, microBatch, model: sizes } = recipe;
  const model = base?.model ?? modelOf(recipe, vocabulary);
  if (teacher) checkTeacherSizes(teacher.model, model, recipe.loss);
  const backend = teacher?.backend ?? openCounting();
  const before = backend.bytesInUse();
  backend.takePeakBytes();
  // A second micro-batch adds its gradients to those of the first; more of them take no more.
  const sequences = Math.min(batch, 2 * microBatch);
  const trainer = new Trainer(backend, model, largestChosen(recipe, model), {
    steps: 1,
    rounding: roundingOf(recipe),
    start: zerosOf(model),
    teacher,
    base,
  });
  const { weights: trained, gradients, states } = trainer.bytes();
  const paged = recipe.optimizer.paged ? states : 0;
  const optimizerStates = states - paged;
  const weights = base ? backend.bytesInUse() - before - optimizerStates : trained;
  const ids = new Int32Array(sequences * sizes.context);
  await trainer.step({ sequences, inputs: ids, targets: ids }, 1, 0, 0);
  const peak = backend.takePeakBytes();
  trainer.dispose();
  const checkpoint = 2 * (trained + states);
  return {
    weights,
    gradients,
    optimizerStates,
    ...(paged > 0 ? { paged } : {}),
    ...(teacher ? { teacher: before } : {}),
    activations: peak - before - weights - gradients - optimizerStates,
    block: blockBytes(model, microBatch),
    peak,
    scratch: SCRATCH,
    checkpoint,
    total: peak + SCRATCH + checkpoint,
  };
}

/** Weights of which only the sizes count: all are parts of one array. */
function zerosOf(model: Model): { get(name: string): HostTensor } {
  const shapes = new Map(model.tensors.map(({ name, shape }) => [name, shape]));
  const zeros = new Float32Array(Math.max(...[...shapes.values()].map(sizeOf)));
  return {
    get(name) {
      const shape = shapes.get(name)!;
      return hostTensor(shape, zeros.subarray(0, sizeOf(shape)));
    },
  };
}

function blockBytes(model: Model, batch: number): number {
  const { context, dim, headDim } = model.config;
  const backend = openCounting();
  const weights = new Map(model.tensors.map(({ name, shape }) => [name, backend.zeros(shape)]));
  const tape: Operations = new Tape(backend, weights.values());
  const x = backend.zeros([batch * context, dim]);
  const rope = backend.zeros([context, headDim]);
  const before = backend.bytesInUse();
  model.block(tape, 0, x, weights, { batch, time: context, from: 0 }, rope);
  return backend.bytesInUse() - before;
}

/** Memory that there is, bytes. */
export interface Room {
  /** Of the backend, for tensors and scratch. */
  readonly backend: number;
  /** Of the machine, for all. */
  readonly machine: number;
}

/** What a backend and this machine have, or less: `memory` bytes, or what the process may have. */
export function roomFor({ limits }: Backend, memory?: number): Room {
  const total = process.getBuiltinModule("node:os").totalmem();
  const constrained = process.constrainedMemory();
  const machine = memory ?? (constrained > 0 ? Math.min(total, constrained) : total);
  return { backend: Math.min(machine, limits.memoryBytes), machine };
}

export function fits({ peak, scratch, total }: MemoryPlan, room: Room): boolean {
  return peak + scratch <= room.backend && total <= room.machine;
}

/** Throws an InputError when the recipe does not fit, with the largest change of it that would. */
export async function checkFits(
  recipe: Recipe,
  vocabulary: number,
  room: Room,
  teacher?: CountedTeacher,
  base?: TunedStart,
): Promise<MemoryPlan> {
  const plan = await planMemory(recipe, vocabulary, teacher, base);
  if (fits(plan, room)) return plan;
  const has = Math.min(room.backend, room.machine);
  const fixed = plan.weights + plan.gradients + plan.optimizerStates + (plan.teacher ?? 0);
  throw new InputError(
    `memory: training needs ${size(plan.total)} (${size(fixed)} of them whatever the batch), ` +
      `${size(has)} are there; ${await whatWouldFit(recipe, vocabulary, room, teacher, base)}`,
  );
}

async function whatWouldFit(
  recipe: Recipe,
  vocabulary: number,
  room: Room,
  teacher: CountedTeacher | undefined,
  base: TunedStart | undefined,
): Promise<string> {
  const would = async (change: Partial<Recipe>) =>
    fits(await planMemory({ ...recipe, ...change }, vocabulary, teacher, base), room);
  const { batch, model } = recipe;
  const parts = Array.from({ length: recipe.microBatch }, (_, i) => recipe.microBatch - i).filter(
    (n) => batch % n === 0,
  );
  for (const recompute of new Set([recipe.recompute, true])) {
    const also = recompute === recipe.recompute ? "" : " with recompute: true";
    for (const microBatch of parts) {
      if (await would({ microBatch, recompute })) return `microBatch: ${microBatch}${also} would fit`;
    }
  }
  if (base) return "no microBatch would fit; take a shorter model.context, or a smaller model";
  if (recipe.loss.states) return "no microBatch would fit; take a smaller teacher and model";
  const smallest = { microBatch: 1, recompute: true };
  let least = 0; // layers that fit, and those that do not
  let most = model.layers;
  while (most - least > 1) {
    const layers = (least + most) >> 1;
    if (await would({ ...smallest, model: { ...model, layers } })) least = layers;
    else most = layers;
  }
  return least > 0
    ? `model.layers: ${least} with microBatch: 1 and recompute: true would fit`
    : "no number of layers would fit; make model.dim, model.ffn or the vocabulary smaller";
}
