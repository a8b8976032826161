import { z } from "zod";
import type { Backend } from "../backends/backend.ts";
import { decodeWeight } from "../formats/index.ts";
import type { Operations } from "../kernels/index.ts";
import type { Model } from "../models/model.ts";
import { Fit } from "../optimization/fit.ts";
import { rateAt } from "../optimization/schedules.ts";
import { pauses } from "../record/pause.ts";
import type { Job } from "../record/record.ts";
import { generator, permutation } from "../tensor/random.ts";
import { type HostTensor, hostTensor, InputError, matrix, type Tensor } from "../tensor/tensor.ts";
import type { Weight } from "../tensor/weight.ts";
import { recode } from "./pv-tuning.ts";
import { adapterKeys, type Tunable, tunable, tunedParts } from "./tunable.ts";

/** How the parts of a block's matrices are tuned. */
export const tuningSchema = z.strictObject({
  /** What moves, where a matrix has it. */
  parts: z
    .array(z.enum(tunedParts))
    .min(1)
    .default([...tunedParts]),
  /** Largest step of a parameter, as a share of the size of its numbers. */
  rate: z.number().positive().default(3e-3),
  /** Passes over the sequences at most. */
  epochs: z.int().min(1).default(8),
  /** Passes without a better loss on the held-out sequences after which tuning stops. */
  patience: z.int().min(1).default(3),
  /** Sequences of a step. */
  batch: z.int().min(1).default(8),
  ...adapterKeys,
  /**
   * PV-Tuning: codes move too, in rounds of one pass that lets the matrices move freely and of tuning the parts again, as long
   * as the held-out error falls.
   */
  codes: z
    .strictObject({
      /** τ: share of the vectors that may have other codes after a round. */
      share: z.number().positive().max(1).default(0.01),
      rounds: z.int().min(1).default(4),
      /** Largest step of a weight, as a share of the size of its matrix' weights. */
      rate: z.number().positive().default(0.1),
    })
    .optional(),
});

export type TuningOptions = z.output<typeof tuningSchema>;

/** A block that is tuned: its stored matrices, and what else it needs on the backend (norms). */
export interface TunedBlock {
  readonly model: Model;
  readonly backend: Backend;
  readonly rope: Tensor;
  readonly i: number;
  readonly matrices: ReadonlyMap<string, Weight>;
  readonly others: ReadonlyMap<string, Tensor>;
}

/** Sequences of `lengths` tokens: what goes into the block, and what the float block makes of it. */
export interface TuningData {
  readonly lengths: readonly number[];
  input(j: number): Promise<Float32Array>;
  output(j: number): Promise<Float32Array>;
}

/** The block's relative error ‖y − t‖²/‖t‖² on held-out sequences, before and after. */
export interface TuningResult {
  readonly matrices: ReadonlyMap<string, Weight>;
  readonly before: number;
  readonly after: number;
  readonly epochs: number;
}

/**
 * Tunes the parts of a block's matrices so that the block, on inputs as the
 * compressed blocks before it make them, gives what the float block gives of the same
 * inputs: AdamW on ‖y − t‖²/‖t‖², an eighth of the sequences held out; the best pass is kept.
 *
 * ReALLM (Leconte et al., 2024, https://arxiv.org/abs/2405.13155) and AQLM (Egiazarian et al., 2024,
 * https://arxiv.org/abs/2401.06118, section 3.4) tune so; rates relative to the size of the numbers are ours. With `codes`
 * the rounds are those of PV-Tuning (Malinovskii et al., 2024, https://arxiv.org/abs/2405.14852, algorithm 1): parts (V),
 * then codes (P), whose direction is that of AdamW on the matrices as if they were free.
 */
