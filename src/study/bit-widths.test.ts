import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openModel, writeModel } from "../files/index.ts";
import { encodeWeight, formatByName } from "../formats/index.ts";
import { configJson, describe } from "../models/index.ts";
import { initialize } from "../models/initialize.ts";
import type { Progress } from "../record/record.ts";
import { generator } from "../tensor/random.ts";
import { trainByteLevelBpe } from "../tokenizers/bpe-trainer.ts";
import { evaluate } from "../verbs/evaluate.ts";
import { inspect } from "../verbs/inspect.ts";
import { type BitWidthsOptions, bitWidths } from "./bit-widths.ts";

const prose = "The fox went over the hill and saw the sea; the sea saw the fox and said nothing. ".repeat(60);
const sampled = "Nothing was said by the sea, and over the hill the fox went home again to sleep. ".repeat(
  60,
);
const named = (name: string, text: string) => ({ name, bytes: new TextEncoder().encode(text) });
const text = named("prose.txt", prose);
const calibration = named("sampled.txt", sampled);

const model = describe({
  vocab_size: 270,
  max_position_embeddings: 256,
  hidden_size: 128,
  num_hidden_layers: 1,
  num_attention_heads: 4,
  intermediate_size: 256,
  tie_word_embeddings: false,
});

let folder: string;
const at = (name: string) => join(folder, name);

/** A model of random weights in a format; `trained` in the comparison has the same tokenizer. */
async function write(name: string, format: string): Promise<void> {
  const { tokenizer, config } = await trainByteLevelBpe([prose], 270);
  const json = (name: string, value: object) => ({
    name,
    bytes: new TextEncoder().encode(JSON.stringify(value)),
  });
  const weights = [...initialize(model, generator(1), 0.05)].map(([name, { shape, data }]) => {
    const role = model.tensors.find((spec) => spec.name === name)!.role;
    const stored = formatByName(role === "linear" ? format : role === "norm" ? "f32" : "f16");
    return [name, encodeWeight(stored, shape, data as Float32Array)] as const;
  });
  await writeModel(at(name), { config: configJson(model.config) }, weights, {
    tokenizerFiles: [json("tokenizer.json", tokenizer), json("tokenizer_config.json", config)],
  });
}

const run = (options: Partial<BitWidthsOptions> = {}, job = {}) =>
  bitWidths({ float: at("float"), backend: "wasm", threads: 1, calibration, text, ...options }, job);

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "lowbit-bit-widths-"));
  await write("float", "f16");
  await write("small", "int4-g128");
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test("compares 8, 6, 4, 3 and 2 bits by both methods, and a trained model, with the float one", async () => {
  const events: Progress[] = [];
  const trained = [{ name: "trained", family: "ternary" as const, model: at("small") }];
  const record = await run({ trained }, { onProgress: (event: Progress) => events.push(event) });
  const { candidates } = record;
  expect(candidates.map(({ name }) => name)).toEqual([
    "float f16",
    ...["int8", "int6", "int4-g128", "int3-g128", "int2-offset-g64"].flatMap((f) => [
      `rtn ${f}`,
      `gptq ${f}`,
    ]),
    "trained",
  ]);

  const [float, ...others] = candidates;
  expect(float).toMatchObject({ reference: true, bitsPerWeight: { linear: 16 } });
  const bits = (name: string) => candidates.find((c) => c.name === name)!.bitsPerWeight.linear;
  expect(bits("gptq int4-g128")).toBe(4.125);
  expect(bits("gptq int2-offset-g64")).toBe(2.5);
  for (const c of others) {
    expect(c.bytes, c.name).toBeLessThan(float.bytes);
    expect(c.difference!.mean, c.name).toBeCloseTo(c.loss.mean - float.loss.mean, 10);
    expect(c.divergence!.klMean, c.name).toBeGreaterThan(0);
    expect(c.tokensPerSecond, c.name).toBeGreaterThan(0);
  }
  const divergences = ["int8", "int6", "int4-g128", "int3-g128", "int2-offset-g64"].map(
    (format) => candidates.find(({ name }) => name === `rtn ${format}`)!.divergence!.klMean,
  );
  expect(divergences).toEqual(divergences.toSorted((a, b) => a - b));
  for (const c of others.slice(0, -1)) {
    expect(c.layers, c.name).toHaveLength(7);
    expect(c.seconds, c.name).toBeGreaterThan(0);
  }

  expect(record).toMatchObject({ record: "lowbit", verb: "bit-widths", environment: { backend: "wasm" } });
  expect(record.data.map(({ name }) => name)).toEqual(["prose.txt", "sampled.txt"]);
  expect(record.models).toHaveLength(2);
  expect(JSON.stringify(record)).not.toContain(folder);
  expect(record.protocol).toMatch(
    /^Measured on prose\.txt: [\d,]+ tokens in \d+ windows of 256 .*; calibrated on sampled\.txt\.$/,
  );

  expect(events.every((event) => event.task !== "compare" || event.done < event.total)).toBe(true);
  expect(events.filter(({ task }) => task === "compare").map(({ note }) => note)).toEqual(
    others.map((c) => c.name),
  );

  // The same numbers as the verbs give for the same files.
  const seen = await inspect({ model: at("small") });
  const last = others.at(-1)!;
  expect(last.bitsPerWeight).toEqual(seen.bitsPerWeight);
  const { models } = await evaluate({
    models: [at("small")],
    reference: at("float"),
    text: { name: "prose", text: prose },
    context: 256,
    backend: "wasm",
    threads: 1,
  });
  expect(models[0].text.loss).toBe(last.loss.mean);
  expect(models[0].divergence!.klMean).toBe(last.divergence!.klMean);
  expect(models[0].difference!.high).toBe(last.difference!.high);
});

test("a text is not calibrated with and measured on", async () => {
  const same = { ...calibration, bytes: text.bytes };
  await expect(run({ calibration: same })).rejects.toThrow(
    "bit-widths: prose.txt is the calibration text too; measure on a text that no model has seen",
  );
});

test("an aborted signal ends it with the signal's reason", async () => {
  const controller = new AbortController();
  const reason = new Error("enough");
  const onProgress = ({ task, note }: Progress) => {
    if (task === "compare" && note === "gptq int8") controller.abort(reason);
  };
  await expect(run({}, { signal: controller.signal, onProgress })).rejects.toBe(reason);
  expect(readdirSync(folder).sort()).toEqual(["float", "small"]);
  const file = await openModel(at("float"));
  await file.close();
});
