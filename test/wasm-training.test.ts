import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import type { Job } from "../src/record/record.ts";
import { readLog } from "../src/training/log.ts";
import { type TrainOptions, train } from "../src/verbs/train.ts";
import { backendsHere } from "./backends.ts";
import { tinyRecipe, writeTinyText } from "./tiny-training.ts";

const folder = mkdtempSync(join(tmpdir(), "lowbit-wasm-training-"));
const text = writeTinyText(folder);
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const here = await backendsHere();
const has = (...names: TrainOptions["backend"][]) => names.every((name) => name && here.includes(name));

/**
 * Of losses, nats: a hundred times what was seen here over twelve steps (1e-7), which is the rounding of float32 sums,
 * 2⁻²⁴ of a loss near 5, hardly grown. Another batch or a wrong kernel changes a loss in its second decimal.
 */
const BOUND = 1e-5;

async function run(name: string, options: Partial<TrainOptions>, family: "float" | "trilm", job: Job = {}) {
  const out = join(folder, name);
  const record = await train({ recipe: tinyRecipe(text, family), out, threads: 1, ...options }, job);
  return { record, log: await readLog(join(out, "log.jsonl")) };
}

describe.skipIf(!has("native", "wasm"))("WebAssembly trains (needs the native and the wasm build)", () => {
  test.each(["float", "trilm"] as const)("%s: step by step as the native backend does", async (family) => {
    const native = await run(`native-${family}`, { backend: "native" }, family);
    const wasm = await run(`wasm-${family}`, { backend: "wasm" }, family);
    expect(wasm.record.environment.backend).toBe("wasm");
    expect(wasm.record.identity).toEqual(native.record.identity);
    expect(wasm.log.length).toBe(12);
    for (const [i, line] of native.log.entries()) {
      const { loss, gradientNorm, validationLoss = 0 } = wasm.log[i];
      expect(Math.abs(loss - line.loss)).toBeLessThan(BOUND);
      expect(Math.abs(gradientNorm / line.gradientNorm - 1)).toBeLessThan(BOUND);
      expect(Math.abs(validationLoss - (line.validationLoss ?? 0))).toBeLessThan(BOUND);
      // So much does each step change the loss: the bound tells the batches apart.
      if (i > 0) expect(Math.abs(line.loss - native.log[i - 1].loss)).toBeGreaterThan(100 * BOUND);
    }
    const [a, b] = [native.record.validation, wasm.record.validation];
    expect(Math.abs(a.trainedLoss - b.trainedLoss)).toBeLessThan(BOUND);
    // A weight that is nearly between two of f16 may be stored as the other one.
    expect(Math.abs(a.loss - b.loss)).toBeLessThan(10 * BOUND);
  });

  test.each([
    ["native", "wasm"],
    ["wasm", "native"],
  ] as const)("a run that %s began goes on with %s, which is said", async (first, second) => {
    const whole = await run(`whole-${first}`, { backend: first }, "trilm");
    const stop = new AbortController();
    const onProgress = ({ task, done }: { task: string; done: number }) => {
      if (task === "train" && done === 5) stop.abort(new Error("stopped"));
    };
    const name = `begun-${first}`;
    await expect(run(name, { backend: first }, "trilm", { signal: stop.signal, onProgress })).rejects.toThrow(
      "stopped",
    );
    const warnings: string[] = [];
    const onWarning = (message: string) => warnings.push(message);
    const { log, record } = await run(name, { backend: second, resume: true }, "trilm", { onWarning });
    expect(warnings).toEqual([
      expect.stringMatching(
        new RegExp(
          `^train: the first 5 steps ran on another backend \\(${first}, .*; now ${second}, .*the bits may differ`,
        ),
      ),
    ]);
    const plain = ({ timing: _, ...line }: (typeof log)[number]) => line;
    expect(log.slice(0, 5).map(plain)).toEqual(whole.log.slice(0, 5).map(plain));
    for (const [i, { loss }] of log.entries()) expect(Math.abs(loss - whole.log[i].loss)).toBeLessThan(BOUND);
    expect(Math.abs(record.validation.trainedLoss - whole.record.validation.trainedLoss)).toBeLessThan(BOUND);
  });
});
