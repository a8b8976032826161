import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { bitsOf, tinyRecipe, writeTinyText } from "../../test/tiny-training.ts";
import { openBackend } from "../backends/index.ts";
import { openModel } from "../files/index.ts";
import { decodeWeight } from "../formats/index.ts";
import { llama } from "../models/llama.ts";
import { generator, normals } from "../tensor/random.ts";
import { train } from "../verbs/train.ts";
import { readRecipe, roundingOf } from "./recipe.ts";
import { Trainer } from "./trainer.ts";
import { BINS } from "./weights-log.ts";
import { countFlips, measureMatrix, readWeightsLog, WeightsWatch } from "./weights-watch.ts";

const folder = mkdtempSync(join(tmpdir(), "lowbit-weights-watch-"));
const text = writeTinyText(folder);
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const backend = "reference";

describe("one matrix", () => {
  const W = normals(generator(1), 6 * 40);
  const seen = (level: (w: number, r: number) => number) => ({
    name: "W",
    rows: 6,
    cols: 40,
    W,
    Ŵ: W.map((w, i) => level(w, Math.floor(i / 40))),
  });
  const clipped = (x: number, low: number, high: number) => Math.min(high, Math.max(low, Math.round(x)));

  test("ternary, binary and uniform grids: the code is the level, whatever the row's scale", () => {
    const scaleOf = (r: number) => 0.3 + 0.17 * r;
    for (const [low, high] of [
      [-1, 1],
      [-4, 3],
    ]) {
      const levels = Array.from(W, (w) => clipped(1.7 * w, low, high));
      const Ŵ = Float32Array.from(levels, (k, i) => k * scaleOf(Math.floor(i / 40)));
      const { codes, zeros } = measureMatrix({ ...seen(() => 0), Ŵ });
      expect([...codes!]).toEqual(levels.map((k) => k || 0)); // −0 is 0
      expect(zeros).toBe(levels.filter((k) => k === 0).length);
    }
    const binary = measureMatrix(seen((w, r) => (w < 0 ? -1 : 1) * scaleOf(r)));
    expect([...binary.codes!]).toEqual(Array.from(W, (w) => (w < 0 ? -1 : 1)));
    expect(binary.zeros).toBe(0);
    // Levels at odd multiples of half a step, as 2-bit ParetoQ has them.
    const odd = measureMatrix(seen((w, r) => (Math.floor(clipped(w, -1.4, 1.4)) + 0.5) * scaleOf(r)));
    expect(new Set(odd.codes!)).toEqual(new Set([-3, -1, 1, 3].filter((k) => odd.codes!.includes(k))));
  });

  test("weights with scales of their own: the code is the sign", () => {
    const { codes } = measureMatrix(seen((w) => Math.sign(w) * (0.5 + 0.01 * Math.sqrt(Math.abs(w)))));
    expect([...codes!]).toEqual(Array.from(W, (w) => Math.sign(w)));
  });

  test("float weights have a histogram and a norm only", () => {
    const { codes, zeros: _, ...sample } = measureMatrix({ name: "W", rows: 6, cols: 40, W, Ŵ: W });
    expect(codes).toBeUndefined();
    expect(Object.keys(sample).sort()).toEqual(["histogram", "norm", "scale"]);
    expect(sample.norm).toBeCloseTo(Math.hypot(...W), 10);
  });

  test("the histogram counts w/γ by row, everything once, what is beyond at the ends", () => {
    const Ŵ = W.map((w) => 0.25 * Math.sign(w));
    Ŵ.fill(0, 0, 40); // a row without a scale takes the mean of the others
    const { histogram, scale } = measureMatrix({ name: "W", rows: 6, cols: 40, W, Ŵ });
    expect(scale).toBe(0.25);
    const counts = new Array(BINS).fill(0);
    for (const w of W) counts[Math.min(BINS - 1, Math.max(0, Math.floor((w / 0.25 + 3) * 8)))]++;
    expect(histogram).toEqual(counts);
    expect(histogram.reduce((a, b) => a + b)).toBe(240);
    expect(
      measureMatrix({ name: "0", rows: 1, cols: 2, W: new Float32Array(2), Ŵ: new Float32Array(2) }).scale,
    ).toBe(1);
  });

  test("flips are codes that differ", () => {
    expect(countFlips(Int8Array.of(1, 0, -1, 1), Int8Array.of(1, 1, 1, 1))).toBe(2);
  });
});

