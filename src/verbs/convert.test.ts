import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { shared } from "../../test/shared.ts";
import type { Backend } from "../backends/backend.ts";
import { openBackend } from "../backends/index.ts";
import { openModel, writeModel } from "../files/index.ts";
import { encodeWeight, formatByName } from "../formats/index.ts";
import { configJson } from "../models/index.ts";
import { initialize } from "../models/initialize.ts";
import type { Role } from "../models/model.ts";
import { hiddenStates, logits } from "../models/run.ts";
import { generator } from "../tensor/random.ts";
import { InputError } from "../tensor/tensor.ts";
import type { Weight } from "../tensor/weight.ts";
import { trainByteLevelBpe } from "../tokenizers/bpe-trainer.ts";
import { type ConvertOptions, convert } from "./convert.ts";
import { inspect } from "./inspect.ts";
import { load } from "./load.ts";
import { model, text } from "./tiny-model.suite.ts";

const ids = Int32Array.of(3, 77, 14, 159, 26, 53, 58, 97, 93, 238);

let folder: string;
let source: string;
let backend: Backend;
const at = (name: string) => join(folder, name);

/** A Hugging Face folder of random weights, in formats by role. */
async function write(path: string, formats: Partial<Record<Role, string>> = {}): Promise<void> {
  const roles = new Map(model.tensors.map(({ name, role }) => [name, role]));
  const weights: [string, Weight][] = [];
  for (const [name, { shape, data }] of initialize(model, generator(1), 0.05)) {
    const format = formatByName(formats[roles.get(name)!] ?? "f32");
    weights.push([name, encodeWeight(format, shape, data as Float32Array)]);
  }
  const { tokenizer, config } = await trainByteLevelBpe([text], 260);
  const json = (name: string, value: object) => ({
    name,
    bytes: new TextEncoder().encode(JSON.stringify(value)),
  });
  await writeModel(path, { config: configJson(model.config) }, weights, {
    tokenizerFiles: [json("tokenizer.json", tokenizer), json("tokenizer_config.json", config)],
  });
}

/** Logits of every position, computed in 64 bits. */
async function scores(path: string, tokenizer?: string): Promise<Float32Array> {
  const loaded = await load(path, backend, { tokenizer });
  const hidden = hiddenStates(loaded, ids);
  const result = (await backend.read(logits(loaded, hidden))) as Float32Array;
  await loaded.free();
  return result;
}

beforeAll(async () => {
  backend = await openBackend({ backend: "reference" });
});
afterAll(() => backend.dispose());
beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "lowbit-convert-"));
  source = at("source");
});
afterEach(() => rmSync(folder, { recursive: true }));

const run = (options: Partial<ConvertOptions>) =>
  convert({ model: source, output: at("out.gguf"), ...options });

