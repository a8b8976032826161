import { Tape } from "../autograd/tape.ts";
import type { Backend } from "../backends/backend.ts";
import { bf16Operations, type Operations } from "../kernels/index.ts";
import type { Moment, TrainedRounding } from "../methods/method.ts";
import { initialize } from "../models/initialize.ts";
import type { Model, Role } from "../models/model.ts";
import { ropeTable } from "../models/rope-table.ts";
import type { Running } from "../models/run.ts";
import { openOptimizer } from "../optimization/index.ts";
import type { Optimizer } from "../optimization/optimizer.ts";
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
  readonly start?: ReadonlyMap<string, HostTensor>;
  /** Whom the recipe's loss asks, on the same backend. */
  readonly teacher?: Running;
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
  readonly #optimizer: Optimizer;
  readonly #tape: Tape;
  /** The tape as the model calls it. */
  readonly #ops: Operations;
  readonly #rope: Tensor;

  /** With a `rounding` the linear layers compute with rounded weights. */
  constructor(
    backend: Backend,
    model: Model,
    recipe: Recipe,
    { steps, rounding, start, teacher }: TrainerOptions,
  ) {
    this.#backend = backend;
    this.#model = model;
    this.#recipe = recipe;
    this.#steps = steps;
    this.#rounding = rounding;
    this.#teacher = teacher;
    const values = start ?? new Map(initialize(model, generator(recipe.seed)));
    for (const { name, role } of model.tensors) this.#add(name, role, values.get(name)!);
    const learning = [...this.#trained.values()].filter(({ learns }) => learns);
    this.#optimizer = openOptimizer(
      backend,
      learning.map(({ tensor, role }) => ({ tensor, decays: role !== "norm", role })),
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
    const chosen = only === undefined || only.some((pattern) => matches(name, pattern));
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

  /**
   * One step on a batch; `step` counts from 1. When the loss is not finite the
   * parameters stay as they are.
   */
  async step(batch: Batch, step: number, rate: number, decay: number): Promise<StepResult> {
    const tokens = predicted(batch);
    const widths = this.#rounding?.widths ?? [{ bits: undefined, share: 1 }];
    let sum = 0;
    for (const part of split(batch, this.#recipe.microBatch)) {
      for (const { bits, share } of widths) {
        const at = { step: step - 1, steps: this.#steps, bits };
        const losses = this.#backend.scope(() => this.#forwardAndBackward(part, at, share / tokens));
        for (const loss of await this.#backend.read(losses)) sum += share * loss;
        this.#backend.free(losses);
      }
    }
    const finite = Number.isFinite(sum);
    if (finite) {
      const gradients = [...this.#trained.values()]
        .filter(({ learns }) => learns)
        .map(({ tensor }) => this.#tape.gradients.get(tensor)!);
      this.#moveParameters(gradients, step, rate, decay);
    }
    this.#tape.clear();
    const [squaredNorm] = finite ? await this.#backend.read(this.#optimizer.squaredNorm) : [Number.NaN];
    return { loss: sum / tokens, gradientNorm: Math.sqrt(squaredNorm) };
  }

  /** The optimizer's step; where the family lets its states begin anew, its steps are counted anew too. */
  #moveParameters(gradients: readonly Tensor[], step: number, rate: number, decay: number): void {
    const resetsAt = this.#rounding?.resetsOptimizerAt ?? Number.POSITIVE_INFINITY;
    if (step - 1 === resetsAt) this.#optimizer.reset();
    const counted = step > resetsAt ? step - resetsAt : step;
    this.#optimizer.step(gradients, counted, rate, decay);
  }

  /** Losses (tokens) of some sequences; the tape adds up their gradients times `share`. */
  #forwardAndBackward({ sequences, inputs, targets }: Batch, at: Moment, share: number): Tensor {
    const backend = this.#backend;
    const upload = (values: Int32Array) => backend.upload(hostTensor([values.length], values));
    const span = { batch: sequences, time: inputs.length / sequences, from: 0 };
    const weights = this.#effectiveWeights(this.#ops, at);
    const losses = tokenLosses(
      this.#ops,
      { model: this.#model, weights, rope: this.#rope },
      { ids: upload(inputs), targets: upload(targets), at: span },
      this.#recipe.recompute ? (body) => this.#tape.segment(body) : (body) => body(),
      { loss: this.#recipe.loss, teacher: this.#teacher },
    );
    const seed = backend.zeros(losses.shape);
    backend.fill(seed, share);
    this.#tape.backward(losses, seed);
    return losses;
  }

  /** What the layers compute with: the parameters, linear ones rounded where the family asks for it. */
  #effectiveWeights(ops: Operations, at: Moment): Map<string, Tensor> {
    const weights = new Map<string, Tensor>();
    for (const { name, role } of this.#model.tensors) {
      const { tensor } = this.#trained.get(name)!;
      const rounded = role === "linear" && this.#rounding;
      weights.set(name, rounded ? rounded.forward(ops, tensor, this.#beside(name), at) : tensor);
    }
    return weights;
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
    const own = new Set([...this.#trained.values()].map(({ tensor }) => tensor));
    const weights = backend.scope(() => {
      const effective = this.#effectiveWeights(backend, at);
      for (const t of effective.values()) if (!own.has(t)) backend.keep(t);
      return effective;
    });
    return {
      model: this.#model,
      backend,
      weights,
      rope: this.#rope,
      free: () => {
        for (const t of weights.values()) if (!own.has(t)) backend.free(t);
      },
    };
  }

  get model(): Model {
    return this.#model;
  }

  /** What the optimizer keeps beside the parameters. */
  get stateBytes(): number {
    let bytes = 0;
    for (const [name, { shape }] of this.#state()) if (!this.#trained.has(name)) bytes += 4 * sizeOf(shape);
    return bytes;
  }

  /** The linear matrices one after another: as they are trained, and as their layers see them at a moment. */
  async *matrices(at: Moment): AsyncGenerator<SeenMatrix> {
    const backend = this.#backend;
    const read = async (t: Tensor) => (await backend.read(t)) as Float32Array;
    for (const { name, role } of this.#model.tensors) {
      if (role !== "linear") continue;
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

  restore(values: ReadonlyMap<string, Elements>): void {
    for (const [name, t] of this.#state()) {
      const value = values.get(name);
      if (!value) throw new InputError(`checkpoint: ${name} is missing; is it of this recipe?`);
      this.#backend.write(t, value);
    }
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
    this.#backend.free(this.#rope);
  }
}

/** Whether a name is what a pattern says, `*` standing for any text. */
function matches(name: string, pattern: string): boolean {
  const escaped = pattern.split("*").map((piece) => piece.replace(/[.+?^${}()|[\]\\]/g, "\\$&"));
  return new RegExp(`^${escaped.join(".*")}$`).test(name);
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
