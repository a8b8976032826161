/**
 * Speed of whole models beside llama.cpp (native) and wllama (WebAssembly in
 * headless Chromium), on the synthetic GGUF files of ../shared/bench: the same
 * files, two threads, in turns, because the machine's speed changes. Prints
 * medians of the rounds and ratios, and writes them into docs/results.md.
 *
 *   npm run bench:peers [-- --json] [--rounds N] [--threads N] [--only behaviour,native,browser,start] [--formats Q4_0,TQ2_0] [--folder DIR]
 *
 * Peers and models (3.3 GB) go to a folder below the system's temporary one, and stay there.
 */
import { execFileSync, spawnSync } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { median, PEERS_FOLDER, sayErrorsInOneLine } from "./bench.ts";
import { speedsInChromium } from "./peers/chromium.ts";

sayErrorsInOneLine();

const ROOT = join(import.meta.dirname, "..");
const SHARED = join(ROOT, "..", "shared", "bench");
const PACKAGES = ["node-llama-cpp@3.22", "@wllama/wllama@3.8", "playwright-core"];
/** The 150M shape that ../shared/bench/README.md names for browsers. */
const SMALL_SHAPE = ["1024", "12", "2816", "16", "4", "8192"];
/** Tokens of a prompt and tokens decoded, as wllama.mjs has them: the start token, then 40 words. */
const BROWSER_RUN = { prompt: 41, tokens: 40 };

/** Rounds that numbers in docs/results.md are the medians of, at least. */
const LEAST_ROUNDS = 3;
/** Share of the plain reading speed that decoding has to reach. */
const SHARE = 0.75;

/** What each format has to reach, ours by theirs: decode, prefill. */
const NATIVE_TARGETS: Readonly<Record<string, readonly [decode: number, prefill: number]>> = {
  TQ2_0: [2.5, 2.5],
  TQ1_0: [3.5, 4],
  Q4_0: [1.6, 2],
  Q4_K: [1.6, 2],
  Q8_0: [1.2, 1.5],
};
const BROWSER_TARGETS: typeof NATIVE_TARGETS = { TQ2_0: [8, 3], Q4_0: [3, 3], Q4_K: [2, 3] };

interface Speed {
  readonly prefillTokensPerSecond: number;
  readonly decodeTokensPerSecond: number;
}

interface OurSpeed extends Speed {
  readonly memoryBandwidthShare: number;
  readonly plainReadBytesPerSecond: number;
}

const { values: options } = parseArgs({
  options: {
    json: { type: "boolean", default: false },
    rounds: { type: "string", default: "3" },
    threads: { type: "string", default: "2" },
    only: { type: "string", default: "behaviour,native,browser,start" },
    formats: { type: "string" },
    folder: { type: "string", default: PEERS_FOLDER },
  },
});
const rounds = Number(options.rounds);
const { folder } = options;
const parts = new Set(options.only.split(","));
if (!(Number.isInteger(rounds) && rounds >= 1)) {
  throw new Error(`bench:peers: --rounds needs a whole number from 1 on, got ${options.rounds}`);
}
const unknown = options.formats?.split(",").find((format) => !(format in NATIVE_TARGETS));
if (unknown !== undefined) {
  const known = Object.keys(NATIVE_TARGETS).join(", ");
  throw new Error(`bench:peers: --formats has ${unknown}; known are ${known}`);
}
const wanted = (targets: typeof NATIVE_TARGETS) =>
  Object.keys(targets).filter((format) => options.formats?.split(",").includes(format) ?? true);

if (!existsSync(SHARED)) throw new Error(`bench:peers: needs the peers' programs in ${SHARED}`);
prepare();

const results: { [part: string]: string[][] } = {};
if (parts.has("behaviour")) checkBehaviour();
if (parts.has("native")) results.native = await nativeRows();
if (parts.has("browser")) results.browser = await browserRows();
if (parts.has("start")) results.start = startRows();
if (options.json) console.log(JSON.stringify(results));
const tables = Object.fromEntries(Object.entries(results).map(([part, rows]) => [part, markdown(rows)]));
for (const table of Object.values(tables)) console.error(`\n${table}`);
if (options.formats === undefined && rounds >= LEAST_ROUNDS) writeResults(tables);
else console.error(`\nnot written: docs/results.md has all formats in ${LEAST_ROUNDS} rounds or more`);

