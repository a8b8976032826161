import { expect, test } from "vitest";
import { generator, normals } from "../tensor/random.ts";
import { hostTensor } from "../tensor/tensor.ts";
import { wasm } from "./wasm.ts";

/** The four WebAssembly modules, in Node and in a browser alike. */
export function wasmModulesSuite(): void {
  test("all four modules load and agree", async () => {
    const [tokens, dim] = [33, 70];
    const random = generator(7);
    const x = hostTensor([tokens, dim], normals(random, tokens * dim));
    const gain = hostTensor([dim], normals(random, dim));
    const warnings: string[] = [];
    const results: { description: string; data: ArrayLike<number> }[] = [];
    for (const relaxed of [false, true]) {
      for (const threads of [1, 2]) {
        const backend = await wasm({ relaxed, threads, onWarning: (message) => warnings.push(message) });
        const y = backend.rmsNorm(backend.upload(x), backend.upload(gain), 1e-6);
        results.push({ description: backend.description, data: await backend.read(y) });
        backend.dispose();
      }
    }
    expect(warnings).toEqual([]);
    expect(results.map(({ description }) => description)).toEqual([
      "SIMD128, 1 thread",
      "SIMD128, 2 threads",
      "relaxed SIMD, 1 thread",
      "relaxed SIMD, 2 threads",
    ]);
    // The number of threads changes no bit; fused multiplication and addition may change the last ones.
    expect(results[1].data).toEqual(results[0].data);
    expect(results[3].data).toEqual(results[2].data);
    for (let i = 0; i < tokens * dim; i++) {
      const bound = (dim + 10) * 2 ** -23 * Math.abs(results[0].data[i]);
      expect(Math.abs(results[2].data[i] - results[0].data[i])).toBeLessThanOrEqual(bound);
    }
  });
}
