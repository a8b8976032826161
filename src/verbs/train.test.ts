import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { stringify } from "yaml";
import { refusal } from "../../test/refusal.ts";
import { bitsOf, tinyRecipe, writeTinyText } from "../../test/tiny-training.ts";
import { openModel } from "../files/index.ts";
import { evaluate } from "./evaluate.ts";
import { type TrainOptions, train } from "./train.ts";

let folder: string;
let text: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "lowbit-train-"));
  text = writeTinyText(folder);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const backend = "reference";
const run = (name: string, options: Partial<TrainOptions> = {}) =>
  train({ recipe: tinyRecipe(text, "float"), out: join(folder, name), backend, ...options });

test("a finished run is a model folder with tokenizer, recipe, log and record, and nothing else", async () => {
  const record = await run("whole");
  const out = join(folder, "whole");
  expect(
    readdirSync(out)
      .filter((name) => !name.startsWith("."))
      .sort(),
  ).toEqual([
    "README.md",
    "config.json",
    "generation_config.json",
    "log.jsonl",
    "model.safetensors",
    "recipe.yaml",
    "record.json",
    "report.html",
    "tokenizer.json",
    "tokenizer_config.json",
    "weights.jsonl",
  ]);
  expect(JSON.parse(readFileSync(join(out, "record.json"), "utf8"))).toEqual(
    JSON.parse(JSON.stringify(record)),
  );
  expect(record).toMatchObject({ verb: "train", seed: 3, steps: 12, tokens: 12 * 4 * 16 });
  expect(record.data.map(({ name }) => name)).toEqual(["a.txt", "b.txt", "c.txt", "held.txt"]);
  expect(JSON.stringify(record)).not.toContain(folder);

  const log = readFileSync(join(out, "log.jsonl"), "utf8")
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
  expect(log.map(({ step }) => step)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
  expect(log.filter((line) => "validationLoss" in line).map(({ step }) => step)).toEqual([4, 8]);
  expect(log[11].loss).toBeLessThan(log[0].loss - 0.5);
  expect(log[0].loss).toBeCloseTo(Math.log(280), 1); // a new model knows nothing

  const file = await openModel(out);
  expect(file.config).toMatchObject({ vocab_size: 280, bos_token_id: 0, max_position_embeddings: 16 });
  expect(file.source.format("model.layers.0.mlp.up_proj.weight")).toBe("f16");
  await file.close();
});

test("a family's packed model computes what was trained, up to float32", async () => {
  // Everything but the linear layers in full precision: what is left is the packing, which is exact.
  const recipe = { ...tinyRecipe(text, "trilm"), formats: { linear: "int2", other: "f32" } } as const;
  const { validation } = await run("packed", { recipe });
  expect(Math.abs(validation.loss - validation.trainedLoss)).toBeLessThan(1e-6);
  const file = await openModel(join(folder, "packed"));
  expect(file.source.format("model.layers.1.mlp.down_proj.weight")).toBe("int2");
  await file.close();
});

test("both families see the same batches from the same first weights", async () => {
  const steps = { steps: 1, checkpointEvery: 1 };
  const float = await run("first-float", { recipe: { ...tinyRecipe(text, "float"), ...steps } });
  const ternary = await run("first-ternary", { recipe: { ...tinyRecipe(text, "trilm"), ...steps } });
  const loss = (name: string) => JSON.parse(readFileSync(join(folder, name, "log.jsonl"), "utf8")).loss;
  expect(loss("first-ternary")).toBeCloseTo(loss("first-float"), 1);
  expect(loss("first-ternary")).not.toBe(loss("first-float"));
  expect(float.data).toEqual(ternary.data);
});

test("micro-batches change the sums' order, not the result", async () => {
  const whole = await run("micro-4", { set: ["microBatch=4"] });
  const parts = await run("micro-1", { set: ["microBatch=1"] });
  expect(parts.validation.trainedLoss).toBeCloseTo(whole.validation.trainedLoss, 4);
});

test("the model's loss is what evaluate measures on it", async () => {
  const { validation } = await run("measured");
  const held = readFileSync(join(text, "held.txt"), "utf8");
  const record = await evaluate({
    models: [join(folder, "measured")],
    text: { name: "held", text: held },
    backend,
  });
  const evaluated = record.models[0].text;
  // Training leaves out the rest of the text after its last whole window.
  expect(evaluated.tokens - validation.tokens).toBeLessThan(16);
  expect(evaluated.loss).toBeCloseTo(validation.loss, 1);
});

test("a folder that holds something else is refused and left alone", async () => {
  const out = join(folder, "someone's");
  mkdirSync(out);
  writeFileSync(join(out, "letter.txt"), "Dear all");
  expect(await refusal(run("someone's"))).toContain(
    "someone's: output folder exists and was not made by lowbit",
  );
  expect(readdirSync(out)).toEqual(["letter.txt"]);
});

test("a run is neither overwritten nor continued as another one", async () => {
  const controller = new AbortController();
  const stop = { signal: controller.signal, onProgress: () => controller.abort(new Error("stop")) };
  await expect(
    train({ recipe: tinyRecipe(text, "float"), out: join(folder, "begun"), backend }, stop),
  ).rejects.toThrow("stop");
  expect(await refusal(run("begun"))).toContain(
    "begun: holds a run that is not finished; continue it with --resume",
  );
  expect(await refusal(run("begun", { resume: true, set: ["seed=4"] }))).toContain(
    "begun with another recipe",
  );

  const changed = join(folder, "changed");
  mkdirSync(changed);
  const other = writeTinyText(changed);
  writeFileSync(join(other, "a.txt"), "Another text altogether. ".repeat(100));
  const recipe = { ...tinyRecipe(text, "float"), data: { ...tinyRecipe(text, "float").data, text: other } };
  expect(await refusal(run("begun", { resume: true, recipe }))).toContain("begun with another data");

  // The same contents elsewhere are the same run.
  writeFileSync(join(other, "a.txt"), readFileSync(join(text, "a.txt")));
  expect((await run("begun", { resume: true, recipe })).steps).toBe(12);
});

test("a run that cannot begin leaves nothing behind", async () => {
  for (const set of [["data.tokenizer.train=10"], ["data.heldOut={share: 1e-9}"], ["batch=4000"]]) {
    await refusal(run("impossible", { set }));
    expect(existsSync(join(folder, "impossible"))).toBe(false);
  }
});

test("two processes do not train in one folder", async () => {
  const controller = new AbortController();
  const stop = { signal: controller.signal, onProgress: () => controller.abort(new Error("stop")) };
  const out = join(folder, "shared");
  await expect(train({ recipe: tinyRecipe(text, "float"), out, backend }, stop)).rejects.toThrow("stop");
  const lock = join(out, "work", "process");
  expect(existsSync(lock)).toBe(false);
  writeFileSync(lock, String(process.ppid));
  expect(await refusal(run("shared", { resume: true }))).toBe(
    `shared: process ${process.ppid} trains in it; wait for it, stop it, or choose another folder`,
  );
  writeFileSync(lock, "4194999"); // more than a process can have: one that was killed
  expect((await run("shared", { resume: true })).steps).toBe(12);
});

test("a finished run gives its record when it is resumed, and is not overwritten", async () => {
  const first = await run("done");
  const bits = bitsOf(join(folder, "done"));
  expect(await refusal(run("done"))).toContain("done: holds a model already");
  expect(await run("done", { resume: true })).toEqual(JSON.parse(JSON.stringify(first)));
  expect(bitsOf(join(folder, "done"))).toEqual(bits);
  expect(await refusal(run("done", { resume: true, set: ["seed=4"] }))).toContain("another recipe");
});

test("a recipe's file: paths start from its folder, errors name it, nothing is written", async () => {
  const file = join(folder, "recipe.yaml");
  writeFileSync(file, stringify({ ...tinyRecipe("text", "float"), steps: 1 }));
  expect((await run("from-file", { recipe: file })).steps).toBe(1);
  writeFileSync(file, stringify({ ...tinyRecipe("text", "float"), layers: 1 }));
  expect(await refusal(run("never", { recipe: file }))).toMatch(
    /^recipe\.yaml: unknown key layers; did you mean /,
  );
  writeFileSync(file, "family: [");
  expect(await refusal(run("never", { recipe: file }))).toMatch(/^recipe\.yaml: needs YAML; /);
  expect(await refusal(run("never", { recipe: join(folder, "absent.yaml") }))).toContain(
    "absent.yaml: no such file",
  );
  expect(existsSync(join(folder, "never"))).toBe(false);
});

test("a tokenizer's file takes the place of a trained one", async () => {
  await run("trains-one", { set: ["steps=1"] });
  const file = join(folder, "trains-one", "tokenizer.json");
  const recipe = tinyRecipe(text, "float");
  const { data } = await run("reads-one", {
    recipe: { ...recipe, steps: 1, data: { ...recipe.data, tokenizer: { file } } },
  });
  expect(data.map(({ name }) => name)).toContain("tokenizer.json");
  const bits = (name: string) => bitsOf(join(folder, name));
  expect(bits("reads-one")).toEqual(bits("trains-one"));
});

test("texts that cannot be learned from are refused", async () => {
  const bad = join(folder, "bad");
  const using = (name: string, content: Uint8Array | string, change: object = {}) => {
    const path = join(bad, name);
    mkdirSync(path, { recursive: true });
    writeFileSync(join(path, "held.txt"), "The fox sees the hen. ".repeat(20));
    writeFileSync(join(path, "a.txt"), content);
    const recipe = tinyRecipe(path, "float");
    return refusal(run(`out-${name}`, { recipe: { ...recipe, data: { ...recipe.data, ...change } } }));
  };
  expect(await using("latin1", Uint8Array.of(0x47, 0x72, 0xfc, 0xdf, 0x65))).toBe(
    "a.txt: needs UTF-8 text, met bytes that are not between 0 and 5; convert it first",
  );
  expect(await using("empty", "")).toContain("leaves nothing to train on");
  expect(await using("short", "Too short.")).toContain(
    "makes 0 windows of model.context tokens, one batch needs 4",
  );
  expect(await using("heldout", "A text. ", { heldOut: ["b.txt"] })).toContain(
    "data.heldOut: b.txt is not among the 2 files",
  );
  expect(await using("nothing", "A text. ", { heldOut: ["a.txt", "held.txt"] })).toContain(
    "leave some to train on",
  );
  expect(await using("absent", "A text. ", { text: join(bad, "nowhere") })).toContain("does not exist");
});

test("a loss that is not a number stops the run and leaves the last checkpoint", async () => {
  const recipe = {
    ...tinyRecipe(text, "float"),
    schedule: { kind: "cosine", peak: 1e38, warmup: 0 },
  } as const;
  await expect(run("diverged", { recipe })).rejects.toThrow(
    /^train: step \d+: the loss is \S+ \(.+\); lower the learning rate/,
  );
  expect(existsSync(join(folder, "diverged", "record.json"))).toBe(false);
});

test("a full disk is one line, removes what was half written, and the run goes on when there is room", async () => {
  const { out, ...options } = {
    recipe: tinyRecipe(text, "float"),
    out: join(folder, "full"),
    backend,
  } as const;
  for (const point of ["checkpoint written", "log half written"]) {
    const full = (met: string) => {
      if (met === point) throw Object.assign(new Error("no space left on device"), { code: "ENOSPC" });
    };
    expect(await refusal(train({ ...options, out, resume: true }, {}, full))).toMatch(
      /^(checkpoint-00000003\.safetensors|log\.jsonl): the disk is full; nothing was changed; make room/,
    );
    expect(readdirSync(join(out, "work")).filter((name) => name.endsWith(".tmp"))).toEqual([]);
  }
  expect((await train({ ...options, out, resume: true })).steps).toBe(12);
});