function prepare(): void {
  mkdirSync(folder, { recursive: true });
  for (const name of ["llama-cpp.mjs", "wllama.mjs", "make-gguf.mjs"]) {
    copyFileSync(join(SHARED, name), join(folder, name));
  }
  const missing = PACKAGES.filter(
    (name) => !existsSync(join(folder, "node_modules", name.replace(/(.)@.*/, "$1"))),
  );
  if (missing.length > 0) {
    const { status } = spawnSync("npm", ["install", "--prefix", folder, ...missing], {
      stdio: ["ignore", 2, 2],
    });
    if (status !== 0)
      throw new Error(`bench:peers: ${missing.join(", ")} could not be installed in ${folder}`);
  }
}

/** What we export has to behave in llama.cpp as it does here, before its speed is worth comparing. */
function checkBehaviour(): void {
  const vitest = join(ROOT, "node_modules/vitest/vitest.mjs");
  const { status } = spawnSync(
    process.execPath,
    [vitest, "run", "--project", "node", "test/llama-cpp.test.ts"],
    { cwd: ROOT, stdio: ["ignore", 2, 2], env: { ...process.env, LOWBIT_LLAMA_CPP: folder } },
  );
  if (status !== 0) throw new Error("bench:peers: what we export behaves otherwise in llama.cpp; see above");
}

function modelFile(size: "large" | "small", format: string): string {
  const file = join(folder, `${size}-${format}.gguf`);
  if (!existsSync(file)) {
    peer("make-gguf.mjs", `${file}.part`, format, ...(size === "small" ? SMALL_SHAPE : []));
    renameSync(`${file}.part`, file); // whole, or not there
  }
  return file;
}

/** Last line that one of the peers' programs prints. */
function peer(program: string, ...args: string[]): string {
  const output = execFileSync(process.execPath, [program, ...args], {
    cwd: folder,
    encoding: "utf8",
    stdio: "pipe",
  });
  return output.trimEnd().split("\n").at(-1)!;
}

function lowbit(...args: string[]): string {
  return execFileSync(
    process.execPath,
    [join(ROOT, "bin/lowbit.mjs"), ...args, "--threads", options.threads],
    {
      encoding: "utf8",
      stdio: "pipe",
      maxBuffer: 2 ** 30,
    },
  );
}

function ourSpeed(file: string, ...args: string[]): OurSpeed {
  return JSON.parse(lowbit("bench", file, "--json", ...args));
}

async function nativeRows(): Promise<string[][]> {
  const rows = [
    [
      "format",
      "decode, ours",
      "llama.cpp",
      "ratio",
      "target",
      "share of plain reading",
      "prefill, ours",
      "llama.cpp",
      "ratio",
      "target",
    ],
  ];
  for (const format of wanted(NATIVE_TARGETS)) {
    const file = modelFile("large", format);
    const ours: OurSpeed[] = [];
    const theirs: Speed[] = [];
    for (let round = 0; round < rounds; round++) {
      ours.push(ourSpeed(file));
      theirs.push(JSON.parse(peer("llama-cpp.mjs", file, "--threads", options.threads)));
      progress("native", format, ours.at(-1)!, theirs.at(-1)!);
    }
    const [decode, prefill] = NATIVE_TARGETS[format];
    rows.push([
      format,
      ...beside(ours, theirs, "decodeTokensPerSecond", decode),
      shareOf(median(ours.map((speed) => speed.memoryBandwidthShare))),
      ...beside(ours, theirs, "prefillTokensPerSecond", prefill),
    ]);
  }
  return rows;
}

