/**
 * Training speed, float and ternary, beside PyTorch on the same shape: forward
 * pass, loss, backward pass and AdamW step on two threads; ours with products in
 * float32 and in BF16, PyTorch's in float32. All take turns in rounds, because
 * the machine's speed changes; medians are compared.
 *
 *   npm run bench:train [-- --json] [--threads N] [--rounds N] [--precision float32|bf16]
 *                       [--backend native|wasm] [--profile | --loss]
 *
 * --profile times each operation of our step instead and leaves PyTorch out.
 * --loss trains a smaller model for 500 steps in both precisions from five
 * seeds: the difference of the losses, bf16 − float32, on text that was held
 * out, with its 95 % interval.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { createInterface, type Interface } from "node:readline";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { native } from "../src/backends/native.ts";
import { wasm } from "../src/backends/wasm.ts";
import { pairedDifference } from "../src/evaluation/statistics.ts";
import { generator } from "../src/tensor/random.ts";
import { median, sayErrorsInOneLine, secondsOf } from "./bench.ts";
import { type Family, markovText, type Precision, type Shape, training } from "./training.ts";

const SHAPE: Shape = { dim: 256, layers: 6, heads: 8, ffn: 688, vocabulary: 4096, time: 256, batch: 8 };
const TOKENS = SHAPE.time * SHAPE.batch;
const STEPS_PER_ROUND = { ours: 5, peer: 2 };
const INSTALL_PEER = "apt-get install python3-torch libopenblas0";
const FAMILIES = ["float", "ternary"] as const;

/** What --loss trains: small, so that it takes minutes. */
const LOSS = {
  shape: { dim: 64, layers: 2, heads: 4, ffn: 192, vocabulary: 512, time: 64, batch: 16 },
  steps: 500,
  seeds: [1, 2, 3, 4, 5],
  heldOut: 16, // batches
} as const;

sayErrorsInOneLine();

const { values: options } = parseArgs({
  options: {
    json: { type: "boolean", default: false },
    profile: { type: "boolean", default: false },
    loss: { type: "boolean", default: false },
    backend: { type: "string", default: "native" },
    precision: { type: "string" },
    threads: { type: "string", default: "2" },
    rounds: { type: "string", default: "5" },
  },
});
const threads = Number(options.threads);
const precisions = chosen("precision", options.precision, ["float32", "bf16"] as const);
const [name] = chosen("backend", options.backend, ["native", "wasm"] as const);
const backend = name === "wasm" ? await wasm({ threads }) : native({ threads });
console.error(`bench:train: ${name}, ${backend.description}`);

interface Speed {
  readonly tokensPerSecond: number;
  /** By PyTorch's tokens per second; null when it is not installed. */
  readonly ratio: number | null;
}

interface Result {
  /** PyTorch's tokens per second, in float32. */
  readonly peer: number | null;
  readonly ours: Partial<Record<Precision, Speed>>;
}

if (options.profile) {
  for (const family of FAMILIES) for (const precision of precisions) profile(family, precision);
} else if (options.loss) {
  const results = { float: await difference("float"), ternary: await difference("ternary") };
  const { shape, steps } = LOSS;
  if (options.json) console.log(JSON.stringify({ shape, steps, ...results }));
  else {
    const sizes = Object.entries(shape).map(([name, size]) => `${name} ${size}`);
    console.log(
      `${steps} steps of ${sizes.join(", ")}; ${LOSS.seeds.length} seeds; loss of held-out text, nats`,
    );
    for (const [family, { float32, bf16, mean, low, high }] of Object.entries(results)) {
      const interval = `${signed(mean)} (95 %: ${signed(low!)} … ${signed(high!)})`;
      console.log(
        `${family}: float32 ${float32.toFixed(4)}, bf16 ${bf16.toFixed(4)}, bf16 − float32 ${interval}`,
      );
    }
  }
} else {
  const python = findPython();
  if (!python) console.error(`bench:train: PyTorch is not installed; ${INSTALL_PEER}`);
  const results = { float: await compare("float", python), ternary: await compare("ternary", python) };
  if (options.json) {
    const { description } = backend;
    console.log(
      JSON.stringify({ backend: description, ...results, ...(python ? {} : { peerMissing: INSTALL_PEER }) }),
    );
  } else for (const [family, result] of Object.entries(results)) console.log(describe(family, result));
}
backend.dispose();

/** The value of an option as a list: all where it is missing. */
function chosen<T extends string>(
  option: string,
  value: string | undefined,
  all: readonly T[],
): readonly T[] {
  if (value === undefined) return all;
  const known = all.filter((one) => one === value);
  if (known.length === 0) throw new Error(`--${option}: got ${value}; give ${all.join(" or ")}`);
  return known;
}

