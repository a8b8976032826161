// Builds the native addon with node-gyp; does nothing when it is up to date.
// Plain JavaScript for Node 20, because `npm install` runs it with whatever
// Node the machine has; the addon is N-API and serves all versions.
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, realpathSync, writeFileSync } from "node:fs";
import { delimiter, dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const addon = join(root, "build", "Release", "lowbit.node");
const stamp = join(root, "build", "Release", "lowbit.sources");

/** Hash of everything that the C++ is compiled from. */
export function hashSources(...more) {
  const hash = createHash("sha256");
  for (const folder of ["src/kernels", "src/formats"]) {
    for (const name of readdirSync(join(root, folder)).sort()) {
      if (/\.(cpp|h)$/.test(name)) hash.update(name).update(readFileSync(join(root, folder, name)));
    }
  }
  for (const path of more) hash.update(readFileSync(join(root, path)));
  return hash.digest("hex");
}

/**
 * Where node-gyp is: npm names it to the scripts that it runs; outside of them it stands beside npm, of which more than
 * one may be on the path.
 */
export function findNodeGyp() {
  const named = process.env.npm_config_node_gyp;
  if (named && existsSync(named)) return named;
  for (const folder of (process.env.PATH ?? "").split(delimiter)) {
    for (const npm of ["npm", "npm.cmd"]) {
      const path = join(folder, npm);
      if (!existsSync(path)) continue;
      const beside = [
        join(dirname(realpathSync(path)), "..", "node_modules", "node-gyp", "bin", "node-gyp.js"),
        join(folder, "node_modules", "npm", "node_modules", "node-gyp", "bin", "node-gyp.js"),
      ];
      const found = beside.find((candidate) => existsSync(candidate));
      if (found) return found;
    }
  }
  return null;
}

/**
 * Folder with include/node of some Node on the path, so that nothing needs to be downloaded. The addon uses N-API alone,
 * whose headers fit every later version. (On Windows node-gyp also needs node.lib, which it fetches.)
 */
export function findHeaders() {
  if (process.env.npm_config_nodedir || process.platform === "win32") return null;
  const folders = [dirname(process.execPath), ...(process.env.PATH ?? "").split(delimiter)];
  for (const folder of folders) {
    const node = join(folder, "node");
    if (!existsSync(node)) continue;
    const prefix = dirname(dirname(realpathSync(node)));
    if (existsSync(join(prefix, "include", "node", "node_api.h"))) return prefix;
  }
  return null;
}

/** Ends with `{ built }`, or with `{ why }` in one line and the compiler's own words in `output`. */
export function buildNative() {
  const hash = `${hashSources("binding.gyp")} ${process.platform} ${process.arch}`;
  if (existsSync(addon) && existsSync(stamp) && readFileSync(stamp, "utf8") === hash) return { built: false };

  const nodeGyp = findNodeGyp();
  if (!nodeGyp) return { why: "node-gyp was not found (it comes with npm)", output: "" };
  const headers = findHeaders();
  const args = [nodeGyp, "configure", "build", "--jobs", "max", ...(headers ? [`--nodedir=${headers}`] : [])];
  // A quiet npm would make node-gyp hide why it failed.
  const env = { ...process.env, npm_config_loglevel: "info" };
  const result = spawnSync(process.execPath, args, { cwd: root, encoding: "utf8", env, maxBuffer: 1 << 28 });
  const output = `${result.stdout ?? ""}${result.stderr ?? ""}`;
  if (result.status !== 0 || !existsSync(addon)) {
    return { why: reason(output), output };
  }
  mkdirSync(dirname(stamp), { recursive: true });
  writeFileSync(stamp, hash);
  return { built: true };
}

/** The line of node-gyp's or the compiler's output that says most. */
function reason(output) {
  const lines = output.split("\n");
  const telling = [
    /(?:fatal )?error: .*/, // compiler
    /Could not find any (?:Python|Visual Studio) installation.*/,
    /not found: (?:make|g\+\+|cc|c\+\+).*/,
    /(?:make|g\+\+|c\+\+|cc): (?:(?:command )?not found|no such file).*/i,
    /network connectivity/,
    /gyp ERR! stack Error: .*/,
  ];
  for (const pattern of telling) {
    for (const line of lines) {
      const found = pattern.exec(line);
      if (found === null) continue;
      if (pattern.source.startsWith("network")) return "the headers of Node could not be downloaded";
      return found[0].replace("gyp ERR! stack Error: ", "").trim();
    }
  }
  return "node-gyp failed";
}

if (process.argv[1] && import.meta.url === pathToFileURL(realpathSync(process.argv[1])).href) {
  const result = buildNative();
  if (result.why) {
    console.error(result.output);
    console.error(`native: not built: ${result.why}`);
    process.exitCode = 1;
  } else {
    console.log(result.built ? "native: built" : "native: up to date");
  }
}
