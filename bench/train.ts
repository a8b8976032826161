/**
 * Training speed, float and ternary, beside PyTorch on the same shape: forward
 * pass, loss, backward pass and AdamW step, float32, two threads. Both take
 * turns in rounds, because the machine's speed changes; medians are compared.
 *
 *   npm run bench:train [-- --json] [--threads N] [--rounds N] [--profile]
 *
 * --profile times each operation of our step instead and leaves PyTorch out.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { createInterface, type Interface } from "node:readline";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { Tape } from "../src/autograd/tape.ts";
import type { Backend } from "../src/backends/backend.ts";
import { native } from "../src/backends/native.ts";
import { initialize } from "../src/models/initialize.ts";
import { llama } from "../src/models/llama.ts";
import { ropeTable } from "../src/models/rope-table.ts";
import { generator } from "../src/tensor/random.ts";
import { hostTensor, type Tensor } from "../src/tensor/tensor.ts";
import { median, sayErrorsInOneLine, secondsOf } from "./bench.ts";

const SHAPE = { dim: 256, layers: 6, heads: 8, ffn: 688, vocabulary: 4096, time: 256, batch: 8 };
const TOKENS = SHAPE.time * SHAPE.batch;
const STEPS_PER_ROUND = { ours: 5, peer: 2 };
const INSTALL_PEER = "apt-get install python3-torch libopenblas0";

sayErrorsInOneLine();

const { values: options } = parseArgs({
  options: {
    json: { type: "boolean", default: false },
    profile: { type: "boolean", default: false },
    threads: { type: "string", default: "2" },
    rounds: { type: "string", default: "5" },
  },
});
const threads = Number(options.threads);

interface Result {
  readonly tokensPerSecond: number;
  /** PyTorch's tokens per second; null when it is not installed. */
  readonly peer: number | null;
  readonly ratio: number | null;
}

if (options.profile) {
  for (const family of ["float", "ternary"] as const) profile(family);
} else {
  const python = findPython();
  if (!python) console.error(`bench:train: PyTorch is not installed; ${INSTALL_PEER}`);
  const results = { float: await compare("float", python), ternary: await compare("ternary", python) };
  if (options.json) console.log(JSON.stringify(python ? results : { ...results, peerMissing: INSTALL_PEER }));
  else for (const [family, result] of Object.entries(results)) console.log(describe(family, result));
}

async function compare(family: "float" | "ternary", python: string | null): Promise<Result> {
  const step = trainingStep(native({ threads }), family);
  const peer = python ? await startPeer(python, family) : null;
  const ours: number[] = [];
  const theirs: number[] = [];
  step();
  await peer?.steps(1);
  for (let round = 0; round < Number(options.rounds); round++) {
    for (let i = 0; i < STEPS_PER_ROUND.ours; i++) ours.push(secondsOf(step));
    theirs.push(...((await peer?.steps(STEPS_PER_ROUND.peer)) ?? []));
    console.error(
      `${family}, round ${round + 1}: ${speed(ours)} tokens/s${peer ? `, PyTorch ${speed(theirs)}` : ""}`,
    );
  }
  peer?.stop();
  return {
    tokensPerSecond: speed(ours),
    peer: peer && speed(theirs),
    ratio: peer && Math.round((100 * speed(ours)) / speed(theirs)) / 100,
  };
}

