import { Tape } from "../autograd/tape.ts";
import type { Backend } from "../backends/backend.ts";
import { decodeWeight } from "../formats/index.ts";
import { tensorsOf } from "../kernels/compound.ts";
import { bf16Operations, type Operations } from "../kernels/index.ts";
import type { Moment, TrainedRounding, TunedBase } from "../methods/method.ts";
import type { OpenTunable } from "../methods/tunable.ts";
import { initialize } from "../models/initialize.ts";
import type { Model, Role, TensorSpec } from "../models/model.ts";
import { ropeTable } from "../models/rope-table.ts";
import type { Running } from "../models/run.ts";
import { forKernels } from "../models/stored.ts";
import { paceOf } from "../optimization/fit.ts";
import { openOptimizer } from "../optimization/index.ts";
import type { Optimizer } from "../optimization/optimizer.ts";
import { matchesPattern } from "../tensor/pattern.ts";
import { generator } from "../tensor/random.ts";
import {
  type Elements,
  type HostTensor,
  hostTensor,
  InputError,
  matrix,
  sizeOf,
  type Tensor,
} from "../tensor/tensor.ts";
import type { Weight } from "../tensor/weight.ts";
import { type Batch, predicted } from "./batches.ts";
import { tokenLosses } from "./loss.ts";
import type { Recipe } from "./recipe.ts";

export interface StepResult {
  /** Mean over the batch, nats per token. */
  readonly loss: number;
  /** Of all parameters together, before clipping. */
  readonly gradientNorm: number;
}

/** An optimizer as a run's record shows it. */
export interface OptimizerReport {
  readonly name: string;
  /** Bytes of its states for each number that is trained. */
  readonly stateBytesPerParameter: number;
  /** Shares of all updates that changed nothing, and that would have in bf16, where the optimizer counts them. */
  readonly lostUpdates?: number;
  readonly lostInBf16?: number;
}

/** What a trainer is told beside its recipe. */
export interface TrainerOptions {
  /** Steps of the whole run. */
  readonly steps: number;
  readonly rounding?: TrainedRounding;
  /** Weights to start from, by name; default: random ones of the recipe's seed, which are the same for every family. */
  readonly start?: Pick<ReadonlyMap<string, HostTensor>, "get">;
  /** Steps that the optimizer's states have seen before the run's first. */
  readonly optimizerSteps?: number;
  /** Whom the recipe's loss asks, on the same backend. */
  readonly teacher?: Running;
  /** A stored model of which something is trained, in place of `rounding` and `start`. */
  readonly base?: TunedBase;
}

/**
 * Weights that are rounded when a layer asks for them: inside a block that is
 * computed again in the backward pass they are made again with it.
 */
class WeightsInUse extends Map<string, Tensor> {
  readonly #effective: (name: string) => Tensor;

  constructor(effective: (name: string) => Tensor) {
    super();
    this.#effective = effective;
  }

  override get(name: string): Tensor {
    return this.#effective(name);
  }
}

/** A linear matrix in the middle of its training, both (rows, cols). */
export interface SeenMatrix {
  readonly name: string;
  readonly rows: number;
  readonly cols: number;
  /** What the optimizer moves. */
  readonly W: Float32Array;
  /** What the layer computes with; W itself in the family `float`. */
  readonly Ŵ: Float32Array;
}

/** A tensor that is trained. */
interface Trained {
  readonly tensor: Tensor;
  readonly role: Role;
  /** Whether gradients move it. */
  readonly learns: boolean;
  /** What its rate is multiplied by. */
  readonly pace?: number;
}

/** A model in training: its parameters and moments on a backend, and one step of learning. */
export class Trainer {
  readonly #backend: Backend;
  readonly #model: Model;
  readonly #recipe: Recipe;
  readonly #steps: number;
  readonly #rounding: TrainedRounding | undefined;
  readonly #teacher: Running | undefined;
  /** The model's tensors by name, and what a rounding trains beside a matrix as `MATRIX.NAME`. */
  readonly #trained = new Map<string, Trained>();
  /** Of a stored model: what stays as it is stored, and the matrices of which something is trained. */
  readonly #kept = new Map<string, Tensor>();
  readonly #tuned = new Map<string, OpenTunable>();
  readonly #optimizer: Optimizer;
  readonly #optimizerSteps: number;
  readonly #tape: Tape;
  /** The tape as the model calls it. */
  readonly #ops: Operations;
  readonly #rope: Tensor;