describe("a Hugging Face folder as GGUF and back", () => {
  test("floats: the same logits, bit for bit, and the same folder again", async () => {
    await write(source);
    const record = await run({});
    expect(record).toMatchObject({
      verb: "convert",
      lossless: true,
      container: { from: "safetensors", to: "GGUF version 3" },
      files: ["out.gguf"],
    });
    expect(record.bytes.after).toBe(readFileSync(at("out.gguf")).byteLength);
    expect(await scores(at("out.gguf"))).toEqual(await scores(source));

    await run({ model: at("out.gguf"), output: at("back") });
    const [before, after] = [await openModel(source), await openModel(at("back"))];
    expect(after.config).toMatchObject(before.config);
    expect(after.config).not.toHaveProperty("rope_pairing");
    for (const name of before.source.names)
      expect(await after.source.read(name)).toEqual(await before.source.read(name));
    const said = "the age of it ";
    const [a, b] = await Promise.all([load(source, backend), load(at("back"), backend)]);
    expect([...b.tokenizer.encode(said)]).toEqual([...a.tokenizer.encode(said)]);
    expect([b.tokenizer.bos, b.tokenizer.eos]).toEqual([a.tokenizer.bos, a.tokenizer.eos]);
    await Promise.all([a.free(), b.free(), before.close(), after.close()]);
  });

  for (const [linear, others, type] of [
    ["int8-g32", "f16", "q8_0"],
    ["int4-g32", "bf16", "q4_0"],
    ["int4-offset-g32", "f16", "q4_1"],
    ["int3", "int6", "q4_0"],
    ["q4_0", "q8_0", "q4_0"],
  ]) {
    test(`${linear} becomes ${type} without loss`, async () => {
      await write(source, { linear, embedding: others, head: others });
      const record = await run({});
      expect(record.lossless).toBe(true);
      const q = record.tensors.find(({ name }) => name === "model.layers.1.self_attn.q_proj.weight");
      expect(q).toMatchObject({ from: linear, to: type, lossless: true });
      expect(await scores(at("out.gguf"))).toEqual(await scores(source));
    });
  }

  test("what ggml has not becomes f16, and the record says what was lost", async () => {
    await write(source, { linear: "int8-offset-g32" });
    const record = await run({});
    expect(record.lossless).toBe(false);
    const lossy = record.tensors.filter(({ lossless }) => !lossless);
    expect(lossy).toHaveLength(14);
    expect(lossy[0]).toMatchObject({
      from: "int8-offset-g32",
      to: "f16",
      note: "ggml has no int8-offset-g32",
    });
    const file = await openModel(at("out.gguf"));
    expect(file.record).toMatchObject({ record: "lowbit", verb: "convert", tensors: record.tensors });
    await file.close();

    const exact = await run({ type: "f32", force: true });
    expect(exact.lossless).toBe(true);
    expect(await scores(at("out.gguf"))).toEqual(await scores(source));
  });

  test("a type for the whole model, and the sizes of a header that inspect reads", async () => {
    await write(source);
    const record = await run({ type: "q4_k" });
    const seen = await inspect({ model: at("out.gguf") });
    const formats = new Map(seen.tensors.map(({ name, format }) => [name, format]));
    expect(formats.get("model.layers.0.mlp.down_proj.weight")).toBe("q5_0"); // rows of 96
    expect(formats.get("lm_head.weight")).toBe("q8_0");
    expect(formats.get("model.norm.weight")).toBe("f32");
    expect(record.tensors.find(({ name }) => name.includes("down_proj"))?.note).toBe(
      "rows of 96 are not whole blocks of q4_k",
    );
    const [exact, rounded] = [await scores(source), await scores(at("out.gguf"))];
    const square = (x: Float32Array) => x.reduce((sum, value) => sum + value * value, 0);
    expect(square(rounded.map((x, i) => x - exact[i])) / square(exact)).toBeLessThan(0.1 ** 2);
  });

  test("folders in another plain type", async () => {
    await write(source);
    const record = await run({ output: at("half"), type: "bf16" });
    expect(record.tensors.find(({ name }) => name === "lm_head.weight")).toMatchObject({
      to: "bf16",
      lossless: false,
    });
    expect(record.tensors.find(({ name }) => name === "model.norm.weight")).toMatchObject({
      to: "f32",
      lossless: true,
    });
    await expect(run({ output: at("quarter"), type: "q4_0" })).rejects.toThrow(
      /for fewer bits use lowbit compress/,
    );
  });
});