/** A function that trains one step on random tokens. */
function trainingStep(backend: Backend, family: "float" | "ternary"): () => void {
  const { dim, layers, heads, ffn, vocabulary, time, batch } = SHAPE;
  const config = { dim, layers, heads, kvHeads: heads, headDim: dim / heads, ffn, vocabulary, context: time };
  const model = llama({
    ...config,
    architecture: "llama",
    normEpsilon: 1e-5,
    ropeBase: 10000,
    ropePairing: "neighbours",
    tiedHead: false,
  });
  const random = generator(1);
  const parameters = new Map<string, Tensor>();
  const moments = new Map<Tensor, { first: Tensor; second: Tensor }>();
  for (const [name, value] of initialize(model, random)) {
    const parameter = backend.upload(value);
    parameters.set(name, parameter);
    moments.set(parameter, { first: backend.zeros(value.shape), second: backend.zeros(value.shape) });
  }
  const rope = backend.upload(ropeTable(model.config, time));
  const slope = backend.upload(hostTensor([TOKENS], new Float32Array(TOKENS).fill(1 / TOKENS)));
  const norm = backend.zeros([1]); // not limited: maxNorm 0
  const tape = new Tape(backend, parameters.values());
  const roles = new Map(model.tensors.map((tensor) => [tensor.name, tensor.role]));
  let count = 0;

  return () => {
    const text = Int32Array.from({ length: TOKENS + 1 }, () => Math.floor(random() * vocabulary));
    backend.scope(() => {
      const weights = new Map(parameters);
      if (family === "ternary") {
        for (const [name, w] of parameters)
          if (roles.get(name) === "linear") weights.set(name, tape.ternary(w, 1e-5));
      }
      const ids = backend.upload(hostTensor([TOKENS], text.slice(0, TOKENS)));
      const targets = backend.upload(hostTensor([TOKENS], text.slice(1)));
      let x = model.embed(tape, ids, weights);
      for (let i = 0; i < layers; i++) x = model.block(tape, i, x, weights, { batch, time, from: 0 }, rope);
      const hidden = model.finalNorm(tape, x, weights);
      tape.backward(tape.crossEntropy(hidden, weights.get(model.headWeight)!, targets), slope);
    });
    count++;
    for (const [parameter, { first, second }] of moments) {
      const gradient = tape.gradients.get(parameter)!;
      backend.adamw(parameter, gradient, first, second, norm, 1e-3, 0.9, 0.999, 1e-8, 0.01, count, 0);
    }
    tape.clear();
  };
}

interface Peer {
  /** Seconds of each of n training steps. */
  steps(n: number): Promise<number[]>;
  stop(): void;
}

async function startPeer(python: string, family: "float" | "ternary"): Promise<Peer> {
  const script = fileURLToPath(new URL("peers/train.py", import.meta.url));
  const shape = JSON.stringify({ ...SHAPE, threads, ternary: family === "ternary" });
  const child: ChildProcess = spawn(python, [script, shape], { stdio: ["pipe", "pipe", "inherit"] });
  const lines: Interface = createInterface({ input: child.stdout! });
  const answers = lines[Symbol.asyncIterator]();
  const next = async () => {
    const { value, done } = await answers.next();
    if (done) throw new Error(`bench:train: ${script} ended without an answer; see its message above`);
    return value;
  };
  console.error(`${family}: PyTorch ${await next()}`);
  return {
    async steps(n) {
      child.stdin!.write(`${n}\n`);
      return JSON.parse(await next());
    },
    stop() {
      child.stdin!.end();
    },
  };
}

/** A Python that has PyTorch: the system's, then the one on the path. */
function findPython(): string | null {
  const has = (python: string) => spawnSync(python, ["-c", "import torch"]).status === 0;
  return ["/usr/bin/python3", "python3"].find(has) ?? null;
}

/** Seconds of each operation in one step, the median of five steps, largest first. */
function profile(family: "float" | "ternary"): void {
  const backend = native({ threads });
  const sums = new Map<string, number[]>();
  const step = trainingStep(backend, family);
  const { forward, backward, accumulate, adamw } = backend;
  const timed = <R>(name: string, run: () => R): R => {
    const start = performance.now();
    const result = run();
    const times = sums.get(name) ?? [];
    times.push(performance.now() - start);
    sums.set(name, times);
    return result;
  };
  backend.forward = (name, ...rest) => timed(name, () => forward.call(backend, name, ...rest));
  backend.backward = (name, ...rest) => timed(`${name}Backward`, () => backward.call(backend, name, ...rest));
  backend.accumulate = (...args) => timed("accumulate", () => accumulate(...args));
  backend.adamw = (...args) => timed("adamw", () => adamw(...args));
  step();
  sums.clear();
  const steps = Array.from({ length: 5 }, () => secondsOf(step));
  console.log(`${family}: ${(1000 * median(steps)).toFixed(1)} ms per step, ${speed(steps)} tokens/s`);
  const rows = [...sums].map(
    ([name, times]) => [name, times.reduce((a, b) => a + b) / steps.length] as const,
  );
  for (const [name, ms] of rows.sort((a, b) => b[1] - a[1]))
    console.log(`  ${name.padEnd(22)}${ms.toFixed(1)} ms`);
}

function describe(family: string, { tokensPerSecond, peer, ratio }: Result): string {
  const beside = peer === null ? `PyTorch not installed: ${INSTALL_PEER}` : `PyTorch ${peer}, ratio ${ratio}`;
  return `${family}: ${tokensPerSecond} tokens/s; ${beside}`;
}

/** Tokens per second at the median step. */
function speed(steps: readonly number[]): number {
  return Math.round(TOKENS / median(steps));
}
