import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openBackend } from "../src/backends/index.ts";
import { type TrainOptions, train } from "../src/verbs/train.ts";
import { bitsOf, tinyRecipe, writeTinyText } from "./tiny-training.ts";

const child = join(import.meta.dirname, "train-child.ts");
let folder: string;
let text: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "lowbit-resume-"));
  text = writeTinyText(folder);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Options in a file, as the child reads them; `name` is the output folder's. */
function prepare(name: string, options: Omit<TrainOptions, "out">): { file: string; out: string } {
  const out = join(folder, name);
  const file = join(folder, `${name}.json`);
  writeFileSync(file, JSON.stringify({ ...options, out, resume: true }));
  return { file, out };
}

test("a run killed at every moment of writing log, checkpoint and model ends in the same bits", {
  timeout: 180_000,
}, async () => {
  const options = { recipe: tinyRecipe(text, "float"), backend: "reference" } as const;
  await train({ ...options, out: join(folder, "straight") });
  const { file, out } = prepare("killed", options);

  const points = new Set<string>();
  let finished = false;
  // Each child begins where the last checkpoint stands and gets one moment further than the one before it; a
  // checkpoint is made by the eleventh. After the last checkpoint only the model's moment is left, the first of a round.
  for (let i = 0; !finished && i < 100; i++) {
    const moment = (i % 16) + 1;
    const { status, signal, stdout, stderr } = spawnSync(process.execPath, [child, file, String(moment)], {
      encoding: "utf8",
    });
    finished = status === 0;
    if (!finished) expect(signal, stderr).toBe("SIGKILL");
    points.add(stdout);
  }
  expect(finished).toBe(true);
  expect([...points].filter(Boolean).sort()).toEqual(
    [
      "log half written",
      "log written",
      "log synced",
      "checkpoint half written",
      "checkpoint written",
      "checkpoint synced",
      "checkpoint renamed",
      "old checkpoints removed",
      "model written",
    ].sort(),
  );
  expect(bitsOf(out)).toEqual(bitsOf(join(folder, "straight")));
});

const native = await openBackend({ backend: "native" }).then(
  (backend) => {
    backend.dispose();
    return true;
  },
  () => false,
);

test("a ternary run killed by the clock ends in the same bits", { timeout: 180_000 }, async () => {
  const backend = native ? "native" : "reference";
  const options = { recipe: { ...tinyRecipe(text, "trilm"), steps: 60 }, backend, threads: 1 } as const;
  await train({ ...options, out: join(folder, "straight-ternary") });
  const { file, out } = prepare("killed-ternary", options);

  let kills = 0;
  let finished = false;
  for (let delay = 100; !finished && kills < 100; delay += 40) {
    finished = await new Promise<boolean>((resolve) => {
      const running = spawn(process.execPath, [child, file, "0"], { stdio: "ignore" });
      const timer = setTimeout(() => running.kill("SIGKILL"), delay);
      running.on("exit", (status) => {
        clearTimeout(timer);
        resolve(status === 0);
      });
    });
    if (!finished) kills++;
  }
  expect(finished).toBe(true);
  expect(kills).toBeGreaterThan(2);
  expect(bitsOf(out)).toEqual(bitsOf(join(folder, "straight-ternary")));
});

test("an aborted run leaves a checkpoint and continues to the same bits", async () => {
  const options = { recipe: tinyRecipe(text, "trilm"), backend: "reference" } as const;
  await train({ ...options, out: join(folder, "straight-abort") });
  const out = join(folder, "aborted");
  const controller = new AbortController();
  const reason = new Error("stopped by a test");
  const stopped = train(
    { ...options, out },
    {
      signal: controller.signal,
      onProgress: ({ task, done }) => task === "train" && done === 5 && controller.abort(reason),
    },
  );
  await expect(stopped).rejects.toBe(reason);
  const steps: number[] = [];
  await train(
    { ...options, out, resume: true },
    { onProgress: ({ task, done }) => task === "train" && steps.push(done) },
  );
  expect(steps).toEqual([6, 7, 8, 9, 10, 11, 12]);
  expect(bitsOf(out)).toEqual(bitsOf(join(folder, "straight-abort")));
});
