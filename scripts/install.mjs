// What `npm install` does beyond fetching packages, here and where lowbit is
// installed as a package: builds the native addon when the machine has what
// that needs, and in the repository the WebAssembly modules (the package comes
// with them). It never fails the install: what is missing is one line, and
// WebAssembly serves. Plain JavaScript for Node 20; quiet on success.
import { existsSync } from "node:fs";
import { buildNative } from "./build-native.mjs";

let native = {};
if (!process.env.LOWBIT_SKIP_NATIVE) {
  try {
    native = buildNative();
  } catch (error) {
    native = { why: error.message.split("\n")[0] };
  }
}
if (native.why) {
  console.log(
    `lowbit: the native addon was not built (${native.why}); WebAssembly serves, and \`npm run build:native\` shows more`,
  );
}

const wasm = new URL("./build-wasm.mjs", import.meta.url);
if (existsSync(wasm)) {
  try {
    const { why } = await (await import(wasm.href)).buildWasm();
    if (why) console.log(`lowbit: WebAssembly was not built (${why})`);
  } catch (error) {
    console.log(
      `lowbit: WebAssembly was not built (${error.message.split("\n")[0]}); see \`npm run build:wasm\``,
    );
  }
}
