import { Tape } from "../autograd/tape.ts";
import type { Backend } from "../backends/backend.ts";
import type { Operations } from "../kernels/index.ts";
import type { TrainedRounding } from "../methods/method.ts";
import { initialize } from "../models/initialize.ts";
import type { Model, Span, Weights } from "../models/model.ts";
import { ropeTable } from "../models/rope-table.ts";
import type { Running } from "../models/run.ts";
import { AdamW } from "../optimization/adamw.ts";
import { generator } from "../tensor/random.ts";
import { hostTensor, InputError, type Tensor } from "../tensor/tensor.ts";
import type { Batch } from "./batches.ts";
import type { Recipe } from "./recipe.ts";

export interface StepResult {
  /** Mean over the batch, nats per token. */
  readonly loss: number;
  /** Of all parameters together, before clipping. */
  readonly gradientNorm: number;
}

/** A model in training: its parameters and moments on a backend, and one step of learning. */
export class Trainer {
  readonly #backend: Backend;
  readonly #model: Model;
  readonly #microBatch: number;
  readonly #rounding: TrainedRounding | undefined;
  readonly #parameters: ReadonlyMap<string, Tensor>;
  readonly #optimizer: AdamW;
  readonly #tape: Tape;
  readonly #rope: Tensor;

  /**
   * Starts from the weights of the recipe's seed, which are the same for every
   * family. With a `rounding` the linear layers compute with rounded weights.
   */
  constructor(backend: Backend, model: Model, recipe: Recipe, rounding?: TrainedRounding) {
    this.#backend = backend;
    this.#model = model;
    this.#microBatch = recipe.microBatch;
    this.#rounding = rounding;
    const parameters = new Map<string, Tensor>();
    for (const [name, value] of initialize(model, generator(recipe.seed))) {
      parameters.set(name, backend.keep(backend.upload(value)));
    }
    this.#parameters = parameters;
    this.#optimizer = new AdamW(
      backend,
      model.tensors.map(({ name, role }) => ({ tensor: parameters.get(name)!, decays: role !== "norm" })),
      recipe.optimizer,
    );
    this.#tape = new Tape(backend, parameters.values());
    this.#rope = backend.keep(backend.upload(ropeTable(model.config, model.config.context)));
  }

  /**
   * One step on a batch; `step` counts from 1. When the loss is not finite the
   * parameters stay as they are.
   */
  async step(batch: Batch, step: number, rate: number, decay: number): Promise<StepResult> {
    const tokens = batch.inputs.length;
    let sum = 0;
    for (const part of split(batch, this.#microBatch)) {
      const losses = this.#backend.scope(() => this.#forwardAndBackward(part, step, 1 / tokens));
      for (const loss of await this.#backend.read(losses)) sum += loss;
      this.#backend.free(losses);
    }
    const finite = Number.isFinite(sum);
    if (finite) {
      const gradients = [...this.#parameters.values()].map(
        (parameter) => this.#tape.gradients.get(parameter)!,
      );
      this.#optimizer.step(gradients, step, rate, decay);
    }
    this.#tape.clear();
    const [squaredNorm] = finite ? await this.#backend.read(this.#optimizer.squaredNorm) : [Number.NaN];
    return { loss: sum / tokens, gradientNorm: Math.sqrt(squaredNorm) };
  }

  /** Losses (tokens) of some sequences; the tape adds up their gradients times `share`. */
  #forwardAndBackward({ sequences, inputs, targets }: Batch, step: number, share: number): Tensor {
    const backend = this.#backend;
    const ids = (values: Int32Array) => backend.upload(hostTensor([values.length], values));
    const at = { batch: sequences, time: inputs.length / sequences, from: 0 };
    const weights = this.#effectiveWeights(this.#tape, step);
    const losses = tokenLosses(this.#tape, this.#model, weights, this.#rope, ids(inputs), ids(targets), at);
    const seed = backend.zeros(losses.shape);
    backend.fill(seed, share);
    this.#tape.backward(losses, seed);
    return losses;
  }

  /** What the layers compute with: the parameters, linear ones rounded where the family asks for it. */
  #effectiveWeights(ops: Operations, step: number): Map<string, Tensor> {
    const weights = new Map(this.#parameters);
    if (!this.#rounding) return weights;
    for (const { name, role } of this.#model.tensors) {
      if (role === "linear") weights.set(name, this.#rounding.forward(ops, weights.get(name)!, {}, step));
    }
    return weights;
  }

  /** The model as its forward pass sees it after `step` steps; call `free` before the next one. */
  running(step: number): Running & { free(): void } {
    const backend = this.#backend;
    const weights = this.#effectiveWeights(backend, step);
    return {
      model: this.#model,
      backend,
      weights,
      rope: this.#rope,
      free: () => {
        for (const [name, t] of weights) if (t !== this.#parameters.get(name)) backend.free(t);
      },
    };
  }

  /** Parameters by name. */
  async parameters(): Promise<Map<string, Float32Array>> {
    const values = new Map<string, Float32Array>();
    for (const [name, t] of this.#parameters) values.set(name, (await this.#backend.read(t)) as Float32Array);
    return values;
  }

  /** Parameters and moments, as a checkpoint keeps them: `NAME`, `first/NAME`, `second/NAME`. */
  async state(): Promise<Map<string, Float32Array>> {
    const values = new Map<string, Float32Array>();
    for (const [name, t] of this.#state()) values.set(name, (await this.#backend.read(t)) as Float32Array);
    return values;
  }

  restore(values: ReadonlyMap<string, Float32Array>): void {
    for (const [name, t] of this.#state()) {
      const value = values.get(name);
      if (!value) throw new InputError(`checkpoint: ${name} is missing; is it of this recipe?`);
      this.#backend.write(t, value);
    }
  }

  *#state(): Generator<[string, Tensor]> {
    let i = 0;
    for (const [name, parameter] of this.#parameters) {
      yield [name, parameter];
      yield [`first/${name}`, this.#optimizer.first[i]];
      yield [`second/${name}`, this.#optimizer.second[i]];
      i++;
    }
  }

  dispose(): void {
    this.#tape.clear();
    this.#optimizer.dispose();
    for (const t of [...this.#parameters.values(), this.#rope]) this.#backend.free(t);
  }
}

/** −ln p of every target: ids (tokens), targets (tokens) -> (tokens). */
function tokenLosses(
  ops: Operations,
  model: Model,
  weights: Weights,
  rope: Tensor,
  ids: Tensor,
  targets: Tensor,
  at: Span,
): Tensor {
  let x = model.embed(ops, ids, weights);
  for (let i = 0; i < model.config.layers; i++) x = model.block(ops, i, x, weights, at, rope);
  return ops.crossEntropy(model.finalNorm(ops, x, weights), weights.get(model.headWeight)!, targets);
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
