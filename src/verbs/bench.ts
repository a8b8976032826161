import type { Backend } from "../backends/backend.ts";
import { encode, formatByName } from "../formats/index.ts";
import { Session } from "../generation/session.ts";
import { cacheBytesPerToken } from "../models/kv-cache.ts";
import { baseName, startRecord } from "../record/make.ts";
import { pauses } from "../record/pause.ts";
import type { Job, Record } from "../record/record.ts";
import { generator, normals } from "../tensor/random.ts";
import { hostTensor, matrix, type Tensor } from "../tensor/tensor.ts";
import { packedWeight } from "../tensor/weight.ts";
import { backendFor, fast, type LoadedWeights, loadWeights, type ModelSpec, type RunChoice } from "./load.ts";

/** A model runs as `generate` runs it, unless told. */
export interface BenchOptions extends RunChoice {
  /** Without one, kernels are measured. */
  readonly model?: ModelSpec;
  /** Tokens of the prompt, cut to the context. Default 512. */
  readonly prompt?: number;
  /** Tokens to decode, cut to the context. Default 64. */
  readonly tokens?: number;
}

export interface ModelSpeed {
  readonly prefillTokensPerSecond: number;
  readonly prefillTokens: number;
  /** After a prompt of one token. */
  readonly decodeTokensPerSecond: number;
  readonly decodeTokens: number;
  /** Weights, keys and values read for one decoded token. */
  readonly bytesPerToken: number;
  /** Share of the plain reading speed that decoding reaches; above 1 where the weights stay in the cache. */
  readonly memoryBandwidthShare: number;
  readonly plainReadBytesPerSecond: number;
}

export interface KernelSpeed {
  readonly operation: "linear";
  readonly format: string;
  /** x (rows, in), w (out, in). */
  readonly rows: number;
  readonly out: number;
  readonly in: number;
  /** 10⁹ multiplications and additions a second. */
  readonly gflops: number;
}

export interface KernelSpeeds {
  readonly kernels: readonly KernelSpeed[];
  readonly plainReadBytesPerSecond: number;
}

const PREFILL = 512;
const DECODE = 64;
const REPEATS = 5;
// Larger than any processor's cache, so that it is memory that is read.
const PLAIN_READ_FLOATS = 64 * 1024 * 1024;

/** Speed of a model, or of kernels, beside the speed at which the same threads read memory. Medians of five runs. */
export async function bench(
  options: BenchOptions = {},
  job: Job = {},
): Promise<Record<ModelSpeed | KernelSpeeds>> {
  const settings = options.model === undefined ? options : fast(options);
  const finish = startRecord("bench", {
    ...settings,
    ...(options.model === undefined ? {} : { model: nameOf(options.model) }),
  });
  const backend = await backendFor(options, job);
  try {
    if (options.model === undefined) return finish(backend, {}, await kernelSpeeds(backend, job));
    const loaded = await loadWeights(options.model, backend, settings, job);
    try {
      return finish(
        backend,
        { models: [await loaded.fingerprint()] },
        await modelSpeed(loaded, options, job),
      );
    } finally {
      await loaded.free();
    }
  } finally {
    backend.dispose();
  }
}

function nameOf(model: ModelSpec): string {
  return typeof model === "string" ? baseName(model) : model.name;
}

async function modelSpeed(
  loaded: LoadedWeights,
  { prompt = PREFILL, tokens = DECODE }: BenchOptions,
  job: Job,
): Promise<ModelSpeed> {
  const { vocabulary, context } = loaded.model.config;
  const prefillTokens = Math.min(prompt, context);
  const decodeTokens = Math.min(tokens, context - 1);
  const random = generator(1);
  const ids = Int32Array.from({ length: prefillTokens }, () => Math.floor(random() * vocabulary));
  const session = new Session(loaded, Math.max(prefillTokens, decodeTokens + 1));
  const pause = pauses(job);
  const seconds = { prefill: [] as number[], decode: [] as number[] };
  try {
    for (let run = 0; run <= REPEATS; run++) {
      ids[0] = run % vocabulary; // another first token: nothing of the last prompt is used again
      const prefill = await timed(() => session.start(ids, job));
      await session.start(Int32Array.of((run + REPEATS + 1) % vocabulary), job);
      const decode = await timed(async () => {
        for (let n = 0; n < decodeTokens; n++) {
          await pause();
          await session.next(Int32Array.of(ids[n % prefillTokens]));
        }
      });
      job.onProgress?.({ task: "bench", done: run, total: REPEATS, unit: "runs" });
      if (run === 0) continue; // caches and compilers warm up
      seconds.prefill.push(prefill);
      seconds.decode.push(decode);
    }
  } finally {
    session.free();
  }
  const decodeTokensPerSecond = decodeTokens / median(seconds.decode);
  const bytesPerToken = bytesReadPerToken(loaded, 1 + (decodeTokens + 1) / 2);
  const plainReadBytesPerSecond = await plainRead(loaded.backend);
  return {
    prefillTokensPerSecond: prefillTokens / median(seconds.prefill),
    prefillTokens,
    decodeTokensPerSecond,
    decodeTokens,
    bytesPerToken,
    memoryBandwidthShare: (bytesPerToken * decodeTokensPerSecond) / plainReadBytesPerSecond,
    plainReadBytesPerSecond,
  };
}

