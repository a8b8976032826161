import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { refusal } from "../../test/refusal.ts";
import { bitsOf, tinyRecipe, writeTinyText } from "../../test/tiny-training.ts";
import { openBackend } from "../backends/index.ts";
import { encodeSafetensors } from "../files/safetensors.ts";
import { type TrainOptions, train } from "../verbs/train.ts";
import { type Checkpoint, readCheckpoint, readState, removeOld, writeCheckpoint } from "./checkpoint.ts";
import { differences } from "./differences.ts";

const folder = mkdtempSync(join(tmpdir(), "lowbit-checkpoint-"));
const text = writeTinyText(folder);
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const native = await openBackend({ backend: "native" }).then(
  (backend) => {
    backend.dispose();
    return true;
  },
  () => false,
);

const recipe = tinyRecipe(text, "float");
/** Trains until step `at` and stops there, as Ctrl-C does. */
async function begin(out: string, at: number, options: Partial<TrainOptions> = {}) {
  const controller = new AbortController();
  const reason = new Error("stopped");
  const onProgress = ({ task, done }: { task: string; done: number }) => {
    if (task === "train" && done === at) controller.abort(reason);
  };
  const run = train(
    { recipe, out, backend: "reference", ...options },
    { signal: controller.signal, onProgress },
  );
  await expect(run).rejects.toBe(reason);
}

test("a checkpoint comes back as it was; the two newest and the newest that were due stay", async () => {
  const work = mkdtempSync(join(folder, "work-"));
  const about = {
    logBytes: 12,
    family: "float",
    backend: "b",
    optimizerSteps: 5,
    skipped: [3, 4],
    rollbacks: 1,
    spikeAt: 7,
  };
  const tensors = new Map<string, Float32Array | Int32Array>([
    ["b", Float32Array.of(1, Number.NaN, -0)],
    ["first/a", Int32Array.of(-1, 2 ** 31 - 1)],
  ]);
  const at = (step: number): Checkpoint => ({ ...about, step, tensors });
  for (const step of [0, 10, 20, 30, 31, 33, 35])
    await writeCheckpoint(work, at(step), { every: 10 }, () => {});
  const steps = () => readdirSync(work).map((name) => Number(/\d+/.exec(name)));
  expect(steps()).toEqual([20, 30, 33, 35]);
  expect(await readCheckpoint(work)).toEqual(at(35));
  await removeOld(work, { every: 10, due: 1 });
  expect(steps()).toEqual([30, 33, 35]);
});

test("a state of other numbers than ours is damaged, in one line", async () => {
  const path = join(folder, "foreign.safetensors");
  const part = { dtype: "f16", shape: [3], bytes: new Uint8Array(6) } as const;
  const metadata = { lowbit: "checkpoint", version: "2", about: "{}", sha256: "" };
  writeFileSync(path, encodeSafetensors(new Map([["a", part]]), metadata));
  expect(await refusal(readState(path))).toMatch(
    /^foreign\.safetensors: damaged \(.*\): tensor a is F16, not F32 or I32$/,
  );
});

test("a run that was begun before checkpoints had a hash goes on", async () => {
  await train({ recipe, out: join(folder, "new"), backend: "reference" });
  const out = join(folder, "old");
  await begin(out, 5);
  const { step, logBytes, tensors } = (await readCheckpoint(join(out, "work")))!;
  const parts = [...tensors].map(([name, data]) => {
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    return [name, { dtype: "f32", shape: [data.length], bytes }] as const;
  });
  const metadata = { lowbit: "checkpoint", version: "1", step: `${step}`, logBytes: `${logBytes}` };
  writeFileSync(
    join(out, "work", "checkpoint-00000005.safetensors"),
    encodeSafetensors(new Map(parts), metadata),
  );
  const warnings: string[] = [];
  await train({ recipe, out, backend: "reference", resume: true }, { onWarning: (w) => warnings.push(w) });
  expect(warnings).toEqual([]);
  expect(bitsOf(out)).toEqual(bitsOf(join(folder, "new")));
});

