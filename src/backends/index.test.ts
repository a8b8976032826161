import { createRequire } from "node:module";
import { expect, test } from "vitest";
import { InputError, UnsupportedError } from "../tensor/tensor.ts";
import { examineBackends } from "./doctor.ts";
import { openBackend } from "./index.ts";
import { loadFrom, native } from "./native.ts";
import { wasm } from "./wasm.ts";

test("openBackend takes a name, or options, or neither", async () => {
  for (const backend of [
    await openBackend("wasm", { threads: 1 }),
    await openBackend({ backend: "wasm", threads: 1 }),
  ]) {
    expect([backend.name, backend.threads]).toEqual(["wasm", 1]);
    backend.dispose();
  }
  const best = await openBackend();
  expect(["native", "wasm"]).toContain(best.name);
  best.dispose();
});

test("openBackend refuses what is no backend and no number of threads", async () => {
  await expect(openBackend("gpu" as "wasm")).rejects.toThrow(
    'backend: needs to be native, wasm, reference, got "gpu"',
  );
  await expect(openBackend({ threads: 0 })).rejects.toThrow(InputError);
  await expect(openBackend({ threads: 1.5 })).rejects.toThrow("threads");
});

test("a missing addon is said with what to do", () => {
  expect(() =>
    loadFrom(
      "/nowhere/lowbit.node",
      () => false,
      () => null,
    ),
  ).toThrow(UnsupportedError);
  expect(() =>
    loadFrom(
      "/nowhere/lowbit.node",
      () => false,
      () => null,
    ),
  ).toThrow(/not built; install a C\+\+ compiler/);
});

test("an addon that does not load is said with the reason", () => {
  const require = createRequire(import.meta.url);
  expect(() => loadFrom("/nowhere/lowbit.node", () => true, require)).toThrow(
    /does not load \(.*\); run npm rebuild/,
  );
});

test("an instruction set that is not there is refused", () => {
  expect(() => native({ body: "sve" as "avx2" })).toThrow(/native: (this processor has no sve|the addon)/);
});

test("a missing WebAssembly module is said with what to do", async () => {
  const locate = () => new URL("file:///nowhere/simd.wasm");
  await expect(wasm({ locate })).rejects.toThrow(/was not built; run npm run build:wasm/);
});

test("the doctor examines every backend", async () => {
  const found = await examineBackends();
  expect(found.map(({ name }) => name)).toEqual(["native", "wasm", "reference"]);
  for (const { name, ok, why, description } of found) {
    expect(ok ? description : why, name).not.toBe("");
  }
  expect(found[1]).toMatchObject({ ok: true, why: "" });
  expect(found[2]).toMatchObject({ ok: true, description: "plain TypeScript, 1 thread" });
});
