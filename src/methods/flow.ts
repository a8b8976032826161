import type { Backend } from "../backends/backend.ts";
import type { Model } from "../models/model.ts";
import { ropeTable } from "../models/rope-table.ts";
import { pauses } from "../record/pause.ts";
import type { Job } from "../record/record.ts";
import { hostTensor, type Tensor } from "../tensor/tensor.ts";
import type { Weight } from "../tensor/weight.ts";
import { type Activations, activations } from "./activations.ts";
import { slices } from "./slices.ts";

/** Linear layers that have one input, and its H = (2/n)·Σ x·xᵀ over the n calibration tokens; the caller frees it. */
export interface Hessian {
  readonly names: readonly string[];
  readonly H: Tensor;
}

/** Calibration activations on their way through the blocks. */
export interface Flow {
  readonly rope: Tensor;
  /** What the next block is given of sequence j: (tokens of j, dim). */
  input(j: number): Promise<Float32Array>;
  /** What block i makes of each sequence, the activations staying where they are; the caller closes them. */
  outputs(i: number, block: Block): Promise<Activations>;
  embed(name: string, embedding: Weight): Promise<void>;
  /** H of the first `most` inputs of a block whose linear layers are waiting. */
  hessians(i: number, block: Block, waiting: ReadonlyMap<string, unknown>, most: number): Promise<Hessian[]>;
  /** Sends the activations through block i as it is now. */
  advance(i: number, block: Block): Promise<void>;
  close(): Promise<void>;
}

type Block = ReadonlyMap<string, Tensor>;

/**
 * Opens the way of calibration tokens through a model. Activations beyond
 * `limit` bytes are kept in a temporary file; on the backend is one sequence.
 */
export async function openFlow(
  { model, backend }: { readonly model: Model; readonly backend: Backend },
  calibration: readonly Int32Array[],
  limit: number,
  job: Job,
): Promise<Flow> {
  const { dim } = model.config;
  const pause = pauses(job);
  const tokens = calibration.reduce((sum, ids) => sum + ids.length, 0);
  const longest = calibration.reduce((most, ids) => Math.max(most, ids.length), 0);
  const sizes = calibration.map((ids) => ids.length * dim);
  const held = await activations(sizes, limit);
  const rope = backend.upload(ropeTable(model.config, longest));

  /** Block i on sequence j: the activations after it, and the inputs of the linear layers in `wanted`. */
  async function run(i: number, j: number, block: Block, wanted?: ReadonlyMap<string, unknown>) {
    const x = await held.read(j);
    const time = calibration[j].length;
    return backend.scope(() => {
      const inputs: { names: string[]; input: Tensor }[] = [];
      const tap = (name: string, input: Tensor) => {
        if (!wanted?.has(name)) return;
        const same = inputs.find((other) => other.input === input);
        if (same) same.names.push(name);
        else inputs.push({ names: [name], input });
      };
      const before = backend.upload(hostTensor([time, dim], x));
      const after = model.block(backend, i, before, block, { batch: 1, time, from: 0 }, rope, undefined, tap);
      return { after, inputs };
    });
  }

  /** Block i on every sequence, into `to`. */
  async function runAll(i: number, block: Block, to: Activations): Promise<void> {
    for (let j = 0; j < calibration.length; j++) {
      const { after } = await run(i, j, block);
      await to.write(j, (await backend.read(after)) as Float32Array);
      backend.free(after);
      await pause();
    }
  }

  return {
    rope,

    input: (j) => held.read(j),

    async outputs(i, block) {
      const made = await activations(sizes, limit);
      await runAll(i, block, made);
      return made;
    },

    async embed(name, embedding) {
      const table = backend.upload(embedding);
      try {
        for (const [j, ids] of calibration.entries()) {
          const x = backend.scope(() =>
            model.embed(backend, backend.upload(hostTensor([ids.length], ids)), new Map([[name, table]])),
          );
          await held.write(j, (await backend.read(x)) as Float32Array);
          backend.free(x);
          await pause();
        }
      } finally {
        backend.free(table);
      }
    },

    async hessians(i, block, waiting, most) {
      let found: Hessian[] = [];
      try {
        for (let j = 0; j < calibration.length; j++) {
          const { after, inputs } = await run(i, j, block, waiting);
          try {
            if (j === 0)
              found = inputs.slice(0, most).map(({ names, input }) => ({ names, H: squareOf(input) }));
            for (const [n, { H }] of found.entries()) await addRows(H, inputs[n].input);
          } finally {
            for (const t of [after, ...inputs.map(({ input }) => input)]) backend.free(t);
          }
        }
      } catch (error) {
        for (const { H } of found) backend.free(H);
        throw error;
      }
      return found;
    },

    advance: (i, block) => runAll(i, block, held),

    async close() {
      backend.free(rope);
      await held.close();
    },
  };

  function squareOf(input: Tensor): Tensor {
    const cols = input.shape[1];
    return backend.zeros([cols, cols]);
  }

  async function addRows(H: Tensor, input: Tensor): Promise<void> {
    const [rows, cols] = input.shape;
    for (const [from, to] of slices(0, rows, cols * cols)) {
      const part = backend.rows(input, from, to);
      backend.addGram(H, part, 2 / tokens);
      backend.free(part);
      await pause();
    }
  }
}
