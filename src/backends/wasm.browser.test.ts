import { backendSuite } from "./backend.suite.ts";
import { wasm } from "./wasm.ts";

backendSuite("wasm, relaxed SIMD", (options) => wasm({ ...options, relaxed: true }));
backendSuite("wasm, plain SIMD", (options) => wasm({ ...options, relaxed: false }));
backendSuite("wasm, one thread", (options) => wasm({ ...options, threads: 1 }));
