import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { BLOCKS_KEY, openModel } from "../files/index.ts";
import { decodeWeight } from "../formats/index.ts";
import { bytesOf } from "../tensor/weight.ts";
import { compress } from "./compress.ts";
import { convert } from "./convert.ts";
import { evaluate } from "./evaluate.ts";
import { generate } from "./generate.ts";
import { inspect } from "./inspect.ts";
import { model, text, writeTinyModel } from "./tiny-model.suite.ts";

let folder: string;
let source: string;
let stack: string;
let least: number;
let all: number;

/** Names in the order in which their blocks are read. */
function order(path = stack): string[] {
  return JSON.parse(readFileSync(join(path, "config.json"), "utf8"))[BLOCKS_KEY];
}

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "lowbit-stacks-"));
  source = join(folder, "source");
  stack = join(folder, "stack");
  await writeTinyModel(source);
  const calibration = { name: "tale.txt", text };
  const options = { blocks: 4, rank: 1 };
  await compress({
    model: source,
    output: stack,
    method: "bitstack",
    options,
    calibration,
    samples: 2,
    backend: "reference",
  });
  const file = await openModel(stack);
  all = 0;
  least = 0;
  const isStacked = new Set(order());
  for (const name of file.source.names) {
    const weight = await file.source.read(name);
    const { expression: e } = weight;
    all += bytesOf(weight);
    least += isStacked.has(name) && e.kind === "sum" ? bytesOf(e.terms[0]) : bytesOf(weight);
  }
  await file.close();
});
afterAll(() => rmSync(folder, { recursive: true }));

/** Bytes of weights, read and counted, and the error of the matrices. */
async function opened(spec: string) {
  const [file, whole] = [await openModel(spec), await openModel(source)];
  let bytes = 0;
  let error = 0;
  for (const { name } of model.tensors) {
    const weight = await file.source.read(name);
    bytes += bytesOf(weight);
    expect(file.source.bytes(name)).toBe(bytesOf(weight));
    const W = decodeWeight(await whole.source.read(name)).data;
    const Ŵ = decodeWeight(weight).data;
    error += W.reduce((sum, w, i) => sum + (w - Ŵ[i]) ** 2, 0);
  }
  expect(file.bytes).toBe(bytes);
  expect(new Set(file.source.names)).toEqual(new Set(model.tensors.map(({ name }) => name)));
  const { sha256 } = await file.fingerprint();
  await file.close();
  await whole.close();
  return { bytes, error, sha256 };
}

it("any budget opens with at most so many bytes, more of them with less error, as the order of the blocks says", async () => {
  const matrices = model.tensors.filter(({ role }) => role === "linear").length;
  expect(order()).toHaveLength(4 * matrices);
  expect(new Set(order().slice(0, matrices)).size).toBe(matrices);
  let before = { bytes: 0, error: Number.POSITIVE_INFINITY, sha256: "" };
  for (let budget = least; budget < all + 3000; budget += 997) {
    const now = await opened(`${stack}@${budget}B`);
    expect(now.bytes).toBeLessThanOrEqual(budget);
    if (now.bytes === before.bytes) expect(now).toEqual(before);
    else {
      expect(now.bytes).toBeGreaterThan(before.bytes);
      expect(now.error).toBeLessThan(before.error);
      expect(now.sha256).not.toBe(before.sha256);
    }
    before = now;
  }
  expect(before.bytes).toBe(all);
  expect((await opened(`${stack}@${least}B`)).bytes).toBe(least);
  expect((await opened(`${stack}@1GiB`)).bytes).toBe(all);
});

it("a budget below the first blocks is refused with the least that works, and so is one of a model without blocks", async () => {
  await expect(openModel(`${stack}@${least - 1}B`)).rejects.toThrow(
    `stack@${least - 1}B: needs at least ${least} bytes for the first block of every matrix`,
  );
  await expect(openModel(`${stack}@0.001MB`)).rejects.toThrow(`give @${least}B or more`);
  await expect(openModel(`${source}@1MB`)).rejects.toThrow("source@1MB: the model is not a stack of blocks");
});

it("every verb takes a budget, and divergence falls as it grows", async () => {
  const specs = [least, Math.floor((least + all) / 2), all].map((bytes) => `${stack}@${bytes}B`);
  const { models } = await evaluate({
    models: specs,
    reference: source,
    text: { name: "tale.txt", text: text.slice(0, 400) },
    backend: "reference",
  });
  const divergences = models.map(({ divergence }) => divergence!.klMean);
  expect(divergences[1]).toBeLessThan(divergences[0]);
  expect(divergences[2]).toBeLessThan(divergences[1]);
  expect((await inspect({ model: specs[0] })).container).toBe(
    `safetensors, ${order().length / 4} of ${order().length} blocks`,
  );
  const { tokens } = await generate({
    model: specs[1],
    prompt: "It was",
    tokens: 2,
    seed: 1,
    backend: "reference",
  });
  expect(tokens).toBeGreaterThan(0);
  const output = join(folder, "half");
  await convert({ model: specs[1], output });
  const [half, written] = [await openModel(specs[1]), await openModel(output)];
  expect(written.config[BLOCKS_KEY]).toBeUndefined();
  const { name } = model.tensors[1];
  expect(decodeWeight(await written.source.read(name)).data).toEqual(
    decodeWeight(await half.source.read(name)).data,
  );
  for (const file of [half, written]) await file.close();
});

it("blocks may be ordered by the loss with each, which needs text", async () => {
  const output = join(folder, "by-loss");
  const by = { model: source, output, method: "bitstack", options: { blocks: 2, rank: 1, order: "loss" } };
  await expect(compress({ ...by, backend: "reference" })).rejects.toThrow("bitstack: needs calibration text");
  const calibration = { name: "tale.txt", text };
  await compress({ ...by, calibration, samples: 1, context: 8, backend: "reference" });
  const names = order(output);
  const matrices = names.slice(0, names.length / 2);
  expect(new Set(matrices).size).toBe(matrices.length);
  expect([...names.slice(matrices.length)].sort()).toEqual([...matrices].sort());
  expect(names.slice(matrices.length)).not.toEqual(matrices);
});

it("a damaged order of blocks is refused by name", async () => {
  const damaged = join(folder, "damaged");
  cpSync(stack, damaged, { recursive: true });
  const config = JSON.parse(readFileSync(join(stack, "config.json"), "utf8"));
  const withOrder = (blocks: unknown) =>
    writeFileSync(join(damaged, "config.json"), JSON.stringify({ ...config, [BLOCKS_KEY]: blocks }));
  withOrder([1, 2]);
  await expect(openModel(`${damaged}@1MB`)).rejects.toThrow(
    `config.json: ${BLOCKS_KEY} needs a list of names`,
  );
  withOrder(order().slice(1));
  await expect(openModel(`${damaged}@1MB`)).rejects.toThrow("it is not a sum of as many terms");
  withOrder([...order(), "model.norm.weight"]);
  await expect(openModel(`${damaged}@1MB`)).rejects.toThrow(`${BLOCKS_KEY} names model.norm.weight 1 times`);
});