/** Every matrix once, of the embedding one row unless it is the head too; keys and values of `length` tokens. */
function bytesReadPerToken({ model, bytes, cache = "f32" }: LoadedWeights, length: number): number {
  let sum = cacheBytesPerToken(model.config, cache) * length;
  for (const { name, role, shape } of model.tensors) {
    const whole = role !== "embedding" || name === model.headWeight;
    sum += whole ? bytes.get(name)! : bytes.get(name)! / shape[0];
  }
  return sum;
}

/**
 * Bytes a second that the backend's threads read from memory: the faster of a
 * sum of squares and a matrix-vector product over 256 MiB, best of five passes.
 */
async function plainRead(backend: Backend): Promise<number> {
  const large = backend.zeros([PLAIN_READ_FLOATS / 1024, 1024]);
  const sum = backend.zeros([1]);
  const x = backend.zeros([1, 1024]);
  try {
    backend.fill(large, 1); // pages never written may all be one page of zeros
    const pass = async (body: () => void) => {
      const started = performance.now();
      body();
      await backend.read(sum);
      return (performance.now() - started) / 1000;
    };
    let best = Number.POSITIVE_INFINITY;
    for (let n = 0; n < REPEATS; n++) {
      const squares = await pass(() => backend.squaredNorm(sum, large, 0));
      const product = await pass(() => backend.free(backend.linear(x, large)));
      best = Math.min(best, squares, product);
    }
    return (4 * PLAIN_READ_FLOATS) / best;
  } finally {
    for (const t of [large, sum, x]) backend.free(t);
  }
}

async function kernelSpeeds(backend: Backend, job: Job): Promise<KernelSpeeds> {
  const size = 1024;
  const W = matrix(size, size, normals(generator(1), size * size));
  const names = ["f32", "int8-g64", "int4-g64", "int2-g64", "tq2_0"];
  const kernels: KernelSpeed[] = [];
  const pause = pauses(job);
  for (const [done, name] of names.entries()) {
    const w = backend.upload(packedWeight([size, size], name, encode(formatByName(name), W)));
    for (const rows of [1, 32, 256]) {
      await pause();
      const x = backend.upload(hostTensor([rows, size], normals(generator(2), rows * size)));
      const seconds = await linearSeconds(backend, x, w);
      kernels.push({
        operation: "linear",
        format: name,
        rows,
        out: size,
        in: size,
        gflops: (2e-9 * rows * size * size) / seconds,
      });
      backend.free(x);
    }
    backend.free(w);
    job.onProgress?.({ task: "bench", done: done + 1, total: names.length, unit: "formats" });
  }
  return { kernels, plainReadBytesPerSecond: await plainRead(backend) };
}

/** Seconds of one product, in the median of five batches of at least 20 ms. */
async function linearSeconds(backend: Backend, x: Tensor, w: Tensor): Promise<number> {
  const batch = (count: number) =>
    timed(async () => {
      for (let n = 1; n < count; n++) backend.free(backend.linear(x, w));
      const last = backend.linear(x, w);
      const row = backend.rows(last, 0, 1);
      await backend.read(row);
      backend.free(row);
      backend.free(last);
    });
  await batch(1);
  const count = Math.max(1, Math.ceil(0.02 / (await batch(1))));
  const seconds: number[] = [];
  for (let n = 0; n < REPEATS; n++) seconds.push((await batch(count)) / count);
  return median(seconds);
}

async function timed(body: () => Promise<unknown>): Promise<number> {
  const started = performance.now();
  await body();
  return (performance.now() - started) / 1000;
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];
}