  /** With a `rounding` the linear layers compute with rounded weights. */
  constructor(
    backend: Backend,
    model: Model,
    recipe: Recipe,
    { steps, rounding, start, teacher, base, optimizerSteps = 0 }: TrainerOptions,
  ) {
    this.#backend = backend;
    this.#model = model;
    this.#recipe = recipe;
    this.#steps = steps;
    this.#rounding = rounding;
    this.#teacher = teacher;
    this.#optimizerSteps = optimizerSteps;
    checkOnly(model, recipe);
    if (base) {
      for (const spec of model.tensors) this.#addStored(spec, base);
    } else {
      const values = start ?? new Map(initialize(model, generator(recipe.seed)));
      for (const { name, role } of model.tensors) this.#add(name, role, values.get(name)!);
    }
    const learning = this.#learning().map(([, trained]) => trained);
    if (learning.length === 0) {
      throw new InputError(
        `only: nothing that it names learns in the family ${recipe.family}; name other tensors`,
      );
    }
    this.#optimizer = openOptimizer(
      backend,
      learning.map(({ tensor, role, pace }) => ({ tensor, decays: role !== "norm", role, pace })),
      recipe.optimizer,
    );
    this.#tape = new Tape(
      backend,
      learning.map(({ tensor }) => tensor),
    );
    this.#ops = recipe.precision === "bf16" ? bf16Operations(this.#tape) : this.#tape;
    this.#rope = backend.keep(backend.upload(ropeTable(model.config, model.config.context)));
  }

  #add(name: string, role: Role, value: HostTensor): void {
    const { only } = this.#recipe;
    const chosen = only === undefined || isChosen(name, this.#recipe);
    const keep = (t: HostTensor) => this.#backend.keep(this.#backend.upload(t));
    if (role !== "linear" || !this.#rounding) {
      this.#trained.set(name, { tensor: keep(value), role, learns: chosen });
      return;
    }
    const { frozen = false } = this.#rounding;
    const [rows, cols] = value.shape;
    const W = matrix(rows, cols, value.data as Float32Array);
    const started = this.#rounding.start?.(W, name) ?? { W, parameters: {} };
    const learns = chosen && !frozen;
    this.#trained.set(name, { tensor: keep(hostTensor([rows, cols], started.W.data)), role, learns });
    for (const [parameter, data] of Object.entries(started.parameters)) {
      this.#trained.set(`${name}.${parameter}`, { tensor: keep(data), role: "norm", learns });
    }
  }

  /** A tensor of a stored model: whole where the recipe names it and it is no matrix of a layer, else as it is stored. */
  #addStored(spec: TensorSpec, { weights, tuned }: TunedBase): void {
    const { name, shape, role } = spec;
    const keep = (t: HostTensor | Weight) => this.#backend.keep(this.#backend.upload(t));
    const train = (path: string, value: HostTensor, as: Role) =>
      this.#trained.set(path, { tensor: keep(value), role: as, learns: true, pace: paceOf(value) });
    const weight = weights.get(name)!;
    const own = tuned.get(name);
    if (own) {
      this.#tuned.set(name, own.open(this.#backend));
      for (const [path, value] of own.parameters) train(`${name}.${path}`, value, "norm");
    } else if (role !== "linear" && isChosen(name, this.#recipe)) {
      train(name, hostTensor(shape, decodeWeight(weight).data), role);
    } else {
      this.#kept.set(name, keep(forKernels(spec, weight)));
    }
  }

  /**
   * One step on a batch; `step` counts from 1. When the loss or the gradient is
   * not finite the parameters stay as they are, and `blame` says where it began.
   */
  async step(batch: Batch, step: number, rate: number, decay: number): Promise<StepResult> {
    const sum = await this.#gradients(batch, step);
    const finite = Number.isFinite(sum);
    if (finite) {
      const gradients = this.#learning().map(([, { tensor }]) => this.#tape.gradients.get(tensor));
      this.#moveParameters(gradients, step, rate, decay);
    }
    this.#tape.clear();
    const [squaredNorm] = finite ? await this.#backend.read(this.#optimizer.squaredNorm) : [Number.NaN];
    return { loss: sum / predicted(batch), gradientNorm: Math.sqrt(squaredNorm) };
  }

  /** Leaves a batch's gradients on the tape; gives the sum of its losses. */
  async #gradients(batch: Batch, step: number): Promise<number> {
    const tokens = predicted(batch);
    const widths = this.#rounding?.widths ?? [{ bits: undefined, share: 1 }];
    let sum = 0;
    for (const part of split(batch, this.#recipe.microBatch)) {
      for (const { bits, share } of widths) {
        const at = { step: step - 1, steps: this.#steps, bits };
        const losses = this.#backend.scope(() => this.#forwardAndBackward(part, at, share / tokens));
        for (const [i, loss] of (await this.#backend.read(losses)).entries()) {
          if (part.targets[i] >= 0) sum += share * loss;
        }
        this.#backend.free(losses);
      }
    }
    return sum;
  }

  /** What gradients move, by name. */
  #learning(): [string, Trained][] {
    return [...this.#trained].filter(([, { learns }]) => learns);
  }

  /**
   * Where a step went wrong, with the parameters that it began with: the first
   * tensor that is not finite, in the order in which they are computed
   * (weights, rounded weights, inputs of linear layers, then gradients from the
   * last layer on); the largest gradient when all are finite.
   */
  async blame(batch: Batch, step: number): Promise<string> {
    const bad = async (t: Tensor) => !(await this.#backend.read(t)).every(Number.isFinite);
    for (const [name, { tensor }] of this.#trained) if (await bad(tensor)) return `weight ${name}`;
    const running = this.running({ step: step - 1, steps: this.#steps });
    try {
      for (const [name, t] of running.weights) {
        for (const part of tensorsOf(t))
          if (part.format === "f32" && (await bad(part))) return `rounded weight ${name}`;
      }
      for (const part of split(batch, this.#recipe.microBatch)) {
        const name = await this.#badInput(running, part, bad);
        if (name !== undefined) return `input of ${name}`;
      }
    } finally {
      running.free();
    }
    const squaredNorm = this.#backend.keep(this.#backend.zeros([1]));
    try {
      await this.#gradients(batch, step);
      let largest = { name: "", norm: -1 };
      for (const [name, { tensor }] of this.#learning().reverse()) {
        const gradient = this.#tape.gradients.get(tensor);
        if (!gradient) continue;
        this.#backend.squaredNorm(squaredNorm, gradient, 0);
        const [norm] = await this.#backend.read(squaredNorm);
        if (!Number.isFinite(norm)) return `gradient of ${name}`;
        if (norm > largest.norm) largest = { name, norm };
      }
      return `largest gradient, of ${largest.name}`;
    } finally {
      this.#tape.clear();
      this.#backend.free(squaredNorm);
    }
  }

  /** The first linear layer whose input is bad. */
  async #badInput(
    { weights }: Running,
    { sequences, inputs }: Batch,
    bad: (t: Tensor) => Promise<boolean>,
  ): Promise<string | undefined> {
    const backend = this.#backend;
    const model = this.#model;
    const { layers } = model.config;
    const at = { batch: sequences, time: inputs.length / sequences, from: 0 };
    let x = backend.scope(() => {
      return model.embed(backend, backend.upload(hostTensor([inputs.length], inputs)), weights);
    });
    try {
      for (let i = 0; i <= layers; i++) {
        const met = new Map<Tensor, string>(); // q, k and v multiply the same
        const note = (name: string, input: Tensor) => {
          if (!met.has(input)) met.set(backend.keep(input), name);
        };
        const next = backend.scope(() => {
          if (i < layers) return model.block(backend, i, x, weights, at, this.#rope, undefined, note);
          const last = model.finalNorm(backend, x, weights);
          note(model.headWeight, last);
          return backend.rows(last, 0, 0); // only what was noted counts
        });
        backend.free(x);
        x = next;
        try {
          for (const [input, name] of met) if (await bad(input)) return name;
        } finally {
          for (const input of met.keys()) backend.free(input);
        }
      }
    } finally {
      backend.free(x);
    }
    return undefined;
  }

  /** The optimizer's step; where the family lets its states begin anew, its steps are counted anew too. */
  #moveParameters(
    gradients: readonly (Tensor | undefined)[],
    step: number,
    rate: number,
    decay: number,
  ): void {
    const resetsAt = this.#rounding?.resetsOptimizerAt ?? Number.POSITIVE_INFINITY;
    if (step - 1 === resetsAt) this.#optimizer.reset();
    this.#optimizer.step(gradients, this.optimizerSteps(step), rate, decay);
  }

  /** Steps that the optimizer's states have seen after so many of this run. */
  optimizerSteps(step: number): number {
    const resetsAt = this.#rounding?.resetsOptimizerAt ?? Number.POSITIVE_INFINITY;
    return step > resetsAt ? step - resetsAt : step + this.#optimizerSteps;
  }

  /** Losses (tokens) of some sequences; the tape adds up the gradients of those that are predicted, times `share`. */
  #forwardAndBackward({ sequences, inputs, targets }: Batch, at: Moment, share: number): Tensor {
    const backend = this.#backend;
    const upload = (values: Int32Array) => backend.upload(hostTensor([values.length], values));
    const span = { batch: sequences, time: inputs.length / sequences, from: 0 };
    const weights = new WeightsInUse((name) => this.#effective(this.#ops, name, at));
    const losses = tokenLosses(
      this.#ops,
      { model: this.#model, weights, rope: this.#rope },
      { ids: upload(inputs), targets: upload(targets), at: span },
      this.#recipe.recompute ? (body) => this.#tape.segment(body) : (body) => body(),
      { loss: this.#recipe.loss, teacher: this.#teacher },
    );
    const seed = Float32Array.from(targets, (target) => (target < 0 ? 0 : share));
    this.#tape.backward(losses, backend.upload(hostTensor(losses.shape, seed)));
    return losses;
  }

  /** What a layer computes with: the parameter, a linear one rounded where the family asks for it. */
  #effective(ops: Operations, name: string, at: Moment): Tensor {
    const tuned = this.#tuned.get(name);
    if (tuned) return tuned.tensor(ops, new Map(Object.entries(this.#beside(name))));
    const kept = this.#kept.get(name);
    if (kept) return kept;
    const { tensor, role } = this.#trained.get(name)!;
    const rounded = role === "linear" && this.#rounding;
    return rounded ? rounded.forward(ops, tensor, this.#beside(name), at) : tensor;
  }

  /** What is trained beside a matrix, by its own names. */
  #beside(name: string): Record<string, Tensor> {
    const parameters: Record<string, Tensor> = {};
    for (const [other, { tensor }] of this.#trained) {
      if (other.startsWith(`${name}.`)) parameters[other.slice(name.length + 1)] = tensor;
    }
    return parameters;
  }

  /** The model as its forward pass sees it at a moment; call `free` before the next step. */
  running(at: Moment): Running & { free(): void } {
    const backend = this.#backend;
    const own = new Set<Tensor>();
    for (const { tensor } of this.#trained.values()) own.add(tensor);
    for (const t of this.#kept.values()) tensorsOf(t, own);
    for (const { kept } of this.#tuned.values()) for (const t of kept) own.add(t);
    const made = new Set<Tensor>();
    const weights = backend.scope(() => {
      const effective = new Map<string, Tensor>();
      for (const { name } of this.#model.tensors) effective.set(name, this.#effective(backend, name, at));
      for (const t of effective.values()) {
        for (const part of tensorsOf(t)) if (!own.has(part)) made.add(backend.keep(part));
      }
      return effective;
    });
    return {
      model: this.#model,
      backend,
      weights,
      rope: this.#rope,
      free: () => {
        for (const t of made) backend.free(t);
      },
    };
  }

  get model(): Model {
    return this.#model;
  }

  /** What is kept from step to step, and the gradients of a step, bytes. */
  bytes(): { readonly weights: number; readonly gradients: number; readonly states: number } {
    const bytes = (shapes: (readonly number[])[]) =>
      4 * shapes.reduce((sum, shape) => sum + sizeOf(shape), 0);
    const state = [...this.#state()];
    const isParameter = (name: string) => !name.includes("/");
    return {
      weights: bytes(state.filter(([name]) => isParameter(name)).map(([, { shape }]) => shape)),
      gradients: bytes(this.#learning().map(([, { tensor }]) => tensor.shape)),
      states: bytes(state.filter(([name]) => !isParameter(name)).map(([, { shape }]) => shape)),
    };
  }

  /** What the optimizer keeps beside the parameters. */
  get stateBytes(): number {
    return this.bytes().states;
  }

  /** The linear matrices that are whole: none of a stored model. */
  get wholeMatrices(): readonly TensorSpec[] {
    return this.#model.tensors.filter(({ name, role }) => role === "linear" && this.#trained.has(name));
  }

  /** `wholeMatrices` one after another: as they are trained, and as their layers see them at a moment. */
  async *matrices(at: Moment): AsyncGenerator<SeenMatrix> {
    const backend = this.#backend;
    const read = async (t: Tensor) => (await backend.read(t)) as Float32Array;
    for (const { name } of this.wholeMatrices) {
      const { tensor } = this.#trained.get(name)!;
      const [rows, cols] = tensor.shape;
      const W = await read(tensor);
      const seen = this.#rounding
        ? backend.scope(() => this.#rounding!.forward(backend, tensor, this.#beside(name), at))
        : tensor;
      const Ŵ = seen === tensor ? W : await read(seen);
      if (seen !== tensor) backend.free(seen);
      yield { name, rows, cols, W, Ŵ };
    }
  }

  /** Parameters by name. */
  async parameters(): Promise<Map<string, Float32Array>> {
    const values = new Map<string, Float32Array>();
    for (const [name, { tensor }] of this.#trained)
      values.set(name, (await this.#backend.read(tensor)) as Float32Array);
    return values;
  }

  /** Parameters and the optimizer's states, as a checkpoint keeps them: `NAME` and, of AdamW, `first/NAME`, `second/NAME`. */
  async state(): Promise<Map<string, Elements>> {
    const values = new Map<string, Elements>();
    for (const [name, t] of this.#state()) values.set(name, await this.#backend.read(t));
    return values;
  }

  /** Takes over what `state` gave, or only the parameters or the rest of it; an InputError names what does not fit. */
  restore(values: ReadonlyMap<string, Elements>, what: "all" | "parameters" | "moments" = "all"): void {
    for (const [name, t] of this.#state()) {
      if (what === (name.includes("/") ? "parameters" : "moments")) continue;
      const value = values.get(name);
      if (value?.length !== sizeOf(t.shape)) {
        const met = value ? `has ${value.length} values` : "is missing";
        throw new InputError(
          `checkpoint: ${name} ${met}, ${t.shape.join("×")} is needed; is it of this recipe?`,
        );
      }
      this.#backend.write(t, value);
    }
    if (what === "parameters") this.#optimizer.reset(); // some of its states belong to the parameters before
  }

  /** What the optimizer is, keeps, and says of its work. */
  async optimizer(): Promise<OptimizerReport> {
    return {
      name: this.#recipe.optimizer.name ?? "adamw",
      stateBytesPerParameter: this.#optimizer.bytesPerParameter,
      ...(await this.#optimizer.measures()),
    };
  }

  *#state(): Generator<[string, Tensor]> {
    let i = 0;
    for (const [name, { tensor, learns }] of this.#trained) {
      yield [name, tensor];
      if (!learns) continue;
      for (const [state, t] of this.#optimizer.state(i)) yield [`${state}/${name}`, t];
      i++;
    }
  }

  dispose(): void {
    this.#tape.clear();
    this.#optimizer.dispose();
    for (const { tensor } of this.#trained.values()) this.#backend.free(tensor);
    for (const t of this.#kept.values()) this.#backend.free(t);
    for (const tuned of this.#tuned.values()) tuned.free();
    this.#backend.free(this.#rope);
  }
}

/** Whether a recipe names a tensor among those that learn. */
export function isChosen(name: string, { only }: Pick<Recipe, "only">): boolean {
  return Array.isArray(only) && only.some((pattern) => matchesPattern(name, pattern));
}

/** Throws an InputError for a pattern of `only` that no tensor is called by. */
function checkOnly({ tensors }: Model, { only = [] }: Recipe): void {
  if (!Array.isArray(only))
    throw new Error("trainer: needs the names of what learns; the most sensitive layers are found before");
  const unknown = only.find((pattern) => !tensors.some(({ name }) => matchesPattern(name, pattern)));
  if (unknown === undefined) return;
  const some = tensors.slice(0, 3).map(({ name }) => name);
  throw new InputError(`only: no tensor is called ${unknown}; there are ${some.join(", ")}, …`);
}

/** A batch in parts of `sequences` sequences. */
function* split(batch: Batch, sequences: number): Generator<Batch> {
  const context = batch.inputs.length / batch.sequences;
  for (let from = 0; from < batch.sequences; from += sequences) {
    const to = Math.min(from + sequences, batch.sequences);
    const cut = (ids: Int32Array) => ids.subarray(from * context, to * context);
    yield { sequences: to - from, inputs: cut(batch.inputs), targets: cut(batch.targets) };
  }
}
