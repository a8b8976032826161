import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { bitsOf, tinyRecipe, writeTinyText } from "../../test/tiny-training.ts";
import { openDisk } from "../files/disk.ts";
import { openModel, readSnapshots } from "../files/index.ts";
import { readHeader } from "../files/safetensors.ts";
import { evaluate } from "../verbs/evaluate.ts";
import { train } from "../verbs/train.ts";
import { readRecipe } from "./recipe.ts";
import { snapshotSteps } from "./snapshots.ts";

const folder = mkdtempSync(join(tmpdir(), "lowbit-snapshots-"));
const text = writeTinyText(folder);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const backend = "reference";
const recipe = { ...tinyRecipe(text, "trilm"), snapshots: { steps: [4, 6, 12], state: true } };

test("steps: each so many, those named, or evenly spaced in their logarithm", () => {
  const steps = (input: object, total: number) => [
    ...snapshotSteps({ state: false, ...input } as never, total),
  ];
  expect(steps({ every: 5 }, 17)).toEqual([5, 10, 15]);
  expect(steps({ steps: [3, 9, 400] }, 17)).toEqual([3, 9]);
  expect(steps({ logarithmic: 4 }, 1000)).toEqual([1, 10, 100, 1000]);
  expect(steps({ logarithmic: 9 }, 4)).toEqual([1, 2, 3, 4]);
  expect(snapshotSteps(undefined, 17).size).toBe(0);
  const both = { ...tinyRecipe(text, "float"), snapshots: { every: 3, steps: [2] } };
  expect(() => readRecipe(both, "recipe")).toThrow(
    "recipe: snapshots: needs one of every, steps and logarithmic",
  );
});

test("a snapshot is a model: opened by its name, measured, listed with its hash, the last one the finished model", async () => {
  const out = join(folder, "run");
  await train({ recipe, out, backend });
  const listed = await readSnapshots(out);
  expect(listed.map(({ step, tokens }) => [step, tokens])).toEqual([
    [4, 256],
    [6, 384],
    [12, 768],
  ]);
  const log = readFileSync(join(out, "log.jsonl"), "utf8").trimEnd().split("\n");
  const line = JSON.parse(log[3]);
  expect(listed[0]).toMatchObject({ loss: line.loss, validationLoss: line.validationLoss });

  for (const { step, bytes, sha256 } of listed) {
    const file = await openModel(`${out}@${step}`);
    expect(file.name).toBe(`run@${step}`);
    expect(await file.fingerprint()).toEqual({ bytes, sha256 });
    expect(file.source.format("model.layers.0.mlp.up_proj.weight")).toBe("int2");
    expect(file.record).toMatchObject({ verb: "train", step });
    await file.close();
  }
  const last = await openModel(`${out}@last`);
  const whole = await openModel(out);
  expect(await last.fingerprint()).toEqual(await whole.fingerprint());
  await last.close();
  await whole.close();

  const held = { name: "held", text: readFileSync(join(text, "held.txt"), "utf8") };
  const { models } = await evaluate({ models: [`${out}@4`, out], text: held, backend });
  expect(models[1].text.loss).toBeLessThan(models[0].text.loss);

  const state = await openDisk(join(out, "steps", "6", "state.safetensors"));
  const { tensors, metadata } = await readHeader(state);
  expect(JSON.parse(metadata.about)).toMatchObject({ step: 6, family: "trilm", optimizerSteps: 6 });
  expect(tensors.has("second/model.layers.0.mlp.up_proj.weight")).toBe(true);
  await state.close();

  const refused = (spec: string) => openModel(spec).then(String, (error: Error) => error.message);
  expect(await refused(`${out}@7`)).toBe("run@7: no such snapshot among 3; the nearest are @6 and @12");
  expect(await refused(`${out}@40`)).toBe("run@40: no such snapshot among 3; the nearest is @12");
  expect(await refused(`${out}@first`)).toContain("run@first: no such file or folder");
  await train({ recipe: tinyRecipe(text, "float"), out: join(folder, "none"), backend });
  expect(await refused(`${join(folder, "none")}@4`)).toContain("none@4: the model keeps no snapshots");
});

test("a run that fails at a snapshot makes it again, the same", async () => {
  const out = join(folder, "failing");
  const failure = new Error("stopped here");
  for (const stop of ["snapshot written", "checkpoint synced", "snapshot written"]) {
    const stopped = train({ recipe, out, backend, resume: true }, {}, (point) => {
      if (point === stop) throw failure;
    });
    await expect(stopped).rejects.toBe(failure);
  }
  await train({ recipe, out, backend, resume: true });
  expect(bitsOf(out)).toEqual(bitsOf(join(folder, "run")));
  expect(await readSnapshots(out)).toEqual(await readSnapshots(join(folder, "run")));
  expect(readdirSync(join(out, "steps")).sort()).toEqual(["12", "4", "6", "index.json"]);
});