export async function tuneBlock(
  block: TunedBlock,
  data: TuningData,
  options: TuningOptions,
  job: Job = {},
): Promise<TuningResult> {
  const sequences = data.lengths.length;
  if (sequences < 2)
    throw new InputError(`tuning: needs at least 2 windows of calibration text, got ${sequences}`);
  const order = permutation(generator(options.seed), sequences);
  const count = Math.max(1, Math.floor(sequences / 8));
  const split = { held: order.subarray(0, count), learned: order.subarray(count) };
  const run: Run = { block, data, split, options, job };

  let best = await tuneParts(run, block.matrices);
  const { before } = best;
  let { epochs } = best;
  for (let round = 0; options.codes && round < options.codes.rounds; round++) {
    const next = await tuneParts(run, await moveCodes(run, best.matrices, options.codes));
    epochs += next.epochs + 1;
    if (next.after >= best.after) break;
    best = next;
  }
  return { ...best, before, epochs };
}

interface Run {
  readonly block: TunedBlock;
  readonly data: TuningData;
  /** Sequences that decide, and those that are learned from. */
  readonly split: { readonly held: Uint32Array; readonly learned: Uint32Array };
  readonly options: TuningOptions;
  readonly job: Job;
}

/** Codes stay. */
async function tuneParts(run: Run, matrices: ReadonlyMap<string, Weight>): Promise<TuningResult> {
  const { block, options } = run;
  const { backend } = block;
  const moves = new Set(options.parts);
  const tunables = new Map([...matrices].map(([name, weight]) => [name, tunable(weight, moves)]));
  const keys = keysOf(tunables);
  const parameters = new Map(
    [...tunables].flatMap(([name, one]) =>
      [...one.parameters].map(([path, value]) => [keys.get(name)!.get(path)!, value] as const),
    ),
  );
  const ownOf = <T>(name: string, values: ReadonlyMap<string, T>) =>
    new Map([...keys.get(name)!].map(([path, key]) => [path, values.get(key)!]));
  if (parameters.size === 0) {
    throw new InputError(
      `tuning: these matrices have none of ${options.parts.join(", ")}; name other parts, or add a rank or magnitudes`,
    );
  }
  const opened = new Map([...tunables].map(([name, one]) => [name, one.open(backend)]));
  try {
    const tensors: Tensors = (ops, values) =>
      new Map([...opened].map(([name, one]) => [name, one.tensor(ops, ownOf(name, values))]));
    const { before, after, values, epochs } = await descend(run, parameters, tensors, options);
    const stored = [...tunables].map(([name, one]) => [name, one.stored(ownOf(name, values))] as const);
    return { matrices: new Map(stored), before, after, epochs };
  } finally {
    for (const one of opened.values()) one.free();
  }
}

/** Codes move toward where one pass takes the matrices when nothing holds them. */
async function moveCodes(
  run: Run,
  matrices: ReadonlyMap<string, Weight>,
  { share, rate }: NonNullable<TuningOptions["codes"]>,
): Promise<Map<string, Weight>> {
  const { backend } = run.block;
  const floats = [...matrices].map(
    ([name, weight]) => [name, hostTensor(weight.shape, decodeWeight(weight).data)] as const,
  );
  const tensors: Tensors = (_, values) => values;
  const { last } = await descend(run, new Map(floats), tensors, { rate, epochs: 1, patience: 1 });
  const moved = new Map<string, Weight>();
  for (const [name, weight] of matrices) {
    const [rows, cols] = weight.shape;
    const target = matrix(rows, cols, last.get(name)!);
    moved.set(name, (await recode(backend, weight, target, { share })).weight);
  }
  return moved;
}

/** The block's matrices for one forward pass, of the parameters. */
type Tensors = (ops: Operations, values: ReadonlyMap<string, Tensor>) => ReadonlyMap<string, Tensor>;

interface Descended {
  /** Mean error of the held-out sequences, at the start and at its best. */
  readonly before: number;
  readonly after: number;
  /** The parameters at the best pass and at the last. */
  readonly values: ReadonlyMap<string, Float32Array>;
  readonly last: ReadonlyMap<string, Float32Array>;
  readonly epochs: number;
}

