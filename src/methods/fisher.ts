import { Tape } from "../autograd/tape.ts";
import type { Backend } from "../backends/backend.ts";
import type { TensorSource } from "../files/file.ts";
import { decodeWeight } from "../formats/index.ts";
import type { Model, Weights } from "../models/model.ts";
import { ropeTable } from "../models/rope-table.ts";
import { pauses } from "../record/pause.ts";
import type { Job } from "../record/record.ts";
import { hostTensor, sizeOf, type Tensor } from "../tensor/tensor.ts";
import { activations } from "./activations.ts";

/** The diagonal Fisher information of a model's linear layers. */
export interface Fisher {
  /** F (rows·cols) of the matrix of this name. */
  of(name: string): Promise<Float32Array>;
  close(): Promise<void>;
}

/**
 * F = Σ_s (∂ℓ_s/∂W)², element by element, ℓ_s the mean of −ln p over the
 * predicted tokens of calibration sequence s, nats, of the float model: what an
 * error E of a matrix adds to the loss is then ∝ Σ F⊙E⊙E, other terms of the
 * second order left out. Guo et al., 2023 (https://arxiv.org/abs/2311.12023), section 3.3.
 *
 * Costs a forward and, block by block from the last to the first, a forward and
 * a backward pass over the calibration text. On the backend are the weights and
 * gradients of one block, and what it computes for one sequence. Kept are the
 * states of all sequences before every block, 4·(layers + 1)·tokens·dim bytes, and 4 bytes for every weight of F, each in
 * memory up to `limit` bytes, else in a temporary file.
 */
export async function openFisher(
  {
    model,
    source,
    backend,
  }: { readonly model: Model; readonly source: TensorSource; readonly backend: Backend },
  calibration: readonly Int32Array[],
  limit: number,
  job: Job,
): Promise<Fisher> {
  const { dim, layers } = model.config;
  const pause = pauses(job);
  const linears = model.tensors.filter(({ role }) => role === "linear");
  const place = new Map(linears.map(({ name }, n) => [name, n]));
  const information = await activations(
    linears.map(({ shape }) => sizeOf(shape)),
    limit,
  );
  const states = await activations(
    Array.from({ length: layers + 1 }, () => calibration.map((ids) => ids.length * dim)).flat(),
    limit,
  );
  const before = (i: number, j: number) => i * calibration.length + j;
  const rope = backend.upload(
    ropeTable(
      model.config,
      calibration.reduce((most, ids) => Math.max(most, ids.length), 0),
    ),
  );
  const passes = calibration.length * (2 * layers + 2);
  let done = 0;

  /** Some work with the weights of a block, or of none, for every sequence. */
  async function each(block: number | undefined, work: (weights: Weights, j: number) => Promise<void>) {
    const weights = new Map<string, Tensor>();
    try {
      for (const { name, shape, block: own } of model.tensors) {
        if (own !== block) continue;
        weights.set(name, backend.upload(hostTensor(shape, decodeWeight(await source.read(name)).data)));
        await pause();
      }
      for (let j = 0; j < calibration.length; j++) {
        job.onProgress?.({ task: "fisher", done: done++, total: passes, unit: "passes" });
        await work(weights, j);
        await pause();
      }
    } finally {
      for (const tensor of weights.values()) backend.free(tensor);
    }
  }

  async function read(i: number, j: number): Promise<Tensor> {
    return backend.upload(hostTensor([calibration[j].length, dim], await states.read(before(i, j))));
  }

  async function keep(i: number, j: number, tensor: Tensor): Promise<void> {
    await states.write(before(i, j), (await backend.read(tensor)) as Float32Array);
  }

  async function forward(i: number, j: number, body: () => Tensor): Promise<void> {
    const x = backend.scope(body);
    await keep(i, j, x);
    backend.free(x);
  }

  /** Puts the gradient by the states before block i in their place, and shows those by `parameters`. */
  async function backward(
    i: number,
    j: number,
    body: (tape: Tape, x: Tensor) => { readonly y: Tensor; readonly dy: Tensor },
    parameters: readonly Tensor[] = [],
    show: (gradient: Float32Array, n: number) => void = () => {},
  ): Promise<void> {
    const x = await read(i, j);
    const tape = new Tape(backend, [x, ...parameters]);
    try {
      backend.scope(() => {
        const { y, dy } = body(tape, x);
        tape.backward(y, dy);
      });
      for (const [n, parameter] of parameters.entries()) {
        show((await backend.read(tape.gradients.get(parameter)!)) as Float32Array, n);
      }
      await keep(i, j, tape.gradients.get(x)!);
    } finally {
      tape.clear();
      backend.free(x);
    }
  }

  const spanOf = (j: number) => ({ batch: 1, time: calibration[j].length, from: 0 });

  async function work(): Promise<void> {
    await each(undefined, (weights, j) => {
      const ids = calibration[j];
      return forward(0, j, () =>
        model.embed(backend, backend.upload(hostTensor([ids.length], ids)), weights),
      );
    });
    for (let i = 0; i < layers; i++) {
      await each(i, async (weights, j) => {
        const x = await read(i, j);
        await forward(i + 1, j, () => model.block(backend, i, x, weights, spanOf(j), rope));
        backend.free(x);
      });
    }
    await each(undefined, (weights, j) =>
      backward(layers, j, (tape, x) => {
        const n = calibration[j].length;
        const targets = Int32Array.from({ length: n }, (_, t) => (t + 1 < n ? calibration[j][t + 1] : -1));
        const share = Float32Array.from(targets, (target) => (target < 0 ? 0 : 1 / (n - 1)));
        const hidden = model.finalNorm(tape, x, weights);
        const y = tape.crossEntropy(
          hidden,
          weights.get(model.headWeight)!,
          backend.upload(hostTensor([n], targets)),
        );
        return { y, dy: backend.upload(hostTensor([n], share)) };
      }),
    );
    for (let i = layers - 1; i >= 0; i--) {
      const own = linears.filter(({ block }) => block === i);
      const F = own.map(({ shape }) => new Float32Array(sizeOf(shape)));
      await each(i, async (weights, j) => {
        const dy = await read(i + 1, j);
        await backward(
          i,
          j,
          (tape, x) => ({ y: model.block(tape, i, x, weights, spanOf(j), rope), dy }),
          own.map(({ name }) => weights.get(name)!),
          (gradient, n) => addSquares(F[n], gradient),
        );
        backend.free(dy);
      });
      for (const [n, { name }] of own.entries()) await information.write(place.get(name)!, F[n]);
    }
  }

  try {
    await work();
  } catch (error) {
    await information.close();
    throw error;
  } finally {
    backend.free(rope);
    await states.close();
  }
  return {
    of: (name) => information.read(place.get(name)!),
    close: () => information.close(),
  };
}

/** sums += gradient² */
function addSquares(sums: Float32Array, gradient: Float32Array): void {
  for (let k = 0; k < sums.length; k++) sums[k] += gradient[k] * gradient[k];
}