async function browserRows(): Promise<string[][]> {
  const rows = [
    [
      "format",
      "decode, ours",
      "wllama",
      "ratio",
      "target",
      "in Node",
      "prefill, ours",
      "wllama",
      "ratio",
      "target",
      "in Node",
    ],
  ];
  for (const format of wanted(BROWSER_TARGETS)) {
    const file = modelFile("small", format);
    const ours: Speed[] = [];
    const theirs: Speed[] = [];
    const inNode: Speed[] = [];
    const run = ["--prompt", `${BROWSER_RUN.prompt}`, "--tokens", `${BROWSER_RUN.tokens}`];
    for (let round = 0; round < rounds; round++) {
      ours.push(await speedsInChromium(file, { ...BROWSER_RUN, threads: Number(options.threads) }));
      theirs.push(JSON.parse(peer("wllama.mjs", file)));
      inNode.push(ourSpeed(file, "--backend", "wasm", ...run));
      progress("browser", format, ours.at(-1)!, theirs.at(-1)!);
    }
    const [decode, prefill] = BROWSER_TARGETS[format];
    const share = (what: keyof Speed) =>
      `${((100 * median(inNode.map((s) => s[what]))) / median(ours.map((s) => s[what]))).toFixed(0)} %`;
    rows.push([
      format,
      ...beside(ours, theirs, "decodeTokensPerSecond", decode),
      share("decodeTokensPerSecond"),
      ...beside(ours, theirs, "prefillTokensPerSecond", prefill),
      share("prefillTokensPerSecond"),
    ]);
  }
  return rows;
}

/** Seconds from the command to the first token: the process, the file, the prompt. */
function startRows(): string[][] {
  const file = modelFile("large", "Q4_0");
  const once = () => {
    const start = performance.now();
    lowbit("generate", file, "t300 t301", "--tokens", "1", "--quiet");
    return (performance.now() - start) / 1000;
  };
  once(); // the system's file cache is warm afterwards
  const seconds = median(Array.from({ length: rounds }, once));
  return [
    ["file", "seconds to the first token", "target"],
    ["Q4_0, 637 MB", seconds.toFixed(2), "2"],
  ];
}

function beside(
  ours: readonly Speed[],
  theirs: readonly Speed[],
  what: keyof Speed,
  target: number,
): string[] {
  const [our, their] = [ours, theirs].map((speeds) => median(speeds.map((speed) => speed[what])));
  const ratio = our / their;
  return [
    our.toFixed(1),
    their.toFixed(1),
    ratio >= target ? `**${ratio.toFixed(2)}**` : ratio.toFixed(2),
    `${target}`,
  ];
}

function shareOf(share: number): string {
  const text = `${(100 * share).toFixed(0)} %`;
  return share >= SHARE ? `**${text}**` : text;
}

function progress(part: string, format: string, ours: Speed, theirs: Speed): void {
  const [decode, prefill] = (["decodeTokensPerSecond", "prefillTokensPerSecond"] as const).map(
    (what) => `${ours[what].toFixed(1)} against ${theirs[what].toFixed(1)}`,
  );
  console.error(`${part} ${format}: decode ${decode}, prefill ${prefill} tokens/s`);
}

function markdown([head, ...rows]: readonly string[][]): string {
  return [head, head.map(() => "---"), ...rows].map((cells) => `| ${cells.join(" | ")} |`).join("\n");
}

/** Replaces the tables that stand between `<!-- peers:NAME -->` and `<!-- /peers:NAME -->`. */
function writeResults(made: Readonly<Record<string, string>>): void {
  const path = join(ROOT, "docs/results.md");
  let text = readFileSync(path, "utf8");
  for (const [part, table] of Object.entries(made)) {
    const [begin, end] = [`<!-- peers:${part} -->`, `<!-- /peers:${part} -->`];
    const [from, to] = [text.indexOf(begin), text.indexOf(end)];
    if (from < 0 || to < from) throw new Error(`bench:peers: docs/results.md has no place ${begin} … ${end}`);
    text = `${text.slice(0, from + begin.length)}\n${new Date().toISOString().slice(0, 10)}:\n\n${table}\n${text.slice(to)}`;
  }
  writeFileSync(path, text);
}
