// npm run test:sanitize [-- FILE…]: builds the native addon under
// AddressSanitizer and UndefinedBehaviorSanitizer into build-sanitize/ and runs
// the conformance suite of every body with it, or the test files named. Every
// tensor is a block of its own there (src/kernels/memory-sanitize.cpp), with
// red zones around it. Needs gcc; tried on Linux x64.
import { spawnSync } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, symlinkSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { findHeaders, findNodeGyp } from "./build-native.mjs";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const folder = join(root, "build-sanitize");
const addon = join(folder, "build", "Release", "lowbit.node");

/** The suites that reach every kernel of the addon, and the addon's own. */
const SUITES = [
  "src/backends/native.test.ts",
  "src/backends/heap.test.ts",
  "src/backends/pool.test.ts",
  "test/strange-bytes.test.ts",
  "test/toy-format.test.ts",
];

function build() {
  mkdirSync(folder, { recursive: true });
  copyFileSync(join(root, "binding.gyp"), join(folder, "binding.gyp"));
  if (!existsSync(join(folder, "src"))) symlinkSync(join("..", "src"), join(folder, "src"));
  const nodeGyp = findNodeGyp();
  if (!nodeGyp) stop("node-gyp was not found (it comes with npm)");
  const headers = findHeaders();
  const args = ["configure", "build", "--jobs", "max", ...(headers ? [`--nodedir=${headers}`] : [])];
  const { status, stdout, stderr } = spawnSync(process.execPath, [nodeGyp, ...args], {
    cwd: folder,
    env: { ...process.env, GYP_DEFINES: "sanitize=1" },
    encoding: "utf8",
    maxBuffer: 1 << 28,
  });
  if (status !== 0 || !existsSync(addon)) stop(`not built\n${stdout}${stderr}`);
}

/** The sanitizer's library, which must be in the process before the addon is. */
function library() {
  const { stdout } = spawnSync(process.env.CXX ?? "g++", ["-print-file-name=libasan.so"], {
    encoding: "utf8",
  });
  const path = stdout?.trim();
  if (!path || !existsSync(path)) stop("libasan.so was not found; install gcc's sanitizers");
  return path;
}

function stop(why) {
  console.error(`sanitize: ${why}`);
  process.exit(1);
}

build();
const env = {
  ...process.env,
  LOWBIT_ADDON: addon,
  LD_PRELOAD: library(),
  // Node frees little when it ends; a request for too much memory gives none, as in the addon that people run.
  ASAN_OPTIONS: "detect_leaks=0:allocator_may_return_null=1:abort_on_error=0:print_stacktrace=1",
  UBSAN_OPTIONS: "print_stacktrace=1:halt_on_error=1",
};

// What the sanitizer is for, tried first: one byte beyond a tensor must end the process.
const beyond = `const a = require(${JSON.stringify(addon)}); a.copyOut(a.allocate(100), new Uint8Array(101));`;
const seen = spawnSync(process.execPath, ["-e", beyond], { env, encoding: "utf8" });
if (seen.status === 0 || !seen.stderr.includes("heap-buffer-overflow")) {
  stop(`a read beyond a tensor was not seen (status ${seen.status})\n${seen.stderr}`);
}

const files = process.argv.length > 2 ? process.argv.slice(2) : SUITES;
const vitest = join(root, "node_modules", "vitest", "vitest.mjs");
const { status } = spawnSync(
  process.execPath,
  // No memory is reused here.
  [vitest, "run", "--project", "node", "--testNamePattern", "^(?!.*of native.*is reused)", ...files],
  { cwd: root, env, stdio: "inherit" },
);
process.exitCode = status ?? 1;
