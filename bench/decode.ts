/**
 * Speed of the linear layers of a model of 1.1 billion parameters (TinyLlama's shape, 22 layers and the head), weights of
 * one format after another and int8 activations: a token at a time beside a plain read of memory by the same threads, and
 * 512 tokens at once. Formats take turns in rounds, because the machine's speed changes; medians are given.
 *
 *   node bench/decode.ts [--json] [--threads N] [--rounds N] [--layers N] [--body NAME] [--kernels NAME] [--float] [FORMAT …]
 *
 * --kernels forces dot, table or planes where a format has them; otherwise each is multiplied by what is fastest here.
 * --float takes float32 activations instead. With fewer layers figures are those of as much of the model.
 */
import { parseArgs } from "node:util";
import type { Backend, BackendOptions } from "../src/backends/backend.ts";
import { native } from "../src/backends/native.ts";
import { bytesPerMatrix, encode, formatByName, formats } from "../src/formats/index.ts";
import { generator, normals } from "../src/tensor/random.ts";
import { hostTensor, matrix, type Tensor } from "../src/tensor/tensor.ts";
import { type Parts, packedWeight } from "../src/tensor/weight.ts";
import { median, sayErrorsInOneLine, secondsOf } from "./bench.ts";

const [DIM, KV, FFN, VOCABULARY, LAYERS] = [2048, 256, 5632, 32000, 22];
/** rows, cols of a layer: query, key, value, output, gate, up, down. */
const LAYER = [
  [DIM, DIM],
  [KV, DIM],
  [KV, DIM],
  [DIM, DIM],
  [FFN, DIM],
  [FFN, DIM],
  [DIM, FFN],
] as const;
const HEAD = [VOCABULARY, DIM] as const;
const PREFILL = 512;
/** Rows of random weights; a matrix repeats them, as their values do not matter here. */
const PATTERN = 16;
const PLAIN_READ_BYTES = 2 ** 28;

sayErrorsInOneLine();

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    json: { type: "boolean", default: false },
    float: { type: "boolean", default: false },
    threads: { type: "string", default: "2" },
    rounds: { type: "string", default: "5" },
    layers: { type: "string", default: String(LAYERS) },
    body: { type: "string" },
    kernels: { type: "string" },
  },
});
const layers = Number(options.layers);
const everyday = ["tq2_0", "tq1_0", "q4_0", "q4_k", "q8_0"].filter((name) => formats.has(name));
const names = positionals.length > 0 ? positionals : everyday;

interface Result {
  readonly format: string;
  readonly tokensPerSecond: number;
  readonly gigabytesPerSecond: number;
  /** Of the plain read. */
  readonly share: number;
  readonly prefillGops: number;
  readonly prefillTokensPerSecond: number;
}

const backend = native({
  threads: Number(options.threads),
  body: options.body as BackendOptions["body"],
  integerKernel: options.kernels as BackendOptions["integerKernel"],
});
const plain = backend.zeros([PLAIN_READ_BYTES / 4096, 1024]);
backend.fill(plain, 1); // pages never written may all be one page of zeros
const sum = backend.zeros([1]);
const headFormat = formats.has("q6_k") ? "q6_k" : "int6-g64";

const reads: number[] = [];
const measured = new Map<string, { decode: number[]; prefill: number[]; bytes: number }>();
for (const name of names) measured.set(name, { decode: [], prefill: [], bytes: 0 });
for (let round = 0; round < Number(options.rounds); round++) {
  for (const [name, result] of measured) {
    const model = upload(name);
    const x = inputs(1);
    const token = () => backend.scope(() => run(model.layers, x, backend, model.head));
    token();
    reads.push(plainRead());
    for (let n = 0; n < 8; n++) result.decode.push(secondsOf(token));
    const many = inputs(PREFILL);
    backend.scope(() => run(model.layers.slice(0, 1), many, backend));
    result.prefill.push(secondsOf(() => backend.scope(() => run(model.layers, many, backend))));
    result.bytes = model.bytes;
    for (const t of [...Object.values(x), ...Object.values(many), ...model.layers.flat(), model.head])
      backend.free(t);
  }
}
const read = PLAIN_READ_BYTES / median(reads);
const results = [...measured].map(([format, { decode, prefill, bytes }]): Result => {
  const products = 2 * PREFILL * layers * LAYER.reduce((n, [rows, cols]) => n + rows * cols, 0);
  return {
    format,
    tokensPerSecond: 1 / median(decode),
    gigabytesPerSecond: bytes / median(decode) / 1e9,
    share: bytes / median(decode) / read,
    prefillGops: products / median(prefill) / 1e9,
    prefillTokensPerSecond: PREFILL / median(prefill),
  };
});
if (options.json) console.log(JSON.stringify({ plainReadBytesPerSecond: read, results }));
else {
  console.log(`${backend.description}; a plain read of memory: ${(read / 1e9).toFixed(1)} GB/s`);
  for (const r of results) {
    console.log(
      `${r.format.padEnd(16)} decode ${r.tokensPerSecond.toFixed(1)} tokens/s, ${r.gigabytesPerSecond.toFixed(1)} GB/s ` +
        `(${(100 * r.share).toFixed(0)} %); prefill ${r.prefillTokensPerSecond.toFixed(0)} tokens/s, ${r.prefillGops.toFixed(0)} Gop/s`,
    );
  }
}
backend.dispose();

function upload(name: string) {
  const bytes = (format: string, [rows, cols]: readonly [number, number]) =>
    bytesPerMatrix(formatByName(format), rows, cols);
  return {
    layers: Array.from({ length: layers }, () => LAYER.map((shape) => weight(name, shape))),
    head: weight(headFormat, HEAD),
    bytes: layers * LAYER.reduce((n, shape) => n + bytes(name, shape), 0) + bytes(headFormat, HEAD),
  };
}

function weight(name: string, [rows, cols]: readonly [number, number]): Tensor {
  const parts: Parts = Object.fromEntries(
    Object.entries(pattern(name, cols)).map(([part, { dtype, shape, bytes }]) => {
      const all = new Uint8Array((bytes.length / PATTERN) * rows);
      for (let at = 0; at < all.length; at += bytes.length) all.set(bytes.subarray(0, all.length - at), at);
      return [part, { dtype, shape: [rows, ...shape.slice(1)], bytes: all }];
    }),
  );
  const activations = options.float ? "float" : "int8";
  return backend.upload(packedWeight([rows, cols], name, parts), { activations });
}

function pattern(name: string, cols: number): Parts {
  return encode(formatByName(name), matrix(PATTERN, cols, normals(generator(1), PATTERN * cols, 0.02)));
}

function inputs(rows: number): { dim: Tensor; ffn: Tensor } {
  const of = (cols: number) => backend.upload(hostTensor([rows, cols], normals(generator(2), rows * cols)));
  return { dim: of(DIM), ffn: of(FFN) };
}

function run(all: Tensor[][], x: { dim: Tensor; ffn: Tensor }, on: Backend, head?: Tensor): void {
  for (const layer of all) for (const w of layer) on.free(on.linear(w.shape[1] === DIM ? x.dim : x.ffn, w));
  if (head) on.linear(x.dim, head);
}

/** Seconds of one pass over memory: of a sum of squares or a matrix-vector product, whichever is faster. */
function plainRead(): number {
  const x = backend.zeros([1, 1024]);
  const squares = secondsOf(() => backend.squaredNorm(sum, plain, 0));
  const product = secondsOf(() => backend.free(backend.linear(x, plain)));
  backend.free(x);
  return Math.min(squares, product);
}
