import { Tape } from "../autograd/tape.ts";
import type { Backend } from "../backends/backend.ts";
import type { LayerSizes } from "../formats/decoder.ts";
import { decodeWeight, encodeWeight, formatByName } from "../formats/index.ts";
import { type Decoder, drawn } from "../kernels/compound.ts";
import type { Operations } from "../kernels/index.ts";
import { adamw } from "../optimization/adamw.ts";
import { rateAt } from "../optimization/schedules.ts";
import { pauses } from "../record/pause.ts";
import type { Job } from "../record/record.ts";
import { generator, permutation } from "../tensor/random.ts";
import { type HostTensor, hostTensor, InputError, matrix, type Tensor } from "../tensor/tensor.ts";
import type { DecoderLayer, Weight } from "../tensor/weight.ts";
import { betterCodes, nearestTo } from "./decoder-search.ts";
import { type DecoderShape, encoderFor, initialLayers, upscaling } from "./decoder-shape.ts";
import { kMeans } from "./k-means.ts";

export interface TrainingOptions {
  /** Entries of the book of the latent. */
  readonly entries: number;
  readonly steps: number;
  /** Learning rate at its peak. */
  readonly rate?: number;
  /** Patches of a step. Default: a sixteenth of all, those of 65536 weights at most. */
  readonly batch?: number;
  readonly seed?: number;
}

/** What is to be drawn. */
export interface DrawingTask {
  /** Patches and what their elements count, each (patches, p·p). */
  readonly x: Float32Array;
  readonly m: Float32Array;
  readonly layers: readonly LayerSizes[];
}

/** Numbers as they are stored, and the error that they leave. */
export interface TrainedDecoder {
  /** Mean of m·(D(ẑ) − x)². */
  readonly error: number;
  /** (patches, places of a latent image, codes of a place) */
  readonly codes: Int32Array;
  readonly book: Weight;
  readonly layers: readonly DecoderLayer[];
}

/** Share of the steps in which the rate rises; the latent has no codes yet. */
const WARMUP = 0.1;
/** Share after which the encoder is done: codes are searched for, and stay between searches. */
const CODED = 0.5;
/**
 * Searches at most, the steps for each of them at least, and the entries near the present one that are tried. A search draws
 * all patches some 40 times over, or 80 where wider kernels reach further.
 */
const SEARCHES = 6;
const STEPS_OF_SEARCH = 100;
const NEAR = 8;
/** What the distance of the latent from its codes counts: for the book, and for the encoder (β). */
const PULL = { book: 1, encoder: 0.25 };
/** Times in a run that codes without use are moved, and that the error of all is measured. */
const REVIVALS = 30;
const MEASURED = 12;

/**
 * A decoder D and the codes of all patches x, by alternating what is open to gradients with what is not.
 *
 *   z = E(x),  ẑ = book[nearest(z)],  loss = Σ m·(D(ẑ) − x)² + ‖sg(z) − ẑ‖² + ¼‖z − sg(ẑ)‖²
 *
 * E is a network that mirrors D and is not stored. Every forward pass has the numbers that are stored: D's weights as
 * their format keeps them, the book in 16 bits; gradients pass these roundings, and the choice of codes, straight
 * through. Adam; 10 % of the steps without codes while the rate rises, then the book of k-means; the rate falls by half
 * a cosine. Entries without use move to vectors of z. From half of the steps on there is no encoder: the codes are those
 * of `betterCodes`, and D and the book are trained for them. The best of some moments is kept, by the error over all.
 *
 * The codes and their two pulls: van den Oord et al., 2017 (https://arxiv.org/abs/1711.00937), eq. 3. Ours: the search.
 */
