// Builds the WebAssembly modules with npm's own compiler, @yowasp/clang, which
// runs in WebAssembly itself and needs nothing of the system. Does nothing when
// they are up to date. Plain JavaScript for Node 20, like build-native.mjs.
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { hashSources } from "./build-native.mjs";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const folder = join(root, "src", "backends", "wasm");

const STACK = 1 << 20;
const compiling = [
  "--target=wasm32-unknown-unknown -std=c++17 -nostdinc++ -ffreestanding -O3 -msimd128 -mbulk-memory -matomics",
  "-ffp-contract=off -fno-exceptions -fno-rtti -fvisibility=hidden -Wall -Wextra",
].flatMap((line) => line.split(" "));
const linking = [
  "--target=wasm32-unknown-unknown -nostdlib -Wl,--import-memory -Wl,--max-memory=4294967296 -Wl,--no-entry",
  `-Wl,--strip-all -Wl,--stack-first -Wl,-z,stack-size=${STACK} -Wl,--export=__stack_pointer`,
].flatMap((line) => line.split(" "));
const sharing = "-Wl,--shared-memory -Wl,--export=__wasm_init_tls -Wl,--export=__tls_size".split(" ");

const stems = ["wasm", "memory", "memory-wasm", "threads-wasm"];

/** Each set of instructions is compiled once and linked twice: for one thread, and for memory shared by many. */
const bodies = { simd: [], relaxed: ["-mrelaxed-simd"] };
const modules = Object.keys(bodies).flatMap((body) => [`${body}.wasm`, `${body}-threads.wasm`]);

/** Ends with `{ built }`; with `{ why }` when the compiler is not installed. Throws with its words when it fails. */
export async function buildWasm() {
  const hash = hashSources("scripts/build-wasm.mjs");
  if (modules.every((name) => hashIn(join(folder, name)) === hash)) return { built: false };

  let runClang, runLLVM;
  try {
    ({ runClang, runLLVM } = await import("@yowasp/clang"));
  } catch (error) {
    if (error.code === "ERR_MODULE_NOT_FOUND") return { why: "@yowasp/clang is not installed" };
    throw error;
  }
  // Loads the compiler; said here, because runClang would print how far that is.
  await runLLVM(null, {}, { fetchProgress: () => {} });
  const clang = async (args, files) => {
    let words = "";
    const collect = (bytes) => {
      if (bytes) words += new TextDecoder().decode(bytes);
    };
    try {
      const out = await runClang(["clang++", ...args], files, { stdout: collect, stderr: collect });
      if (words) console.error(words);
      return out;
    } catch (error) {
      throw new Error(`wasm: clang++ ${args.join(" ")}: ${error.message}\n${words}`);
    }
  };

  const sources = { ...read("src/kernels"), ...read("src/formats") };
  const objects = stems.map((stem) => `${stem}.o`);
  mkdirSync(folder, { recursive: true });
  for (const [body, flags] of Object.entries(bodies)) {
    const compiled = {};
    for (const stem of stems) {
      const out = await clang([...compiling, ...flags, "-c", `${stem}.cpp`, "-o", `${stem}.o`], sources);
      compiled[`${stem}.o`] = out[`${stem}.o`];
    }
    for (const [name, more] of [
      [`${body}.wasm`, []],
      [`${body}-threads.wasm`, sharing],
    ]) {
      const out = await clang([...linking, ...more, ...objects, "-o", name], compiled);
      const path = join(folder, name);
      writeFileSync(`${path}.new`, withHash(out[name], hash));
      renameSync(`${path}.new`, path);
    }
  }
  return { built: true };
}

/** The module with the hash of its sources in a custom section at its end. */
function withHash(module, hash) {
  const name = "sources";
  const section = Buffer.from([0, 1 + name.length + hash.length, name.length]);
  return Buffer.concat([module, section, Buffer.from(name + hash)]);
}

function hashIn(path) {
  return existsSync(path) ? readFileSync(path).subarray(-64).toString("latin1") : "";
}

/** Sources of a folder, to stand in one folder with the others: the compiler's file system knows no `..`. */
function read(path) {
  const names = readdirSync(join(root, path)).filter((name) => /\.(cpp|h)$/.test(name));
  const text = (name) =>
    readFileSync(join(root, path, name), "utf8").replace(/"\.\.\/(kernels|formats)\//g, '"');
  return Object.fromEntries(names.map((name) => [name, text(name)]));
}

if (process.argv[1] && import.meta.url === pathToFileURL(realpathSync(process.argv[1])).href) {
  const result = await buildWasm();
  if (result.why) {
    console.error(`wasm: not built: ${result.why}`);
    process.exitCode = 1;
  } else {
    console.log(result.built ? "wasm: built" : "wasm: up to date");
  }
}
