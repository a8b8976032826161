import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { openModel, readSnapshots } from "../src/files/index.ts";
import { splitWidth } from "../src/files/widths.ts";
import { decodeWeight } from "../src/formats/index.ts";
import { readLog } from "../src/training/log.ts";
import type { RecipeInput } from "../src/training/recipe.ts";
import { compress } from "../src/verbs/compress.ts";
import { convert } from "../src/verbs/convert.ts";
import { evaluate } from "../src/verbs/evaluate.ts";
import { generate } from "../src/verbs/generate.ts";
import { inspect } from "../src/verbs/inspect.ts";
import { train } from "../src/verbs/train.ts";
import { tinyRecipe, writeTinyText } from "./tiny-training.ts";

const folder = mkdtempSync(join(tmpdir(), "lowbit-widths-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const backend = "reference";
const at = (name: string) => join(folder, name);
const text = writeTinyText(folder);
const held = { name: "held", text: readFileSync(join(text, "held.txt"), "utf8") };
const up = "model.layers.0.mlp.up_proj.weight";
const recipe = (family: string, more: Partial<RecipeInput> = {}): RecipeInput => ({
  ...tinyRecipe(text, "float"),
  family,
  steps: 6,
  validateEvery: 3,
  ...more,
});
const records = {
  matquant: await train({
    recipe: recipe("matquant", { snapshots: { steps: [3] } }),
    out: at("matquant"),
    backend,
  }),
  double: await train({ recipe: recipe("double-rounding"), out: at("double"), backend }),
};
const float = await train({ recipe: recipe("float"), out: at("float"), backend });

const format = async (spec: string) => {
  const file = await openModel(spec);
  try {
    return file.source.format(up);
  } finally {
    await file.close();
  }
};

test("training records the loss at each width, and evaluate measures the same on the model read at it", async () => {
  for (const [name, bits] of [
    ["matquant", [8, 4, 2]],
    ["double", [8, 6, 4, 2]],
  ] as const) {
    const { widths, loss, tokens } = records[name].validation;
    expect(widths!.map((width) => width.bits)).toEqual(bits);
    expect(widths![0].loss).toBe(loss); // 8 bits are all that is stored
    const models = bits.map((width) => `${at(name)}@${width}bit`);
    const { models: measured } = await evaluate({ models, text: held, context: 16, backend });
    for (const [i, { text: result }] of measured.entries()) {
      // Training leaves out what follows the last whole window.
      expect(Math.abs(result.loss * result.tokens - widths![i].loss * tokens)).toBeLessThan(
        8 * (result.tokens - tokens) + 0.5,
      );
    }
    // Different widths are different models.
    expect(new Set(measured.map(({ sha256 }) => sha256)).size).toBe(bits.length);
    expect(measured.map((model) => model.name)).toEqual(bits.map((width) => `${name}@${width}bit`));
  }
  expect(float.validation.widths).toBeUndefined();
});

test("losses at each width stand in the log and beside the snapshots", async () => {
  const [line] = (await readLog(join(at("matquant"), "log.jsonl"))).filter(
    ({ validationLoss }) => validationLoss,
  );
  expect(line.step).toBe(3);
  expect(line.widthLosses!.map(({ bits }) => bits)).toEqual([8, 4, 2]);
  expect(line.widthLosses![0].loss).toBe(line.validationLoss);
  expect(line.widthLosses![2].loss).not.toBe(line.validationLoss);
  expect((await readSnapshots(at("matquant")))[0].widthLosses).toEqual(line.widthLosses);
  expect(await format(`${at("matquant")}@3@2bit`)).toBe("int2-offset");
  expect(readFileSync(join(at("matquant"), "report.html"), "utf8")).toContain("read at 4 bits");
});

test("a model read at fewer bits is generated with, inspected, converted and compressed as such", async () => {
  const spec = `${at("matquant")}@4bit`;
  expect(await format(at("matquant"))).toBe("int8-offset");
  const whole = await inspect({ model: at("matquant") });
  const seen = await inspect({ model: spec });
  expect(seen).toMatchObject({ name: "matquant@4bit", container: "safetensors, read at 4 bits" });
  // Codes of 4 bits with a scale and an offset of fp16 for each row, of 16 or 32 weights.
  expect(whole.bitsPerWeight.linear - seen.bitsPerWeight.linear).toBeCloseTo(4, 10);
  expect(whole.bytes - seen.bytes).toBe(
    whole.tensors.reduce((sum, { bytes }, i) => sum + bytes - seen.tensors[i].bytes, 0),
  );
  expect((await generate({ model: spec, prompt: "The fox", tokens: 3, seed: 1, backend })).tokens).toBe(3);

  await convert({ model: spec, output: at("four") });
  const [narrow, copy] = [await openModel(spec), await openModel(at("four"))];
  expect(await copy.source.read(up)).toEqual(await narrow.source.read(up));
  expect(copy.config).toEqual({ ...narrow.config, quantization_config: copy.config.quantization_config });
  await expect(openModel(`${at("four")}@2bit`)).rejects.toThrow(
    /^four@2bit: the model was not trained to be read at fewer bits/,
  );
  await convert({ model: spec, output: at("four.gguf"), type: "f32" });
  const gguf = await openModel(at("four.gguf"));
  expect(decodeWeight(await gguf.source.read(up)).data).toEqual(
    decodeWeight(await narrow.source.read(up)).data,
  );
  for (const file of [gguf, narrow, copy]) await file.close();

  const { layers } = await compress({ model: spec, output: at("smaller"), format: "int2", backend });
  expect(layers[0].format).toBe("int2");
});

test("models and widths that are not made for it are one line; a width between is a warning", async () => {
  await expect(openModel(`${at("float")}@4bit`)).rejects.toThrow(
    "float@4bit: the model was not trained to be read at fewer bits; train one with the family matquant or double-rounding",
  );
  await expect(openModel(`${at("matquant")}@5bit`)).rejects.toThrow(
    "matquant@5bit: a model is read at 8, 6, 4, 3, 2 bits; this one was trained at 8, 4, 2",
  );
  const warnings: string[] = [];
  const onWarning = (message: string) => warnings.push(message);
  await evaluate({ models: [`${at("matquant")}@3bit`], text: held, context: 16, backend }, { onWarning });
  expect(warnings).toEqual([
    "matquant@3bit: was trained at 8, 4, 2 bits, not at 3; measure it before you rely on it",
  ]);
  await expect(openModel(`${at("absent")}@4bit`)).rejects.toThrow(/absent: no such file or folder/);
});

test("a width stands behind a snapshot and behind a revision of the hub, whose own @ it is not", () => {
  expect(splitWidth("run@4bit")).toEqual({ model: "run", bits: 4 });
  expect(splitWidth("run@last@2bit")).toEqual({ model: "run@last", bits: 2 });
  expect(splitWidth("bundled:many@8bit")).toEqual({ model: "bundled:many", bits: 8 });
  expect(splitWidth("hf:owner/name@4bit")).toBeUndefined(); // a revision
  expect(splitWidth("hf:owner/name@main@4bit")).toEqual({ model: "hf:owner/name@main", bits: 4 });
  for (const other of ["run", "run@4", "run@4bits", "@4bit", "4bit"])
    expect(splitWidth(other)).toBeUndefined();
});
