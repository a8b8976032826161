import { Tape } from "../autograd/tape.ts";
import type { Backend } from "../backends/backend.ts";
import type { HostTensor, Tensor } from "../tensor/tensor.ts";
import { adamwRule } from "./adamw.ts";

/** Smallest size of a tensor's numbers by which its rate is counted: of one that starts at zero. */
const LEAST_SIZE = 0.01;

/**
 * Parameters on a backend that AdamW moves without decay, each at `rate` times
 * the root mean square of its first values, so that scales, books and factors of any
 * size learn at one pace: for methods that tune parts of a model.
 */
export class Fit {
  readonly tensors: ReadonlyMap<string, Tensor>;
  readonly tape: Tape;
  readonly #backend: Backend;
  readonly #rule = adamwRule({ beta1: 0.9, beta2: 0.95, epsilon: 1e-10, clip: 0 });
  readonly #states: ReadonlyMap<string, readonly Tensor[]>;
  readonly #sizes: ReadonlyMap<string, number>;
  readonly #norm: Tensor;
  #step = 0;

  constructor(backend: Backend, parameters: ReadonlyMap<string, HostTensor>) {
    const keep = (t: Tensor) => backend.keep(t);
    const all = [...parameters];
    this.#backend = backend;
    this.#norm = keep(backend.zeros([1]));
    this.tensors = new Map(all.map(([name, value]) => [name, keep(backend.upload(value))]));
    this.#sizes = new Map(all.map(([name, value]) => [name, paceOf(value)]));
    this.#states = new Map(
      all.map(([name, { shape }]) => [
        name,
        this.#rule.states(shape).map((state) => keep(backend.zeros(state.shape, state.format))),
      ]),
    );
    this.tape = new Tape(backend, this.tensors.values());
  }

  /** Moves every parameter that the tape has a gradient of, and forgets the gradients. */
  step(rate: number): void {
    this.#step++;
    for (const [name, tensor] of this.tensors) {
      const gradient = this.tape.gradients.get(tensor);
      if (!gradient) continue;
      this.#rule.move(this.#backend, tensor, gradient, this.#states.get(name)!, {
        step: this.#step,
        rate: rate * this.#sizes.get(name)!,
        decay: 0,
        norm: this.#norm,
      });
    }
    this.tape.clear();
  }

  async values(): Promise<Map<string, Float32Array>> {
    const read = async ([name, t]: readonly [string, Tensor]) =>
      [name, (await this.#backend.read(t)) as Float32Array] as const;
    return new Map(await Promise.all([...this.tensors].map(read)));
  }

  free(): void {
    this.tape.clear();
    for (const states of this.#states.values()) for (const t of states) this.#backend.free(t);
    for (const t of [...this.tensors.values(), this.#norm]) this.#backend.free(t);
  }
}

/** The size of a tensor's first values, by which its rate counts: their root mean square, or a least size. */
export function paceOf({ data }: HostTensor): number {
  const values = data as Float32Array;
  const mean = values.reduce((sum, v) => sum + v * v, 0) / Math.max(1, values.length);
  return Math.max(LEAST_SIZE, Math.sqrt(mean));
}
