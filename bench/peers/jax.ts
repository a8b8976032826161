/**
 * y = x·wᵀ with @jax-js/jax on its `wasm` device, for bench/linear.ts:
 *
 *   node jax.ts FOLDER SIZE
 *
 * FOLDER is where the package is installed. Speaks as openblas.c does. Node has
 * no `Worker` among its globals, so jax-js computes on one thread.
 */
import { createRequire } from "node:module";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

/** What is used of the package. An operation consumes its arguments; `ref` keeps one. */
interface JaxArray {
  readonly ref: JaxArray;
  reshape(shape: readonly number[]): JaxArray;
  data(): Promise<Float32Array>;
  blockUntilReady(): Promise<unknown>;
  dispose(): void;
}
interface Jax {
  init(device: string): Promise<unknown>;
  defaultDevice(device: string): void;
  readonly numpy: {
    array(data: Float32Array): JaxArray;
    matmul(a: JaxArray, b: JaxArray): JaxArray;
    matrixTranspose(a: JaxArray): JaxArray;
  };
}

const [folder, size] = process.argv.slice(2);
const n = Number(size);
const require = createRequire(pathToFileURL(`${folder}/`));
const { init, defaultDevice, numpy: np }: Jax = require("@jax-js/jax");
const { version } = require(join(folder, "node_modules", "@jax-js", "jax", "package.json"));
await init("wasm");
defaultDevice("wasm");
const x = np.array(Float32Array.from({ length: n * n }, (_, i) => ((i * 7) % 13) / 8 - 0.75)).reshape([n, n]);
const w = np.array(Float32Array.from({ length: n * n }, (_, i) => ((i * 5) % 11) / 8 - 0.75)).reshape([n, n]);
const product = () => np.matmul(x.ref, np.matrixTranspose(w.ref));

console.log(version);
for await (const line of createInterface({ input: process.stdin })) {
  const seconds: number[] = [];
  for (let i = 0; i < Number(line); i++) {
    const start = performance.now();
    const y = product();
    await y.blockUntilReady();
    seconds.push((performance.now() - start) / 1000);
    y.dispose();
  }
  console.log(JSON.stringify({ seconds, element: (await product().data())[n * n - 2] }));
}
