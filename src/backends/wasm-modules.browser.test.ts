import { wasmModulesSuite } from "./wasm-modules.suite.ts";

wasmModulesSuite();