test("zeros and flips of a run are those of its weights, counted by hand", async () => {
  const recipe = readRecipe({ ...tinyRecipe(text, "trilm"), measureEvery: 2, steps: 4 }, "recipe");
  const rounding = roundingOf(recipe)!;
  const on = await openBackend({ backend });
  const config = {
    architecture: "llama",
    ...recipe.model,
    vocabulary: 280,
    headDim: 8,
    ropePairing: "halves",
  } as const;
  const trainer = new Trainer(on, llama(config), recipe, { steps: 4, rounding });
  const out = mkdtempSync(join(folder, "by-hand-"));
  const watch = await WeightsWatch.open(out, trainer, recipe, 4, undefined);
  const codesNow = async () => {
    const codes: number[][] = [];
    const running = trainer.running({ step: 0, steps: 4 });
    for (const { name, role } of trainer.model.tensors) {
      if (role !== "linear") continue;
      codes.push(Array.from(await on.read(running.weights.get(name)!), (w) => Math.sign(w)));
    }
    running.free();
    return codes;
  };
  const ids = Int32Array.from({ length: 65 }, (_, i) => (7 * i) % 280);
  const batch = { sequences: 4, inputs: ids.subarray(0, 64), targets: ids.subarray(1) };
  const codes = [await codesNow()];
  for (let step = 1; step <= 4; step++) {
    await trainer.step(batch, step, 0.05, 0.1);
    await watch.after(step);
    if (step % 2 === 0) codes.push(await codesNow());
  }
  const { samples, header } = await readWeightsLog(out);
  expect(samples.map(({ step }) => step)).toEqual([0, 2, 4]);
  for (const [s, { matrices }] of samples.entries()) {
    expect(matrices.map(({ zeros }) => zeros)).toEqual(
      codes[s].map((matrix) => matrix.filter((k) => k === 0).length),
    );
    expect(matrices.map(({ flips }) => flips)).toEqual(
      codes[s].map((matrix, m) =>
        s === 0 ? undefined : matrix.filter((k, i) => k !== codes[s - 1][m][i]).length,
      ),
    );
  }
  expect(samples[2].matrices.some(({ flips }) => flips! > 0)).toBe(true);
  expect(header).toMatchObject({ family: "trilm", steps: 4, every: 2 });
  trainer.dispose();
  on.dispose();
});

/** What must not differ from run to run. */
const untimed = (out: string) =>
  readFileSync(join(out, "weights.jsonl"), "utf8")
    .trimEnd()
    .split("\n")
    .map((line) => ({ ...JSON.parse(line), timing: undefined }));

test("the last measurement's zeros are those of the packed file; how often is measured changes no bits", async () => {
  const often = join(folder, "often");
  const seldom = join(folder, "seldom");
  await train({ recipe: { ...tinyRecipe(text, "trilm"), measureEvery: 1 }, out: often, backend });
  await train({ recipe: { ...tinyRecipe(text, "trilm"), measureEvery: 500 }, out: seldom, backend });
  expect(bitsOf(often)).toEqual(bitsOf(seldom));
  expect((await readWeightsLog(seldom)).samples.map(({ step }) => step)).toEqual([0, 12]);

  const { header, samples } = await readWeightsLog(often);
  const file = await openModel(often);
  for (const [m, { name }] of header!.matrices.entries()) {
    const { data } = decodeWeight(await file.source.read(name));
    expect(samples.at(-1)!.matrices[m].zeros, name).toBe(data.filter((w) => w === 0).length);
  }
  await file.close();
});

test("an interrupted run writes the lines that it would have written", async () => {
  const recipe = { ...tinyRecipe(text, "trilm"), measureEvery: 2 };
  const whole = join(folder, "whole");
  await train({ recipe, out: whole, backend });
  const out = join(folder, "interrupted");
  for (const [stop, times] of [
    ["log half written", 8],
    ["checkpoint synced", 1],
  ] as const) {
    let met = 0;
    const failing = train({ recipe, out, backend, resume: true }, {}, (point) => {
      if (point === stop && ++met === times) throw new Error("stopped here");
    });
    await expect(failing).rejects.toThrow("stopped here");
  }
  writeFileSync(join(out, "weights.jsonl"), '{"half', { flag: "a" });
  await train({ recipe, out, backend, resume: true });
  expect(untimed(out)).toEqual(untimed(whole));
});
