import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
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

test("a process killed at any time goes on to the same bits", PATIENCE, async () => {
  const recipe = { ...tinyRecipe(text, "trilm"), steps: 60 };
  const options = { recipe, backend, threads: 1, resume: true } as const;
  await train({ ...options, out: join(folder, "straight-times") });
  const out = join(folder, "killed-times");
  const random = generator(5);
  let status: number | null = null;
  for (let kills = 0; kills < 5 && status === null; kills++) {
    // After some of its moments and then a while, wherever that is.
    let left = 1 + Math.floor(30 * random());
    const delay = 5 * random();
    status = await runChild({ ...options, out }, [], (kill) => {
      if (--left === 0) setTimeout(kill, delay);
    });
  }
  expect(status ?? (await runChild({ ...options, out }, [], () => {}))).toBe(0);
  expect(bitsOf(out)).toEqual(bitsOf(join(folder, "straight-times")));
});

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
