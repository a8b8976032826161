import type { Backend } from "../backends/backend.ts";
import type { Role } from "../models/model.ts";
import { sizeOf, type Tensor } from "../tensor/tensor.ts";

/** A tensor that is trained, whether weight decay pulls at it, and what it is to its model. */
export interface Parameter {
  readonly tensor: Tensor;
  readonly decays: boolean;
  readonly role: Role;
  /** What its rate is multiplied by. Default 1. */
  readonly pace?: number;
}

/** What every optimizer is told, whatever it does with it. */
export interface CommonOptions {
  readonly beta1: number;
  readonly beta2: number;
  readonly epsilon: number;
  /** Gradients are scaled down to this norm, all parameters together; 0 for never. */
  readonly clip: number;
  /** Keeps what is remembered in memory that the system may write out to a file: `ZerosOptions` of backends. */
  readonly paged?: boolean;
}

/** Moves parameters against their gradients, and remembers what it needs for the next step. */
export interface Optimizer {
  /**
   * Moves the parameters; `gradients` in their order, `step` counted from 1. One without a gradient stays as it is.
   * When the gradients' squared norm is not finite, parameters and states stay as they are.
   */
  step(gradients: readonly (Tensor | undefined)[], step: number, rate: number, decay: number): void;
  /** Squared norm of the last step's gradients, all parameters together, before clipping (1). */
  readonly squaredNorm: Tensor;
  /** What is remembered of parameter i, by name: a checkpoint keeps `NAME/PARAMETER`. */
  state(i: number): Iterable<readonly [name: string, tensor: Tensor]>;
  /** All that is remembered, over all elements of all parameters. */
  readonly bytesPerParameter: number;
  /** Numbers about its work since the first step, for people: `lostUpdates`. Empty where there are none. */
  measures(): Promise<Readonly<Record<string, number>>>;
  /** Forgets everything, as before the first step. */
  reset(): void;
  dispose(): void;
}

/** One tensor of a state: zeros at first. */
export interface StateSpec {
  readonly name: string;
  readonly shape: readonly number[];
  readonly format: "f32" | "i32";
}

/** A step as the rule of one parameter sees it. */
export interface Step {
  readonly step: number;
  readonly rate: number;
  /** 0 for a parameter that does not decay. */
  readonly decay: number;
  /** Squared norm of all gradients. */
  readonly norm: Tensor;
}

/** How one parameter is moved. An optimizer is a rule for each of its parameters. */
export interface Rule {
  /** What is remembered of a parameter of this shape. */
  states(shape: readonly number[]): readonly StateSpec[];
  /** Moves w in place, and its states, which stand in the order of `states`. */
  move(backend: Backend, w: Tensor, gradient: Tensor, states: readonly Tensor[], step: Step): void;
  /** Called when everything was forgotten: for what depends on the parameter itself. */
  begin?(backend: Backend, w: Tensor, states: readonly Tensor[]): void;
}

/** Tensors of fewer elements keep states of 32 bits: in the whole they are next to nothing, and their largest values matter. */
const LEAST_QUANTIZED = 4096;

export interface QuantizedOptions extends CommonOptions {
  /**
   * Keeps the embedding's states in 32 bits, as the stable embedding layer of Dettmers et al., 2022, does; the other parts
   * of that layer, a normalization and initial values, belong to the model.
   */
  readonly stableEmbedding?: boolean;
}

/** A rule for each parameter: `large`, whose states have few bits, and `small` where they keep 32. */
export function quantizedRules(
  parameters: readonly Parameter[],
  { small, large }: { readonly small: Rule; readonly large: Rule },
  { stableEmbedding }: QuantizedOptions,
): Rule[] {
  return parameters.map(({ tensor, role }) =>
    sizeOf(tensor.shape) < LEAST_QUANTIZED || (role === "embedding" && stableEmbedding) ? small : large,
  );
}

/** Bytes of the states of a parameter of this shape. */
export function stateBytes(rule: Rule, shape: readonly number[]): number {
  return rule.states(shape).reduce((bytes, state) => bytes + 4 * sizeOf(state.shape), 0);
}

/** An optimizer made of rules: it owns the states, takes the norm and asks each rule to move. */
export class RuleOptimizer implements Optimizer {
  readonly squaredNorm: Tensor;
  readonly bytesPerParameter: number;
  protected readonly backend: Backend;
  readonly #parameters: readonly Parameter[];
  readonly #rules: readonly Rule[];
  readonly #states: readonly (readonly { readonly name: string; readonly tensor: Tensor }[])[];

  /** `rules` in the order of the parameters. */
  constructor(
    backend: Backend,
    parameters: readonly Parameter[],
    rules: readonly Rule[],
    { paged }: Pick<CommonOptions, "paged">,
  ) {
    this.backend = backend;
    this.#parameters = parameters;
    this.#rules = rules;
    this.squaredNorm = backend.keep(backend.zeros([1]));
    let [bytes, size] = [4, 0];
    this.#states = parameters.map(({ tensor }, i) => {
      bytes += stateBytes(rules[i], tensor.shape);
      size += sizeOf(tensor.shape);
      return rules[i].states(tensor.shape).map(({ name, shape, format }) => ({
        name,
        tensor: backend.keep(backend.zeros(shape, format, { paged })),
      }));
    });
    this.bytesPerParameter = bytes / size;
    this.#begin();
  }

  step(gradients: readonly (Tensor | undefined)[], step: number, rate: number, decay: number): void {
    const { backend, squaredNorm: norm } = this;
    const met = gradients.filter((gradient) => gradient !== undefined);
    for (const [i, gradient] of met.entries()) backend.squaredNorm(norm, gradient, i > 0 ? 1 : 0);
    for (const [i, { tensor, decays, pace = 1 }] of this.#parameters.entries()) {
      const gradient = gradients[i];
      const at = { step, rate: rate * pace, decay: decays ? decay : 0, norm };
      if (gradient) this.#rules[i].move(backend, tensor, gradient, this.#tensors(i), at);
    }
  }

  *state(i: number): Iterable<readonly [name: string, tensor: Tensor]> {
    for (const { name, tensor } of this.#states[i]) yield [name, tensor];
  }

  async measures(): Promise<Readonly<Record<string, number>>> {
    return {};
  }

  reset(): void {
    for (const states of this.#states) {
      for (const { tensor } of states) {
        const size = sizeOf(tensor.shape);
        this.backend.write(tensor, tensor.format === "i32" ? new Int32Array(size) : new Float32Array(size));
      }
    }
    this.#begin();
  }

  dispose(): void {
    for (const states of this.#states) for (const { tensor } of states) this.backend.free(tensor);
    this.backend.free(this.squaredNorm);
  }

  #begin(): void {
    for (const [i, { tensor }] of this.#parameters.entries()) {
      this.#rules[i].begin?.(this.backend, tensor, this.#tensors(i));
    }
  }

  #tensors(i: number): Tensor[] {
    return this.#states[i].map(({ tensor }) => tensor);
  }
}
