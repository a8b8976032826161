// Compiles what is published: src/ to dist/ with types, and the WebAssembly modules beside it.
import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";

const root = join(import.meta.dirname, "..");
rmSync(join(root, "dist"), { recursive: true, force: true });
execFileSync(process.execPath, [join(root, "scripts/build-wasm.mjs")], { stdio: "inherit" });
execFileSync(
  process.execPath,
  [join(root, "node_modules/typescript/bin/tsc"), "-p", join(root, "tsconfig.build.json")],
  {
    stdio: "inherit",
  },
);
const wasm = "backends/wasm";
mkdirSync(join(root, "dist", wasm), { recursive: true });
for (const file of readdirSync(join(root, "src", wasm)).filter((name) => name.endsWith(".wasm"))) {
  cpSync(join(root, "src", wasm, file), join(root, "dist", wasm, file));
}
