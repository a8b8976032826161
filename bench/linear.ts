/**
 * Speed of the float32 linear layer, y = x·Wᵀ with all three sizes 1024:
 * native beside OpenBLAS, WebAssembly on one thread beside @jax-js/jax. Both
 * take turns in rounds, because the machine's speed changes; medians are
 * compared, and so is an element of y, which is exact in any order of summing.
 *
 *   npm run bench:linear [-- --json] [--threads N] [--rounds N] [--install-peers]
 *
 * --install-peers puts @jax-js/jax into a folder of its own below the system's
 * temporary one, where it is looked for.
 */
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as pause } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import type { Backend } from "../src/backends/backend.ts";
import { native } from "../src/backends/native.ts";
import { wasm } from "../src/backends/wasm.ts";
import { hostTensor } from "../src/tensor/tensor.ts";
import { median, PEERS_FOLDER, sayErrorsInOneLine, secondsOf } from "./bench.ts";

const SIZE = 1024;
/** Products in a round: a fraction of a second. */
const PRODUCTS = { native: 16, wasm: 6 };
/** OpenBLAS's threads look for work for some time after a product; then they sleep. */
const REST_MS = 100;

sayErrorsInOneLine();

const { values: options } = parseArgs({
  options: {
    json: { type: "boolean", default: false },
    "install-peers": { type: "boolean", default: false },
    threads: { type: "string", default: "2" },
    rounds: { type: "string", default: "9" },
  },
});
const threads = Number(options.threads);

interface Result {
  readonly gflops: number;
  /** GFLOP/s of the peer, and ours by its; null when it is not installed. */
  readonly peer: number | null;
  readonly ratio: number | null;
  readonly backend: string;
  readonly peerName: string;
  /** The command that installs a missing peer. */
  readonly install?: string;
}

interface Peer {
  readonly name: string;
  products(count: number): Promise<{ seconds: number[]; element: number }>;
  stop(): void;
}

/** A peer, or how to get it. */
type Found = Peer | { readonly name: string; readonly install: string };

if (options["install-peers"]) {
  mkdirSync(PEERS_FOLDER, { recursive: true });
  spawnSync("npm", ["install", "--prefix", PEERS_FOLDER, "@jax-js/jax"], { stdio: ["ignore", 2, 2] });
}
const results = {
  native: await compare("native", native({ threads }), await openBlas()),
  wasm: await compare("wasm", await wasm({ threads: 1 }), await jax()),
};
if (options.json) console.log(JSON.stringify(results));
else for (const result of Object.values(results)) console.log(describe(result));

async function compare(kind: "native" | "wasm", backend: Backend, found: Found): Promise<Result> {
  const peer = "install" in found ? null : found;
  if ("install" in found) console.error(`bench:linear: ${found.name} is not installed; ${found.install}`);
  const x = backend.upload(hostTensor([SIZE, SIZE], numbers(7, 13)));
  const w = backend.upload(hostTensor([SIZE, SIZE], numbers(5, 11)));
  const multiply = () => backend.scope(() => void backend.linear(x, w));
  const y = backend.linear(x, w);
  const element = (await backend.read(y))[SIZE * SIZE - 2];
  backend.free(y);

  const ours: number[] = [];
  const theirs: number[] = [];
  for (let round = -1; round < Number(options.rounds); round++) {
    const seconds = Array.from({ length: PRODUCTS[kind] }, () => secondsOf(multiply));
    const answer = await peer?.products(PRODUCTS[kind]);
    if (answer && answer.element !== element) {
      throw new Error(`bench:linear: ${found.name} gives ${answer.element} where ${kind} gives ${element}`);
    }
    if (kind === "native") await pause(REST_MS);
    if (round < 0) continue; // caches and compilers warm up
    ours.push(...seconds);
    theirs.push(...(answer?.seconds ?? []));
  }
  peer?.stop();
  const description = `${backend.name}, ${backend.description}`;
  backend.dispose();
  return {
    gflops: gflops(ours),
    peer: peer && gflops(theirs),
    ratio: peer && Math.round((100 * median(theirs)) / median(ours)) / 100,
    backend: description,
    peerName: found.name,
    ...("install" in found && { install: found.install }),
  };
}

/** Multiples of an eighth below 1: every sum of their products is exact in float32. */
function numbers(factor: number, modulus: number): Float32Array {
  return Float32Array.from({ length: SIZE * SIZE }, (_, i) => ((i * factor) % modulus) / 8 - 0.75);
}

async function openBlas(): Promise<Found> {
  const folder = mkdtempSync(join(tmpdir(), "lowbit-bench-"));
  const program = join(folder, "openblas");
  const source = fileURLToPath(new URL("peers/openblas.c", import.meta.url));
  const compiled = spawnSync("cc", ["-O2", source, "-o", program, "-lopenblas"]);
  if (compiled.status !== 0) {
    rmSync(folder, { recursive: true });
    return { name: "OpenBLAS", install: "apt-get install gcc libopenblas-dev" };
  }
  const peer = await start("OpenBLAS", program, [`${SIZE}`, `${threads}`]);
  rmSync(folder, { recursive: true }); // it runs already
  return peer;
}

async function jax(): Promise<Found> {
  if (!existsSync(join(PEERS_FOLDER, "node_modules", "@jax-js", "jax"))) {
    return { name: "@jax-js/jax", install: "npm run bench:linear -- --install-peers" };
  }
  const script = fileURLToPath(new URL("peers/jax.ts", import.meta.url));
  return start("@jax-js/jax", process.execPath, [script, PEERS_FOLDER, `${SIZE}`]);
}

/** Starts a program that says one line about itself, and then answers each number with one line. */
async function start(name: string, program: string, args: string[]): Promise<Peer> {
  const child = spawn(program, args, { stdio: ["pipe", "pipe", "inherit"] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const next = async () => {
    const { value, done } = await lines.next();
    if (done) throw new Error(`bench:linear: ${name} ended without an answer; see its message above`);
    return value;
  };
  return {
    name: `${name} ${await next()}`,
    async products(count) {
      child.stdin.write(`${count}\n`);
      return JSON.parse(await next());
    },
    stop() {
      child.stdin.end();
    },
  };
}

function gflops(seconds: readonly number[]): number {
  return Math.round((2 * SIZE ** 3) / median(seconds) / 1e8) / 10;
}

function describe({ backend, gflops, peerName, peer, ratio, install }: Result): string {
  const beside =
    peer === null ? `${peerName} is not installed: ${install}` : `${peerName} ${peer}, ratio ${ratio}`;
  return `${backend}: ${gflops} GFLOP/s; ${beside}`;
}