function signed(value: number): string {
  return `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(4)}`;
}

async function compare(family: Family, python: string | null): Promise<Result> {
  const ours = precisions.map((precision) => ({
    precision,
    step: trainingStep(family, precision),
    seconds: [] as number[],
  }));
  const peer = python ? await startPeer(python, family) : null;
  const theirs: number[] = [];
  for (const { step } of ours) step();
  await peer?.steps(1);
  for (let round = 0; round < Number(options.rounds); round++) {
    for (const { step, seconds } of ours)
      for (let i = 0; i < STEPS_PER_ROUND.ours; i++) seconds.push(secondsOf(step));
    theirs.push(...((await peer?.steps(STEPS_PER_ROUND.peer)) ?? []));
    const speeds = ours.map(({ precision, seconds }) => `${precision} ${speed(seconds)}`);
    if (peer) speeds.push(`PyTorch ${speed(theirs)}`);
    console.error(`${family}, round ${round + 1}: ${speeds.join(", ")} tokens/s`);
  }
  peer?.stop();
  const ratio = (seconds: readonly number[]) =>
    peer && Math.round((100 * speed(seconds)) / speed(theirs)) / 100;
  return {
    peer: peer && speed(theirs),
    ours: Object.fromEntries(
      ours.map(({ precision, seconds }) => [
        precision,
        { tokensPerSecond: speed(seconds), ratio: ratio(seconds) },
      ]),
    ),
  };
}

/** A function that trains one step on random tokens. */
function trainingStep(family: Family, precision: Precision): () => void {
  const random = generator(1);
  const { step } = training(backend, SHAPE, family, precision, 1);
  return () => step(Int32Array.from({ length: TOKENS + 1 }, () => Math.floor(random() * SHAPE.vocabulary)));
}

/** Mean losses in both precisions, and their paired difference over the seeds. */
async function difference(family: Family) {
  const { shape, steps, seeds, heldOut } = LOSS;
  const losses: Record<Precision, number[]> = { float32: [], bf16: [] };
  for (const seed of seeds) {
    for (const precision of ["float32", "bf16"] as const) {
      const text = markovText(shape.vocabulary, seed);
      const learner = training(backend, shape, family, precision, seed);
      const next = () => text(shape.time * shape.batch + 1);
      for (let i = 0; i < steps; i++) learner.step(next());
      let sum = 0;
      for (let i = 0; i < heldOut; i++) sum += await learner.loss(next());
      losses[precision].push(sum / heldOut);
      learner.dispose();
    }
    console.error(`${family}, seed ${seed}: float32 ${losses.float32.at(-1)}, bf16 ${losses.bf16.at(-1)}`);
  }
  const clusters = (values: readonly number[]) => values.map((sum) => ({ sum, count: 1 }));
  const mean = (values: readonly number[]) => values.reduce((a, b) => a + b) / values.length;
  return {
    float32: mean(losses.float32),
    bf16: mean(losses.bf16),
    ...pairedDifference(clusters(losses.bf16), clusters(losses.float32)),
  };
}

interface Peer {
  /** Seconds of each of n training steps. */
  steps(n: number): Promise<number[]>;
  stop(): void;
}

async function startPeer(python: string, family: Family): Promise<Peer> {
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
function profile(family: Family, precision: Precision): void {
  const sums = new Map<string, number[]>();
  const step = trainingStep(family, precision);
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
  console.log(
    `${family}, ${precision}: ${(1000 * median(steps)).toFixed(1)} ms per step, ${speed(steps)} tokens/s`,
  );
  const rows = [...sums].map(
    ([name, times]) => [name, times.reduce((a, b) => a + b) / steps.length] as const,
  );
  for (const [name, ms] of rows.sort((a, b) => b[1] - a[1]))
    console.log(`  ${name.padEnd(22)}${ms.toFixed(1)} ms`);
  Object.assign(backend, { forward, backward, accumulate, adamw });
}

function describe(family: string, { peer, ours }: Result): string {
  const speeds = Object.entries(ours).map(([precision, { tokensPerSecond, ratio }]) => {
    return `${precision} ${tokensPerSecond} tokens/s${ratio === null ? "" : `, ratio ${ratio}`}`;
  });
  const beside = peer === null ? `PyTorch not installed: ${INSTALL_PEER}` : `PyTorch ${peer} in float32`;
  return `${family}: ${speeds.join("; ")}; ${beside}`;
}

/** Tokens per second at the median step. */
function speed(steps: readonly number[]): number {
  return Math.round(TOKENS / median(steps));
}
