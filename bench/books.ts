/**
 * Linear on codes with a book: a few rows of x by lookup tables over the
 * activations beside decoding, both of one build, in turns. A line is a matrix:
 * medians of both in microseconds of the processor's time on one thread, in
 * which other programs do not count, and decoding's by that of tables.
 *
 *   node bench/books.ts [--backend native|wasm] [--body avx512] [--rounds 9] [--tokens 1] [--sizes 352,1024,4096] [--json]
 *
 * Above 8 tokens both are the same product of decoded panels.
 */
import { loadavg } from "node:os";
import { parseArgs } from "node:util";
import type { Backend, BackendOptions } from "../src/backends/backend.ts";
import { native } from "../src/backends/native.ts";
import { wasm } from "../src/backends/wasm.ts";
import { codeBitsFor, packCodes } from "../src/formats/codebook.ts";
import { encodeWeight, formatByName } from "../src/formats/index.ts";
import { generator, normals } from "../src/tensor/random.ts";
import { hostTensor } from "../src/tensor/tensor.ts";
import type { Weight } from "../src/tensor/weight.ts";
import { median, sayErrorsInOneLine } from "./bench.ts";

sayErrorsInOneLine();
const { values: options } = parseArgs({
  options: {
    backend: { type: "string", default: "native" },
    body: { type: "string" },
    rounds: { type: "string", default: "9" },
    tokens: { type: "string", default: "1" },
    sizes: { type: "string", default: "352,1024,4096" },
    json: { type: "boolean", default: false },
  },
});
const BOOKS = [
  [4, 2],
  [16, 1],
  [16, 2],
  [16, 4],
  [256, 1],
  [256, 2],
  [256, 4],
  [256, 8],
] as const;
/** Weights multiplied in a round, at least: some milliseconds. */
const ROUND = 8e6;

const random = generator(1);
const tokens = Number(options.tokens);
const both = [await open("dot"), await open("table")] as const;
if (!options.json) console.log(`${both[0].name}, ${both[0].description}; load ${loadavg()[0].toFixed(1)}`);
for (const size of options.sizes.split(",").map(Number)) {
  for (const [entries, length] of BOOKS) {
    for (const group of [0, 32, 64].filter((n) => n === 0 || size % n === 0)) {
      const matrices = both.map((backend) => ({
        backend,
        w: backend.upload(coded(size, entries, length, group)),
      }));
      const x = hostTensor([tokens, size], normals(random, tokens * size));
      const runs = matrices.map(({ backend, w }) => {
        const X = backend.upload(x);
        return () => backend.scope(() => void backend.linear(X, w));
      });
      const calls = Math.max(1, Math.ceil(ROUND / (size * size * tokens)));
      const times: number[][] = [[], []];
      for (let round = -1; round < Number(options.rounds); round++) {
        for (const [i, run] of runs.entries()) {
          const start = process.cpuUsage();
          for (let call = 0; call < calls; call++) run();
          const { user, system } = process.cpuUsage(start);
          if (round >= 0) times[i].push((user + system) / calls);
        }
      }
      for (const { backend, w } of matrices) backend.free(w);
      const [decoding, tables] = times.map((list) => Math.round(10 * median(list)) / 10);
      const ratio = Math.round((100 * decoding) / tables) / 100;
      const result = { size, entries, length, group, tokens, decoding, tables, ratio };
      console.log(
        options.json
          ? JSON.stringify(result)
          : `${size}², ${entries} entries of ${length}, group ${group || "none"}: decoding ${decoding} µs, tables ${tables} µs, ratio ${ratio}`,
      );
    }
  }
}
for (const backend of both) backend.dispose();

async function open(integerKernel: "dot" | "table"): Promise<Backend> {
  if (options.backend === "wasm") return wasm({ threads: 1, integerKernel });
  return native({ threads: 1, integerKernel, body: options.body as BackendOptions["body"] });
}

/** A square matrix of random codes, with scales of groups unless `group` is 0. */
function coded(size: number, entries: number, length: number, group: number): Weight {
  const shape = [size, size] as const;
  const floats = (rows: number, cols: number) =>
    encodeWeight(formatByName("f32"), [rows, cols], normals(random, rows * cols));
  const codeBits = codeBitsFor(entries);
  const perRow = size / length;
  const codes = Uint16Array.from({ length: size * perRow }, () => Math.floor(random() * entries));
  const of: Weight = {
    shape,
    expression: {
      kind: "codebook",
      codes: packCodes(codes, size, perRow, codeBits),
      codeBits,
      book: floats(entries, length),
    },
  };
  if (group === 0) return of;
  return { shape, expression: { kind: "scaleGroups", scales: floats(size, size / group), of } };
}