test("a damaged checkpoint is named with its hash, and the run goes on from the one before it", async () => {
  await train({ recipe, out: join(folder, "straight"), backend: "reference" });
  const out = join(folder, "damaged");
  await begin(out, 7);
  const work = join(out, "work");
  const path = (step: number) => join(work, `checkpoint-0000000${step}.safetensors`);
  const flip = (step: number) => {
    const bytes = readFileSync(path(step));
    bytes[bytes.length - 5] ^= 4; // one bit of a weight
    writeFileSync(path(step), bytes);
  };
  flip(7);
  const warnings: string[] = [];
  await train(
    { recipe, out, backend: "reference", resume: true },
    { onWarning: (message) => warnings.push(message) },
  );
  expect(warnings).toHaveLength(1);
  expect(warnings[0]).toMatch(
    /^checkpoint-00000007\.safetensors: damaged \(its SHA-256 is [0-9a-f]{64}\): its contents have the hash [0-9a-f]{64}, written were those of [0-9a-f]{64}; going on from checkpoint-00000006\.safetensors, the one before it$/,
  );
  expect(bitsOf(out)).toEqual(bitsOf(join(folder, "straight")));

  const both = join(folder, "both-damaged");
  await begin(both, 7);
  writeFileSync(join(both, "work", "checkpoint-00000007.safetensors"), "not a checkpoint at all");
  writeFileSync(
    join(both, "work", "checkpoint-00000006.safetensors"),
    readFileSync(join(both, "work", "checkpoint-00000006.safetensors")).subarray(0, 5000),
  );
  rmSync(join(both, "work", "checkpoint-00000003.safetensors"));
  expect(await refusal(train({ recipe, out: both, backend: "reference", resume: true }))).toMatch(
    /^checkpoint-00000007\.safetensors: damaged \(.*\): .*; there is no whole one before it, begin again in another folder$/,
  );
  expect(readdirSync(join(both, "work"))).toContain("checkpoint-00000007.safetensors");
});

test("another recipe, text or tokenizer: what differs is listed key by key", async () => {
  const out = join(folder, "begun");
  await begin(out, 2);
  const resumed = (change: object, set: string[] = []) =>
    refusal(train({ recipe: { ...recipe, ...change }, out, set, backend: "reference", resume: true }));
  expect(await resumed({ batch: 6, microBatch: 3 }, ["model.layers=3", "optimizer.beta1=0.8"])).toContain(
    "begun: the run was begun with another recipe (model.layers 2 → 3, batch 4 → 6, microBatch 2 → 3, optimizer.beta1 0.9 → 0.8); resume with",
  );
  expect(await resumed({ data: { ...recipe.data, tokenizer: { train: 290 } } })).toContain(
    "(data.train 280 → 290)",
  );
  const other = writeTinyText(join(folder, "other"));
  writeFileSync(join(other, "a.txt"), "Another text altogether. ".repeat(100));
  expect(await resumed({ data: { ...recipe.data, text: other } })).toMatch(
    /begun with another data \(a\.txt [0-9a-f]{39}… → [0-9a-f]{39}…\)/,
  );
});

test("differences name nested keys, and count when there are many", () => {
  expect(differences({ a: 1, b: { c: [1], d: "x" } }, { a: 1, b: { c: [1, 2], e: null } })).toBe(
    "b.c [1] → [1,2], b.d x → none, b.e none → null",
  );
  expect(differences({ a: 1 }, { a: 1 })).toBe("");
  const many = Object.fromEntries(Array.from({ length: 9 }, (_, i) => [`k${i}`, i]));
  expect(differences({}, many)).toContain("and 3 more");
});

test.skipIf(!native)("another backend is a warning; another number of threads is the same run", async () => {
  const out = join(folder, "moved");
  await begin(out, 5);
  const warnings: string[] = [];
  const job = { onWarning: (message: string) => warnings.push(message) };
  await train({ recipe, out, backend: "native", threads: 1, resume: true }, job);
  expect(warnings).toHaveLength(1);
  expect(warnings[0]).toMatch(
    /^train: the first 5 steps ran on another backend \(reference, plain TypeScript; now native, .+\); the bits may differ from those of either alone$/,
  );

  // Large enough that every product is cut into tasks.
  const wide = { ...recipe, model: { ...recipe.model, dim: 64, ffn: 192, context: 64 }, steps: 6 };
  await train({ recipe: wide, out: join(folder, "one-thread"), backend: "native", threads: 1 });
  const threads = join(folder, "threads");
  await begin(threads, 4, { recipe: wide, backend: "native", threads: 3 });
  warnings.length = 0;
  await train({ recipe: wide, out: threads, backend: "native", threads: 2, resume: true }, job);
  expect(warnings).toEqual([]);
  expect(bitsOf(threads)).toEqual(bitsOf(join(folder, "one-thread")));
});