describe("what cannot be done is said, and nothing is left behind", () => {
  const names = () => readdirSync(folder).sort();

  test("a file is replaced only when asked to be", async () => {
    await write(source);
    writeFileSync(at("out.gguf"), "mine");
    await expect(run({})).rejects.toThrow(
      "out.gguf: is there already; choose another name, or replace it with --force",
    );
    expect(readFileSync(at("out.gguf"), "utf8")).toBe("mine");
    await run({ force: true });
    expect((await inspect({ model: at("out.gguf") })).architecture).toBe("llama");
    await expect(run({ output: folder, to: "gguf" })).rejects.toThrow(/output needs a file, met a folder/);
    expect(names()).toEqual(["out.gguf", "source"]);
  });

  test("stopped on the way", async () => {
    await write(source);
    const controller = new AbortController();
    const stopped = convert(
      { model: source, output: at("out.gguf") },
      {
        signal: controller.signal,
        onProgress: ({ done }) => done === 5 && controller.abort(new Error("enough")),
      },
    );
    await expect(stopped).rejects.toThrow("enough");
    expect(names()).toEqual(["source"]);
  });

  test("weights that fp16 cannot hold", async () => {
    const weights: [string, Weight][] = [];
    for (const [name, { shape, data }] of initialize(model, generator(1), 0.05)) {
      if (name === "lm_head.weight") (data as Float32Array)[7] = 70000;
      weights.push([name, encodeWeight(formatByName("f32"), shape, data as Float32Array)]);
    }
    await writeModel(source, { config: configJson(model.config) }, weights);
    await expect(run({ type: "f16" })).rejects.toThrow(
      /^source: tensor lm_head\.weight: f16: weights must be finite .* got 70000/,
    );
    await expect(run({ type: "f16" })).rejects.toBeInstanceOf(InputError);
    expect(names()).toEqual(["source"]);
    const warnings: string[] = [];
    await convert({ model: source, output: at("out.gguf") }, { onWarning: (line) => warnings.push(line) });
    expect(warnings).toEqual([
      expect.stringMatching(/^source: comes without a tokenizer, and so will the GGUF file/),
    ]);
  });

  test("a model that llama2.c cannot describe, a tokenizer that it cannot hold", async () => {
    await write(source);
    await expect(run({ output: at("out.bin"), type: "q8_0" })).rejects.toThrow(
      /llama2\.c checkpoints are written in f32/,
    );
    const warnings: string[] = [];
    const record = await convert(
      { model: source, output: at("out.bin") },
      { onWarning: (line) => warnings.push(line) },
    );
    expect(record.files).toEqual(["out.bin"]);
    expect(warnings).toEqual([
      expect.stringMatching(/^source: .*; the checkpoint has no tokenizer beside it$/),
    ]);
    const config = JSON.parse(readFileSync(join(source, "config.json"), "utf8"));
    const changed = (change: object) =>
      writeFileSync(join(source, "config.json"), JSON.stringify({ ...config, ...change }));
    changed({ rms_norm_eps: 1e-6 });
    await expect(run({ output: at("eps.bin") })).rejects.toThrow(
      /its norms have ε 0\.000001, run\.c has 0\.00001/,
    );
    changed({ rope_theta: 500000 });
    await expect(run({ output: at("base.bin") })).rejects.toThrow(
      /its rotary base is 500000, run\.c has 10000/,
    );
    expect(names()).toEqual(["out.bin", "source"]);
  });
});

const stories = shared("stories260k/stories260K.bin");
const vocabulary = shared("stories260k/tok512.bin");
describe.skipIf(!existsSync(stories))("stories260K", () => {
  test("llama2.c → GGUF → folder → GGUF → llama2.c: weights and tokenizer byte for byte, logits bit for bit", async () => {
    await convert({ model: stories, tokenizer: vocabulary, output: at("1.gguf") });
    await convert({ model: at("1.gguf"), output: at("2") });
    await convert({ model: at("2"), output: at("3.gguf") });
    const record = await convert({ model: at("3.gguf"), output: at("4.bin") });
    expect(record).toMatchObject({ lossless: true, files: ["4.bin", "4.tokenizer.bin"] });
    // 28 bytes of header and 260,032 weights; behind them cosines and sines that no reader uses.
    const weights = (path: string) => readFileSync(path).subarray(0, 28 + 4 * 260_032);
    expect(weights(at("4.bin")).equals(weights(stories))).toBe(true);
    expect(readFileSync(at("4.bin")).byteLength).toBe(readFileSync(stories).byteLength);
    expect(readFileSync(at("4.tokenizer.bin")).equals(readFileSync(vocabulary))).toBe(true);
    const exact = await scores(stories, vocabulary);
    for (const name of ["1.gguf", "2", "3.gguf"]) expect(await scores(at(name))).toEqual(exact);
    expect(readdirSync(at("2"))).toContain("tokenizer.model");
  });
});

for (const name of ["float", "trilm"]) {
  test(`bundled:${name} as GGUF gives the same logits, its ternary layers in place`, async () => {
    const record = await convert({ model: `bundled:${name}`, output: at("b.gguf") });
    expect(record.lossless).toBe(true);
    const up = record.tensors.find((tensor) => tensor.name === "model.layers.0.mlp.up_proj.weight");
    expect(up?.to).toBe(name === "float" ? "f16" : "tq2_0");
    expect(await scores(at("b.gguf"))).toEqual(await scores(`bundled:${name}`));
  });
}
