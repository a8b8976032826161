import type { Backend } from "../backends/backend.ts";
import { pauses } from "../record/pause.ts";
import { generator, permutation, type Random } from "../tensor/random.ts";
import { hostTensor, InputError, type Matrix, matrix } from "../tensor/tensor.ts";

export interface KMeansOptions {
  /** Length of a vector. */
  readonly length: number;
  /** Entries of the book. */
  readonly entries: number;
  /** (m, length): what the elements of vector i count, row i mod m. Default: all 1. */
  readonly weights?: Float32Array;
  readonly seed?: number;
  /** (entries, length): what the rounds begin with. Default: k-means++, learned of a sample first where there are many vectors. */
  readonly start?: Matrix;
  /** What may stand for the means (entries, length) of vectors of these masses (entries, length): a book of a form. Default: the means in fp16. */
  readonly form?: (means: Float32Array, masses: Float32Array) => Float32Array;
  /** Rounds at most. Default 60. */
  readonly rounds?: number;
  readonly signal?: AbortSignal;
}

export interface Book {
  /** (entries, length), numbers that fp16 holds. */
  readonly entries: Matrix;
  /** The nearest entry of every vector. */
  readonly codes: Int32Array;
  /** Σ w·(x − entry)² over all vectors. */
  readonly error: number;
}

/** A round that lowers the error by less than this share is the last. */
const IMPROVEMENT = 1e-4;
/** Vectors among which the first entries are sought, at least, and for each entry. */
const SAMPLE = [4096, 16] as const;
/** Books of more entries begin with vectors picked at random. */
const SPREAD_OUT = 1024;
/** Vectors that the first rounds look at, at least, and for each entry; those after them look at all. */
const LEARNED_OF = [1 << 16, 256] as const;

/**
 * k-means of vectors x (n, length): entries that have the least Σ w·(x − entry)²,
 * as the rounds of Lloyd (1982) find them from the start of k-means++ (Arthur and
 * Vassilvitskii, 2007). An entry that no vector is nearest to moves to the vector
 * that is worst served. Of many vectors the first rounds see a sample. Entries are rounded to fp16 as they will be stored, and
 * codes and error are those of the rounded ones.
 */
export async function kMeans(backend: Backend, x: Float32Array, options: KMeansOptions): Promise<Book> {
  const { length, entries: count, weights, seed = 0, rounds = 60, form = halves, signal } = options;
  const n = x.length / length;
  if (!Number.isInteger(n) || n < count) {
    throw new InputError(`k-means: a book of ${count} entries needs as many vectors, got ${Math.floor(n)}`);
  }
  const pause = pauses({ signal });
  const w = weights ?? new Float32Array(length).fill(1);
  const random = generator(seed);
  const start = form(await startOf(), new Float32Array(count * length).fill(1));
  const tensors = {
    x: backend.upload(hostTensor([n, length], x)),
    w: backend.upload(hostTensor([w.length / length, length], w)),
    book: backend.upload(hostTensor([count, length], start)),
    codes: backend.upload(hostTensor([n], new Int32Array(n))),
    errors: backend.zeros([n]),
    sums: backend.zeros([count, length]),
    masses: backend.zeros([count, length]),
  };
  const { x: vectors, book, codes, errors, sums, masses } = tensors;
  try {
    let entries: Float32Array<ArrayBufferLike> = start;
    let before = Number.POSITIVE_INFINITY;
    for (let round = 0; ; round++) {
      backend.nearestEntries(codes, errors, vectors, book, tensors.w);
      const each = (await backend.read(errors)) as Float32Array;
      const error = each.reduce((sum, one) => sum + one, 0);
      await pause();
      if (round === rounds || !(error < (1 - IMPROVEMENT) * before)) {
        return {
          entries: matrix(count, length, Float32Array.from(entries)),
          codes: (await backend.read(codes)) as Int32Array,
          error,
        };
      }
      before = error;
      backend.addClusters(sums, masses, vectors, codes, tensors.w);
      const [s, mass] = (await Promise.all([sums, masses].map((t) => backend.read(t)))) as Float32Array[];
      const means = s.map((sum, i) => (mass[i] > 0 ? sum / mass[i] : entries[i]));
      revive(means, mass, x, each, length);
      entries = form(means, mass);
      backend.write(book, entries);
    }
  } finally {
    for (const t of Object.values(tensors)) backend.free(t);
  }

  function begunWith({ rows, cols, data }: Matrix): Float32Array {
    if (rows === count && cols === length) return data;
    throw new InputError(
      `k-means: begins with entries of ${rows}×${cols} where the book is ${count}×${length}`,
    );
  }

  async function startOf(): Promise<Float32Array> {
    if (options.start) return begunWith(options.start);
    const few = Math.max(LEARNED_OF[0], LEARNED_OF[1] * count);
    if (n < 2 * few) return firstEntries(x, w, length, count, random);
    const sample = permutation(random, n).subarray(0, few);
    const some = { ...options, weights: weights && vectorsAt(w, sample, length) };
    return (await kMeans(backend, vectorsAt(x, sample, length), some)).entries.data;
  }
}

/** The vectors of those numbers, which begin again after the last. */
function vectorsAt(x: Float32Array, numbers: Uint32Array, length: number): Float32Array {
  const n = x.length / length;
  const picked = new Float32Array(numbers.length * length);
  for (const [k, i] of numbers.entries()) {
    const from = (i % n) * length;
    picked.set(x.subarray(from, from + length), k * length);
  }
  return picked;
}

function halves(means: Float32Array): Float32Array {
  return means.map(Math.f16round);
}

/** Entries of no mass become the vectors with the largest errors, each another one. */
function revive(
  entries: Float32Array,
  mass: Float32Array,
  x: Float32Array,
  errors: Float32Array,
  length: number,
): void {
  const dead: number[] = [];
  for (let k = 0; k < entries.length / length; k++) {
    if (!mass.subarray(k * length, (k + 1) * length).some((m) => m > 0)) dead.push(k);
  }
  if (dead.length === 0) return;
  const worst = Uint32Array.from(errors, (_, i) => i).sort((a, b) => errors[b] - errors[a] || a - b);
  for (const [i, k] of dead.entries()) {
    for (let j = 0; j < length; j++) entries[k * length + j] = x[worst[i] * length + j];
  }
}

/** k-means++: each entry is a vector drawn in proportion to its distance from those before it; of a sample of the vectors. */
function firstEntries(
  x: Float32Array,
  w: Float32Array,
  length: number,
  count: number,
  random: Random,
): Float32Array {
  const n = x.length / length;
  const rows = w.length / length;
  const sample = permutation(random, n).subarray(0, Math.max(SAMPLE[0], SAMPLE[1] * count));
  const entries = new Float32Array(count * length);
  const distances = new Float64Array(sample.length).fill(Number.POSITIVE_INFINITY);
  let chosen = 0;
  for (let k = 0; k < count; k++) {
    const at = sample[chosen] * length;
    for (let j = 0; j < length; j++) entries[k * length + j] = x[at + j];
    if (count > SPREAD_OUT) {
      chosen = k + 1;
      continue;
    }
    let sum = 0;
    for (const [s, i] of sample.entries()) {
      let distance = 0;
      for (let j = 0; j < length; j++) {
        distance += w[(i % rows) * length + j] * (x[i * length + j] - entries[k * length + j]) ** 2;
      }
      distances[s] = Math.min(distances[s], distance);
      sum += distances[s];
    }
    let left = random() * sum;
    for (chosen = 0; chosen < sample.length - 1 && left >= distances[chosen]; chosen++)
      left -= distances[chosen];
  }
  return entries;
}
