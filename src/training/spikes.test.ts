import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { bitsOf, tinyRecipe, writeTinyText } from "../../test/tiny-training.ts";
import { readSnapshots } from "../files/index.ts";
import { train } from "../verbs/train.ts";
import { batchOf, hasDiverged, spikeOf } from "./spikes.ts";

const folder = mkdtempSync(join(tmpdir(), "lowbit-spikes-"));
const text = writeTinyText(folder);
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const backend = "reference";

test("a spike is a loss far above the median, in deviations that spikes do not move", () => {
  // 1 … 9 twice: median 5, MAD 2, deviation 2.9652.
  const before = [1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9];
  const options = { window: 18, threshold: 4 };
  expect(spikeOf(before, 5 + 4 * 1.4826 * 2 - 0.01, options)).toBeUndefined();
  expect(spikeOf(before, 5 + 4 * 1.4826 * 2 + 0.01, options)).toContain("deviations above the median 5.0000");
  expect(spikeOf(before.slice(1), 1000, options)).toBeUndefined(); // the window is not full
  expect(spikeOf([], Number.NaN, options)).toBe("the loss is NaN");
  expect(spikeOf(Array(18).fill(2), 2.001, options)).toBeUndefined();
  expect(spikeOf(Array(18).fill(2), 2.1, options)).toContain("50.0 deviations");
});

test("a run has diverged when the median of its last losses is beyond both limits", () => {
  expect(hasDiverged(Array(16).fill(20), 5, 280)).toBe(true); // 3·ln 280 = 16.9
  expect(hasDiverged(Array(16).fill(16), 5, 280)).toBe(false);
  expect(hasDiverged(Array(16).fill(20), 7, 280)).toBe(false);
  expect(hasDiverged([...Array(7).fill(1), ...Array(9).fill(20)], 5, 280)).toBe(true);
  expect(hasDiverged(Array(15).fill(20), 5, 280)).toBe(false);
});

test("batches that are left out are passed over, in order", () => {
  expect([0, 1, 2, 3, 4].map((step) => batchOf(step, []))).toEqual([0, 1, 2, 3, 4]);
  expect([0, 1, 2, 3, 4].map((step) => batchOf(step, [1, 2, 5]))).toEqual([0, 3, 4, 6, 7]);
});

/** A text with one place that is like nothing else in it. */
function spikyText(name: string): string {
  const path = writeTinyText(join(folder, name));
  const b = join(path, "b.txt");
  const plain = readFileSync(b, "utf8");
  const noise = Array.from({ length: 16 }, (_, i) => String.fromCharCode(0x3b1 + ((i * 7) % 24))).join("");
  writeFileSync(b, `${plain.slice(0, 900)}${noise}${plain.slice(900)}`);
  return path;
}

const spiky = {
  ...tinyRecipe(spikyText("noise"), "float"),
  steps: 60,
  spikes: { window: 8, threshold: 6, skip: 2, retries: 3 },
  snapshots: { every: 2 },
};

test("a spike: back to the last good checkpoint, without its batches, in the log; healthy runs keep their bits", async () => {
  const out = join(folder, "spiky");
  const warnings: string[] = [];
  await train({ recipe: spiky, out, backend }, { onWarning: (message) => warnings.push(message) });
  const lines = readFileSync(join(out, "log.jsonl"), "utf8")
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
  const events = lines.filter(({ event }) => event === "rollback");
  expect(events.length).toBeGreaterThan(0);
  expect(warnings.length).toBe(events.length);
  expect(warnings[0]).toMatch(
    /^train: step \d+: the loss .* is .* deviations above the median .* of 8 steps; going back to step \d+ and leaving out 2 batches$/,
  );
  const [{ at, to, skipped }] = events;
  expect(to % 3).toBe(0);
  expect(to).toBeLessThanOrEqual(at - 2);
  expect(to).toBeGreaterThan(at - 2 - 3);
  expect(skipped).toEqual([at - 2, at - 1]);
  // Each step once, in order; the event stands where the run went on.
  expect(lines.filter(({ event }) => !event).map(({ step }) => step)).toEqual(
    Array.from({ length: 60 }, (_, i) => i + 1),
  );
  expect(lines.findIndex(({ event }) => event)).toBe(to);
  expect((await readSnapshots(out)).map(({ step }) => step)).toEqual(
    Array.from({ length: 30 }, (_, i) => 2 * i + 2),
  );

  const plain = { ...tinyRecipe(text, "float"), steps: 30 };
  await train({ recipe: plain, out: join(folder, "plain"), backend });
  await train({ recipe: { ...plain, spikes: { window: 8 } }, out: join(folder, "watched"), backend });
  expect(bitsOf(join(folder, "watched"))).toEqual(bitsOf(join(folder, "plain")));
});

test("a run that fails at every moment around a rollback ends in the same bits", async () => {
  const out = join(folder, "failing");
  const failure = new Error("stopped here");
  let failures = 0;
  for (let finished = false; !finished && failures < 60; ) {
    const last = 2 + 5 * (failures % 6) + (failures % 5);
    let reached = 0;
    finished = await train({ recipe: spiky, out, backend, resume: true }, {}, () => {
      if (++reached === last + 12) throw failure;
    }).then(
      () => true,
      (error) => {
        expect(error).toBe(failure);
        failures++;
        return false;
      },
    );
  }
  expect(failures).toBeGreaterThan(5);
  expect(bitsOf(out)).toEqual(bitsOf(join(folder, "spiky")));
  expect(await readSnapshots(out)).toEqual(await readSnapshots(join(folder, "spiky")));
});

test("a run that aborts between checkpoints rolls back to the same one", async () => {
  const out = join(folder, "aborting");
  const at = JSON.parse(
    readFileSync(join(folder, "spiky", "log.jsonl"), "utf8")
      .split("\n")
      .find((line) => line.includes("rollback"))!,
  ).at;
  const controller = new AbortController();
  const reason = new Error("stopped");
  const onProgress = ({ task, done }: { task: string; done: number }) => {
    if (task === "train" && done === at - 1) controller.abort(reason);
  };
  await expect(
    train({ recipe: spiky, out, backend }, { signal: controller.signal, onProgress }),
  ).rejects.toBe(reason);
  await train({ recipe: spiky, out, backend, resume: true });
  expect(bitsOf(out)).toEqual(bitsOf(join(folder, "spiky")));
});

test("a run that breaks stops with the step and the tensor, its last good checkpoint kept; with spikes after its retries", async () => {
  const broken = {
    ...tinyRecipe(text, "float"),
    checkpointEvery: 1,
    schedule: { kind: "cosine", peak: 1e20, warmup: 0 },
  } as const;
  const stopped = (name: string, recipe: object) =>
    train({ recipe: recipe as typeof broken, out: join(folder, name), backend }).then(
      String,
      (error: Error) => error.message,
    );
  expect(await stopped("broken", broken)).toMatch(
    /^train: step 2: the loss is NaN \(input of model\.layers\.0\.\S+\.weight\); lower the learning rate or the clip; the checkpoint of step 1 is kept$/,
  );
  expect(readdirSync(join(folder, "broken", "work"))).toContain("checkpoint-00000001.safetensors");
  expect(existsSync(join(folder, "broken", "model.safetensors"))).toBe(false);
  expect(await stopped("retried", { ...broken, spikes: { retries: 2, skip: 1 } })).toContain(
    "the loss is NaN after 2 rollbacks (",
  );
});
