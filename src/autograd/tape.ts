import type { Backend } from "../backends/backend.ts";
import { Handle } from "../backends/facade.ts";
import { type KernelName, kernels, type Operations, operationsOver } from "../kernels/index.ts";
import { tensorsIn } from "../kernels/kernel.ts";
import { ShapeError, sizeOf, type Tensor, UnsupportedError } from "../tensor/tensor.ts";

/** An operation that was called: with what, and all that it made. */
export interface Step {
  readonly name: KernelName;
  readonly args: readonly unknown[];
  readonly outputs: readonly Tensor[];
}

/** A segment that was run without remembering its steps. */
interface Segment {
  readonly body: () => Tensor;
  readonly outputs: readonly [Tensor];
}

/** What a tape is: a place to remember, and the operations themselves. */
const Remembering = Object as unknown as new () => Operations;

/**
 * A backend that remembers: operations called on the tape run on the backend,
 * those that lead from a parameter are remembered, and `backward` replays them
 * in reverse. No operation is named here; each brings its own backward pass.
 *
 *   const tape = new Tape(backend, parameters);
 *   backend.scope(() => {
 *     const loss = model(tape, batch);
 *     tape.backward(loss, seed);
 *   });
 *   … tape.gradients.get(parameter) …
 *   tape.clear();
 *
 * Forward pass and `backward` belong into one scope of the backend. Views
 * (`rows`, `reshape`) of tensors that lead from a parameter are refused.
 */
export class Tape extends Remembering {
  readonly #backend: Backend;
  readonly #parameters: ReadonlySet<Tensor>;
  readonly #gradients = new Map<Tensor, Tensor>();
  /** The parameters and all that was made from them. */
  readonly #tracked = new WeakSet<Tensor>();
  #steps: (Step | Segment)[] = [];
  #remembers = true;

  constructor(backend: Backend, parameters: Iterable<Tensor>) {
    super();
    this.#backend = backend;
    this.#parameters = new Set(parameters);
    for (const parameter of this.#parameters) this.#tracked.add(parameter);
    Object.assign(
      this,
      operationsOver(
        (name, args) => this.#run(name, args),
        (body) => this.segment(body),
      ),
    );
  }

  /** By parameter, the sum of its gradients in all `backward` calls since the last `clear`. They outlive scopes. */
  get gradients(): ReadonlyMap<Tensor, Tensor> {
    return this.#gradients;
  }

  /**
   * A recomputation boundary: of all that `body` makes only the result stays,
   * and `backward` runs `body` again when it gets there. Same gradients, bit
   * for bit; memory of one segment instead of all, for one more forward pass.
   */
  segment(body: () => Tensor): Tensor {
    const remembered = this.#remembers;
    this.#remembers = false;
    try {
      const output = this.#backend.scope(body);
      if (remembered && this.#tracked.has(output)) this.#steps.push({ body, outputs: [output] });
      return output;
    } finally {
      this.#remembers = remembered;
    }
  }

  /**
   * Adds the gradients of Σ dy⊙result to those of the parameters and gives
   * them all, by parameter. Frees what the tape remembered, each tensor as soon
   * as nothing needs it any more, except `result` and `dy`; the tape is then
   * empty and ready for the next forward pass.
   */
  backward(result: Tensor, dy: Tensor): ReadonlyMap<Tensor, Tensor> {
    if (!this.#tracked.has(result)) {
      throw new UnsupportedError(
        `tape: the result (${result.shape.join("×")}) does not come from a parameter on this tape; call the operations on the tape`,
      );
    }
    if (sizeOf(dy.shape) !== sizeOf(result.shape)) {
      throw new ShapeError(`tape: dy needs shape ${result.shape.join("×")}, got ${dy.shape.join("×")}`);
    }
    const steps = this.#steps;
    this.#steps = [];
    this.#replay(steps, result, dy, new Map());
    return this.#gradients;
  }

  /** Forgets the steps and frees the gradients. */
  clear(): void {
    this.#steps = [];
    for (const gradient of this.#gradients.values()) this.#backend.free(gradient);
    this.#gradients.clear();
  }

  #run(name: KernelName, args: readonly unknown[]): Tensor {
    const leads = kernels[name].differentiable.some((i) => this.#leads(name, args[i] as Tensor));
    const outputs = this.#backend.forward(name, args);
    if (leads) this.#tracked.add(outputs[0]);
    if (leads && this.#remembers) this.#steps.push({ name, args, outputs });
    else for (let i = 1; i < outputs.length; i++) this.#backend.free(outputs[i]);
    return outputs[0];
  }

  #leads(name: KernelName, t: Tensor): boolean {
    if (this.#tracked.has(t)) return true;
    if (t instanceof Handle && t.base && this.#tracked.has(t.base)) {
      throw new UnsupportedError(
        `tape: ${name} got a view (${t.shape.join("×")}) of a tensor that needs a gradient, which would be lost; use the whole tensor`,
      );
    }
    return false;
  }

  /** Replays steps in reverse; `gradients` holds those of tensors that are not parameters. */
  #replay(
    steps: (Step | Segment)[],
    result: Tensor,
    dyOfResult: Tensor,
    gradients: Map<Tensor, Tensor>,
  ): void {
    gradients.set(result, dyOfResult);
    const give = (t: Tensor, gradient: Tensor) => {
      const isParameter = this.#parameters.has(t);
      const sums = isParameter ? this.#gradients : gradients;
      if (!sums.has(t) && isParameter) this.#backend.keep(gradient);
      addTo(this.#backend, sums, t, gradient);
    };
    for (let step = steps.pop(); step; step = steps.pop()) {
      const dy = gradients.get(step.outputs[0]);
      gradients.delete(step.outputs[0]);
      if (dy && "body" in step) this.#replaySegment(step.body, dy, gradients);
      else if (dy && "name" in step) pullBack(this.#backend, step, dy, (t) => this.#tracked.has(t), give);
      if (dy && dy !== dyOfResult) this.#backend.free(dy);
      for (const output of step.outputs) if (output !== result) this.#backend.free(output);
    }
  }

  #replaySegment(body: () => Tensor, dy: Tensor, gradients: Map<Tensor, Tensor>): void {
    this.#backend.scope(() => {
      const result = body();
      const steps = this.#steps;
      this.#steps = [];
      this.#replay(steps, result, dy, gradients);
      return [...gradients.values()];
    });
  }
}

/** Runs the backward pass of one step and hands each gradient that is wanted to `give`. */
export function pullBack(
  backend: Backend,
  { name, args, outputs }: Step,
  dy: Tensor,
  wants: (t: Tensor) => boolean,
  give: (t: Tensor, gradient: Tensor) => void,
): void {
  const tensors = tensorsIn(args);
  const { differentiable } = kernels[name];
  const wanted = tensors.map((t, i) => differentiable.includes(i) && wants(t));
  const gradients = backend.backward(name, args, outputs, dy, wanted);
  for (const [i, gradient] of gradients.entries()) if (gradient) give(tensors[i], gradient);
}

/** Adds a gradient to the sum of those that a tensor has already, and frees it; the first becomes the sum. */
export function addTo(backend: Backend, sums: Map<Tensor, Tensor>, t: Tensor, gradient: Tensor): void {
  const sum = sums.get(t);
  if (sum) {
    backend.accumulate(sum, gradient, 1);
    backend.free(gradient);
  } else {
    sums.set(t, gradient);
  }
}
