import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openBackend } from "../src/backends/index.ts";
import { generator } from "../src/tensor/random.ts";
import { type TrainOptions, train } from "../src/verbs/train.ts";
import { bitsOf, tinyRecipe, writeTinyText } from "./tiny-training.ts";

/** A child process starts in well under a second; this is for machines that do much else. */
const PATIENCE = { timeout: 240_000 };

const POINTS = [
  "log half written",
  "log written",
  "log synced",
  "checkpoint half written",
  "checkpoint written",
  "checkpoint synced",
  "checkpoint renamed",
  "old checkpoints removed",
  "model written",
];

let folder: string;
let text: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "lowbit-resume-"));
  text = writeTinyText(folder);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test(
  "a run that fails at every moment of writing log, checkpoint and model ends in the same bits",
  PATIENCE,
  async () => {
    const options = { recipe: tinyRecipe(text, "float"), backend: "reference", resume: true } as const;
    await train({ ...options, out: join(folder, "straight") });

    const out = join(folder, "failing");
    const failure = new Error("stopped here");
    const met = new Set<string>();
    let failures = 0;
    // Each run starts from the newest checkpoint and gets one moment further than the one before it, up to twelve:
    // three steps and a checkpoint. After the last checkpoint the model's own moment is the first.
    for (let finished = false; !finished && failures < 100; ) {
      const last = (failures % 12) + 1;
      let reached = 0;
      finished = await train({ ...options, out }, {}, (point) => {
        met.add(point);
        if (++reached === last) throw failure;
      }).then(
        () => true,
        (error) => {
          expect(error).toBe(failure);
          failures++;
          return false;
        },
      );
    }
    expect([...met].sort()).toEqual([...POINTS].sort());
    expect(failures).toBe(25);
    expect(bitsOf(out)).toEqual(bitsOf(join(folder, "straight")));
  },
);

const backend = await openBackend({ backend: "native" }).then(
  (native) => {
    native.dispose();
    return "native" as const;
  },
  () => "reference" as const,
);

/** Runs a child until it ends; `onPoint` sees every moment and may kill it. Gives its exit status, null when it was killed. */
function runChild(
  options: TrainOptions,
  args: readonly string[],
  onPoint: (kill: () => void) => void,
): Promise<number | null> {
  return new Promise((resolve, reject) => {
    const script = join(import.meta.dirname, "train-child.ts");
    const child = spawn(process.execPath, [script, JSON.stringify(options), ...args], {
      stdio: ["ignore", "pipe", "inherit"],
      // Stripped types are kept, so that each of many lives begins at once.
      env: { ...process.env, NODE_COMPILE_CACHE: join(folder, "compile-cache") },
    });
    child.stdout.on("data", () => onPoint(() => child.kill("SIGKILL")));
    child.on("error", reject);
    child.on("exit", (status, signal) => {
      expect(signal).toBe(status === null ? "SIGKILL" : null);
      resolve(status);
    });
  });
}

test("a process killed between write, sync and rename goes on to the same bits", PATIENCE, async () => {
  const options = { recipe: tinyRecipe(text, "float"), backend, threads: 1, resume: true } as const;
  await train({ ...options, out: join(folder, "straight-points") });
  const out = join(folder, "killed-points");
  const kills: [point: string, count: number][] = [
    ["log half written", 2],
    ["checkpoint half written", 1],
    ["checkpoint synced", 1],
    ["checkpoint renamed", 2],
    ["log written", 2],
    ["model written", 1],
  ];
  for (const [point, count] of kills) {
    expect(await runChild({ ...options, out }, [point, String(count)], () => {}), point).toBeNull();
  }
  expect(await runChild({ ...options, out }, [], () => {})).toBe(0);
  expect(bitsOf(out)).toEqual(bitsOf(join(folder, "straight-points")));
});

const KILLS = 50;

test(
  "a process killed 50 times in a row at any time loses at most the steps since its last checkpoint, and no bits",
  PATIENCE,
  async () => {
    // Long enough that no life is the last one before the kills are over.
    const recipe = { ...tinyRecipe(text, "trilm"), steps: 1500, validateEvery: 500, checkpointEvery: 4 };
    const options = { recipe, backend, threads: 1, resume: true } as const;
    await train({ ...options, out: join(folder, "straight-times") });
    const out = join(folder, "killed-times");
    const random = generator(5);
    let steps = 0;
    for (let kill = 0; kill < KILLS; kill++) {
      // After some of its moments and then a while, wherever that is.
      let left = 1 + Math.floor(60 * random());
      const delay = 5 * random();
      const status = await runChild({ ...options, out }, [], (stop) => {
        if (--left === 0) setTimeout(stop, delay);
      });
      expect(status, `life ${kill}`).toBeNull();
      const { logged, kept } = standing(out);
      expect(kept, `life ${kill}`).toBeGreaterThanOrEqual(steps); // what was kept stays
      expect(logged - kept, `life ${kill}`).toBeLessThanOrEqual(recipe.checkpointEvery);
      steps = kept;
    }
    expect(steps).toBeGreaterThan(0);
    expect(await runChild({ ...options, out }, [], () => {})).toBe(0);
    expect(bitsOf(out)).toEqual(bitsOf(join(folder, "straight-times")));
  },
);

/** Steps in a run's log, and in its newest checkpoint. */
function standing(out: string): { logged: number; kept: number } {
  const lines = existsSync(join(out, "log.jsonl"))
    ? readFileSync(join(out, "log.jsonl"), "utf8").split("\n")
    : [];
  const names = existsSync(join(out, "work")) ? readdirSync(join(out, "work")) : [];
  const steps = names.flatMap((name) => /^checkpoint-(\d+)\.safetensors$/.exec(name)?.[1] ?? []).map(Number);
  return { logged: Math.max(0, lines.length - 1), kept: Math.max(0, ...steps) };
}

test("an aborted run leaves a checkpoint and goes on to the same bits", PATIENCE, async () => {
  const options = { recipe: tinyRecipe(text, "trilm"), backend: "reference" } as const;
  await train({ ...options, out: join(folder, "straight-abort") });
  const out = join(folder, "aborted");
  const controller = new AbortController();
  const reason = new Error("stopped by a test");
  const stopAtFive = ({ task, done }: { task: string; done: number }) => {
    if (task === "train" && done === 5) controller.abort(reason);
  };
  const stopped = train({ ...options, out }, { signal: controller.signal, onProgress: stopAtFive });
  await expect(stopped).rejects.toBe(reason);
  const steps: number[] = [];
  const note = ({ task, done }: { task: string; done: number }) => {
    if (task === "train") steps.push(done);
  };
  await train({ ...options, out, resume: true }, { onProgress: note });
  expect(steps).toEqual([6, 7, 8, 9, 10, 11, 12]);
  expect(bitsOf(out)).toEqual(bitsOf(join(folder, "straight-abort")));
});