async function descend(
  { block, data, split, options, job }: Run,
  parameters: ReadonlyMap<string, HostTensor>,
  tensors: Tensors,
  { rate, epochs, patience }: Pick<TuningOptions, "rate" | "epochs" | "patience">,
): Promise<Descended> {
  const { model, backend, rope, i, others } = block;
  const { held, learned } = split;
  const { batch, seed } = options;
  const { dim } = model.config;
  const pause = pauses(job);
  const fit = new Fit(backend, parameters);
  const random = generator(seed + 1);
  try {
    const before = await losses(held);
    let best = { loss: before, values: await fit.values() };
    const steps = epochs * Math.ceil(learned.length / batch);
    const schedule = { kind: "cosine", peak: rate, warmup: Math.ceil(steps / 20), final: 0.1 } as const;
    let step = 0;
    let epoch = 0;
    for (let worse = 0; epoch < epochs && worse < patience; epoch++) {
      const shuffled = permutation(random, learned.length);
      for (let at = 0; at < learned.length; at += batch) {
        const some = shuffled.subarray(at, at + batch);
        for (const j of some) await error(learned[j], some.length);
        fit.step(rateAt(schedule, step++, steps));
        await pause();
      }
      const loss = await losses(held);
      if (loss < best.loss) {
        best = { loss, values: await fit.values() };
        worse = 0;
      } else worse++;
      job.onProgress?.({
        task: `tune block ${i}`,
        done: epoch + 1,
        total: epochs,
        unit: "passes",
        note: `error ${loss.toExponential(3)}, ${before.toExponential(3)} before`,
      });
    }
    return { before, after: best.loss, values: best.values, last: await fit.values(), epochs: epoch };
  } finally {
    fit.free();
  }

  /** Mean error of some sequences. */
  async function losses(some: Uint32Array): Promise<number> {
    let sum = 0;
    for (const j of some) {
      sum += await error(j);
      await pause();
    }
    return sum / some.length;
  }

  /** ‖y − t‖²/‖t‖² of sequence j; with `among` its gradient over so many sequences goes onto the tape. */
  async function error(j: number, among?: number): Promise<number> {
    const [x, t] = [await data.input(j), await data.output(j)];
    const time = data.lengths[j];
    const all = t.reduce((sum, v) => sum + v * v, 0) || 1;
    const ops = among === undefined ? backend : fit.tape;
    const lost = backend.scope(() => {
      const weights = new Map([...others, ...tensors(ops, fit.tensors)]);
      const input = backend.upload(hostTensor([time, dim], x));
      const y = model.block(ops, i, input, weights, { batch: 1, time, from: 0 }, rope);
      const target = backend.upload(hostTensor([time, dim], t));
      const difference = backend.combine(y, target, 1, -1);
      const norm = backend.zeros([1]);
      backend.squaredNorm(norm, difference, 0);
      if (among !== undefined) {
        const share = 2 / (all * among);
        fit.tape.backward(y, backend.combine(difference, difference, share / 2, share / 2));
      }
      return norm;
    });
    const [sum] = await backend.read(lost);
    backend.free(lost);
    return sum / all;
  }
}

/**
 * Under what key each matrix finds the parameter of each of its paths. A book that matrices share stays one, so that it
 * is stored once for the block, not for every matrix.
 */
function keysOf(tunables: ReadonlyMap<string, Tunable>): Map<string, Map<string, string>> {
  const books: { key: string; data: HostTensor["data"] }[] = [];
  const keyOf = (name: string, { parameters, books: own }: Tunable, path: string) => {
    const key = `${name}/${path}`;
    if (!own.has(path)) return key;
    const { data } = parameters.get(path)!;
    const same = books.find(
      (book) => book.data.length === data.length && book.data.every((v, i) => v === data[i]),
    );
    if (!same) books.push({ key, data });
    return same?.key ?? key;
  };
  return new Map(
    [...tunables].map(([name, one]) => [
      name,
      new Map([...one.parameters.keys()].map((path) => [path, keyOf(name, one, path)])),
    ]),
  );
}