export async function trainDecoder(
  backend: Backend,
  { x, m, layers }: DrawingTask,
  options: DecoderShape & TrainingOptions,
  job: Job = {},
): Promise<TrainedDecoder> {
  const { patch, strides, length, entries, steps, rate = 1e-2, seed = 0 } = options;
  const channels = options.codes * length;
  const side = patch / upscaling(strides);
  const area = patch ** 2;
  const patches = x.length / area;
  const batch = Math.min(options.batch ?? Math.ceil(Math.min(65536, x.length / 16) / area), patches);
  const vectors = side ** 2 * options.codes; // of a patch
  const format = formatByName(options.format);
  const random = generator(seed);
  const pause = pauses(job);
  const mine: Tensor[] = [];
  const own = (host: HostTensor) => {
    const t = backend.keep(backend.upload(host));
    mine.push(t);
    return t;
  };
  const zeros = (...shape: number[]) =>
    own(hostTensor(shape, new Float32Array(shape.reduce((a, b) => a * b))));

  const gathered = strides.toReversed();
  const encoder = initialLayers(encoderFor(options), random, 1, gathered).map(own);
  // The numbers that are trained, and beside them those that are used: as they will be stored.
  const trained = initialLayers(layers, random, upscaling(strides) ** 2).map(own);
  const used = trained.map(({ shape }) => zeros(...shape));
  const [book, usedBook] = [zeros(entries, length), zeros(entries, length)];
  const uses = zeros(entries, length);
  const ones = own(hostTensor([1, length], new Float32Array(length).fill(1)));
  const decoder: Decoder["layers"] = layers.map((sizes, i) => {
    return { ...sizes, weights: used[2 * i], biases: used[2 * i + 1] };
  });
  const optimizer = adamw(
    backend,
    [...trained, book, ...encoder].map((tensor) => ({ tensor, decays: false, role: "linear" })),
    { beta1: 0.9, beta2: 0.99, epsilon: 1e-8, clip: 1 },
  );
  /** Where the codes are fixed. */
  let fixed: Int32Array | undefined;

  try {
    const [warmup, coded] = [WARMUP, CODED].map((share) => Math.ceil(share * steps));
    const searches = Math.min(SEARCHES, Math.ceil(steps / STEPS_OF_SEARCH));
    const isTurn = (step: number, from: number, times: number) =>
      step >= from && (step - from) % Math.max(1, Math.floor((steps - from) / times)) === 0;
    let order = permutation(random, patches);
    let next = 0;
    let best: TrainedDecoder | undefined;
    for (let step = 0; step < steps; step++) {
      if (step === warmup) await beginBook();
      if (isTurn(step, coded, searches)) {
        await settle();
        fixed = await search(fixed ?? (await encodedAll()).codes);
      }
      if (next + batch > patches) [order, next] = [permutation(random, patches), 0];
      const which = order.subarray(next, next + batch);
      next += batch;
      await settle();
      const peak = rateAt({ kind: "cosine", peak: rate, warmup, final: 0 }, step, steps);
      const z = backend.scope(() => {
        const made = fixed ? ofFixed(which, fixed) : ofEncoded(which, step >= warmup);
        optimizer.step(made.gradients, step + 1, peak, 0);
        for (const tape of made.tapes) tape.clear();
        return made.z;
      });
      if (z && isTurn(step, warmup + 1, REVIVALS)) await revive((await backend.read(z)) as Float32Array);
      if (z) backend.free(z);
      if (step > warmup && (isTurn(step + 1, 1, MEASURED) || step + 1 === steps)) {
        const now = await measure();
        if (!best || now.error < best.error) best = now;
        const note = now.error.toFixed(4);
        job.onProgress?.({ task: "decoder", done: step + 1, total: steps, unit: "steps", note });
      }
      await pause();
    }
    if (!best) throw new InputError(`decoder: ${steps} steps are too few; take 20 or more`);
    return best;
  } finally {
    optimizer.dispose();
    for (const t of mine) backend.free(t);
  }

  /** Rounds what is trained to what a file keeps, and uses that. */
  async function settle(): Promise<{ layers: Weight[]; book: Weight }> {
    const stored: Weight[] = [];
    const half = formatByName("f16");
    for (const [i, t] of [...trained, book].entries()) {
      const isWeights = i % 2 === 0 && t !== book;
      const values = (await backend.read(t)) as Float32Array;
      stored.push(encodeWeight(isWeights ? format : half, t.shape, values));
      backend.write(t === book ? usedBook : used[i], decodeWeight(stored[i]).data);
    }
    return { layers: stored.slice(0, -1), book: stored[trained.length] };
  }

  /** z (n·side·side, channels) of patches (n·p, p) */
  function encoded(ops: Operations, images: Tensor): Tensor {
    let [y, at, have] = [images, patch, 1];
    for (const [i, stride] of gathered.entries()) {
      const squares = ops.pixelShuffle(y, at, at, have, stride, 1);
      at /= stride;
      const around = ops.neighbourhoods(squares, at, at, stride ** 2 * have, 3);
      const [weights, biases] = encoder.slice(2 * i);
      y = ops.gelu(ops.addRow(ops.linear(around, weights), biases));
      have = weights.shape[0];
    }
    const [weights, biases] = encoder.slice(-2);
    return ops.addRow(ops.linear(y, weights), biases);
  }

  /** The nearest entries of z, and what they are. */
  function nearest(z: Tensor): { codes: Tensor; ẑ: Tensor } {
    const each = backend.reshape(z, [(z.shape[0] * channels) / length, length]);
    const codes = backend.upload(hostTensor([each.shape[0]], new Int32Array(each.shape[0])));
    backend.nearestEntries(codes, backend.zeros([each.shape[0]]), each, usedBook, ones);
    return { codes, ẑ: backend.embedding(usedBook, codes) };
  }

  /** Some patches of x or m, one below the other. */
  function images(data: Float32Array, which: ArrayLike<number>): Tensor {
    return backend.upload(hostTensor([which.length * patch, patch], gather(data, which, area)));
  }

  /** dE/dD(ẑ) of E = mean m·(D(ẑ) − x)² */
  function slope(made: Tensor, which: ArrayLike<number>): Tensor {
    const n = which.length * area;
    const away = backend.combine(made, images(x, which), 2 / n, -2 / n);
    const each = backend.scaleRows(backend.reshape(away, [n, 1]), backend.reshape(images(m, which), [n]));
    return backend.reshape(each, made.shape);
  }

  /** Gradients in the order of the optimizer, with an encoder; z is what it makes, kept for entries that need a place. */
  function ofEncoded(which: ArrayLike<number>, hasCodes: boolean) {
    const encoding = new Tape(backend, encoder);
    const z = encoded(encoding, images(x, which));
    const { codes, ẑ } = hasCodes ? nearest(z) : { codes: undefined, ẑ: z };
    const decoding = new Tape(backend, [ẑ, ...used]);
    const made = drawn(decoding, ẑ, decoder);
    const found = decoding.backward(made, slope(made, which));
    let dz = found.get(ẑ)!;
    let dBook: Tensor | undefined;
    if (codes) {
      const share = 2 / (z.shape[0] * channels);
      const apart = (factor: number) =>
        backend.combine(backend.reshape(z, ẑ.shape), ẑ, factor * share, -factor * share);
      dBook = backend.zeros([entries, length]);
      const masses = backend.zeros([entries, length]);
      backend.addClusters(dBook, masses, backend.add(dz, apart(-PULL.book)), codes, ones);
      backend.accumulate(uses, masses, 1);
      dz = backend.add(dz, apart(PULL.encoder));
    }
    const ofEncoder = encoding.backward(z, dz);
    const gradients = [...used.map((t) => found.get(t)), dBook, ...encoder.map((t) => ofEncoder.get(t))];
    return { gradients, z, tapes: [encoding, decoding] };
  }

  /** The same for codes that stay. */
  function ofFixed(which: ArrayLike<number>, codes: Int32Array) {
    const tape = new Tape(backend, [...used, usedBook]);
    const ids = gather(codes, which, vectors);
    const made = drawn(
      tape,
      tape.embedding(usedBook, backend.upload(hostTensor([ids.length], ids))),
      decoder,
    );
    const found = tape.backward(made, slope(made, which));
    return { gradients: [...used, usedBook].map((t) => found.get(t)), z: undefined, tapes: [tape] };
  }

  /** Goes over all patches: `each` makes tensors of some of them, which are read and handed to `take`. */
  async function overAll(
    each: (which: Uint32Array) => Tensor[],
    take: (data: readonly (Float32Array | Int32Array)[], first: number) => void,
  ): Promise<void> {
    for (let first = 0; first < patches; first += batch) {
      const which = Uint32Array.from({ length: Math.min(batch, patches - first) }, (_, i) => first + i);
      const made = backend.scope(() => each(which));
      const data = [];
      for (const t of made) {
        data.push(await backend.read(t));
        backend.free(t);
      }
      take(data, first);
      await pause();
    }
  }

  /** z of all, and the nearest entries. */
  async function encodedAll(): Promise<{ z: Float32Array; codes: Int32Array }> {
    const all = { z: new Float32Array(patches * vectors * length), codes: new Int32Array(patches * vectors) };
    await overAll(
      (which) => {
        const z = encoded(backend, images(x, which));
        return [z, nearest(z).codes];
      },
      ([z, codes], first) => {
        all.z.set(z, first * vectors * length);
        all.codes.set(codes, first * vectors);
      },
    );
    return all;
  }

  /** A book of the latent as it is. */
  async function beginBook(): Promise<void> {
    const { z } = await encodedAll();
    const { entries: rows } = await kMeans(backend, z, { length, entries, seed, signal: job.signal });
    backend.write(book, rows.data);
  }

  function drawnOf(codes: Int32Array): Tensor {
    const ids = backend.upload(hostTensor([codes.length], codes));
    return drawn(backend, backend.embedding(usedBook, ids), decoder);
  }

  /** Better codes than these, some patches at a time. */
  async function search(codes: Int32Array): Promise<Int32Array> {
    const rows = (await backend.read(usedBook)) as Float32Array;
    const neighbours = nearestTo(matrix(entries, length, rows), NEAR);
    const result = codes.slice();
    for (let first = 0; first < patches; first += batch) {
      const end = Math.min(first + batch, patches);
      const better = await betterCodes(
        {
          codes: codes.subarray(first * vectors, end * vectors),
          x: x.subarray(first * area, end * area),
          m: m.subarray(first * area, end * area),
          draw: async (some) => {
            const made = backend.scope(() => drawnOf(some));
            const data = (await backend.read(made)) as Float32Array;
            backend.free(made);
            await pause();
            return data;
          },
        },
        {
          patch,
          layers,
          perPlace: options.codes,
          neighbours,
          near: NEAR,
        },
      );
      result.set(better, first * vectors);
    }
    return result;
  }

  /** The error over all patches with the numbers that are stored. */
  async function measure(): Promise<TrainedDecoder> {
    const stored = await settle();
    const codes = fixed ?? (await encodedAll()).codes;
    let error = 0;
    await overAll(
      (which) => [drawnOf(gather(codes, which, vectors))],
      ([made], first) => {
        const from = first * area;
        for (let i = 0; i < made.length; i++) error += m[from + i] * (made[i] - x[from + i]) ** 2;
      },
    );
    return {
      error: error / x.length,
      codes: codes.slice(),
      book: stored.book,
      layers: layers.map(({ kernel, stride }, i) => {
        return { kernel, stride, weights: stored.layers[2 * i], biases: stored.layers[2 * i + 1] };
      }),
    };
  }

  /** Entries that were not the nearest to anything move to vectors of z. */
  async function revive(z: Float32Array): Promise<void> {
    const masses = (await backend.read(uses)) as Float32Array;
    const values = (await backend.read(book)) as Float32Array;
    for (let k = 0; k < entries; k++) {
      if (masses[k * length] > 0) continue;
      const from = Math.floor((random() * z.length) / length) * length;
      values.set(z.subarray(from, from + length), k * length);
    }
    backend.write(book, values);
    backend.write(uses, new Float32Array(entries * length));
  }
}

/** Rows of `size` elements by their numbers. */
function gather<T extends Float32Array | Int32Array>(data: T, which: ArrayLike<number>, size: number): T {
  const result = data.slice(0, which.length * size) as T;
  for (let i = 0; i < which.length; i++)
    result.set(data.subarray(which[i] * size, (which[i] + 1) * size), i * size);
  return result;
}
