import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { openModel } from "../files/index.ts";
import { decodeWeight } from "../formats/index.ts";
import { llama } from "../models/llama.ts";
import { InputError } from "../tensor/tensor.ts";
import { type CompressOptions, compress } from "./compress.ts";
import { inspect } from "./inspect.ts";
import { model, text, writeTinyModel } from "./tiny-model.suite.ts";

const calibration = { name: "tale.txt", text };

let folder: string;
let source: string;
const out = () => join(folder, "out");

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "lowbit-compress-"));
  source = join(folder, "source");
  await writeTinyModel(source);
});
afterEach(() => rmSync(folder, { recursive: true }));

function run(options: Partial<CompressOptions>) {
  return compress({ model: source, output: out(), backend: "reference", samples: 4, ...options });
}

async function failure(options: Partial<CompressOptions>): Promise<string> {
  const error = await run(options).then(
    () => undefined,
    (e: unknown) => e,
  );
  expect(error).toBeInstanceOf(InputError);
  expect(readdirSync(folder).filter((name) => name !== "source" && !name.endsWith(".yaml"))).toEqual([]);
  return (error as Error).message;
}

async function hash(path: string) {
  const file = await openModel(path);
  const fingerprint = await file.fingerprint();
  await file.close();
  return fingerprint;
}

describe("compress", () => {
  it("writes a model whose bytes, bits and layers are what its record says", async () => {
    const record = await run({ method: "rtn", format: "int4-g32" });
    const seen = await inspect({ model: out() });
    expect(seen.bitsPerWeight).toEqual(record.bitsPerWeight);
    expect(record.bitsPerWeight.linear).toBe(4.5);
    expect(seen.bytes).toBe(record.bytes.after);
    expect(record.bytes.before).toBeGreaterThan(record.bytes.after);
    expect(record.layers.map(({ name }) => name)).toEqual(
      model.tensors.filter(({ role }) => role === "linear").map(({ name }) => name),
    );
    for (const layer of record.layers) {
      expect(layer).toMatchObject({ method: "rtn", format: "int4-g32", bits: 4.5, errorOf: "weights" });
      expect(layer.relativeError).toBeGreaterThan(0.001);
      expect(layer.relativeError).toBeLessThan(0.02);
    }
    const formats = new Map(seen.tensors.map(({ name, format }) => [name, format]));
    expect(formats.get("lm_head.weight")).toBe("f16");
    expect(formats.get("model.norm.weight")).toBe("f32");
    expect(existsSync(join(out(), "tokenizer.json"))).toBe(true);
    expect(existsSync(join(out(), "record.json"))).toBe(true);
  });

  it("gptq leaves less output error than rtn in every layer's sum, and gives the same bytes again", async () => {
    const sum = async (options: Partial<CompressOptions>) => {
      const { layers, calibrationTokens } = await run({ format: "int3-g32", calibration, ...options });
      expect(calibrationTokens).toBe(4 * 32);
      expect(layers.every(({ errorOf }) => errorOf === "output")).toBe(true);
      return layers.reduce((total, { relativeError }) => total + relativeError, 0);
    };
    const rtn = await sum({ method: "rtn" });
    expect(await sum({ method: "gptq" })).toBeLessThan(0.5 * rtn);
    const first = await hash(out());
    rmSync(out(), { recursive: true });
    await sum({ method: "gptq" });
    expect(await hash(out())).toEqual(first);
    rmSync(out(), { recursive: true });
    expect(await sum({ method: "gptq", trueSequential: true, actOrder: true, clip: true })).toBeLessThan(
      0.5 * rtn,
    );
  });

  it("quantizes embedding and head when it is told to", async () => {
    const { layers } = await run({ format: "int4", others: "int8" });
    expect(
      layers
        .filter(({ format }) => format === "int8")
        .map(({ name }) => name)
        .sort(),
    ).toEqual(["lm_head.weight", "model.embed_tokens.weight"]);
  });

  it("keeps a model that is ternary already, weight by weight", async () => {
    await writeTinyModel(join(folder, "ternary"), (name, data) => {
      if (!name.includes("proj")) return;
      for (let i = 0; i < data.length; i++)
        data[i] = 0.03125 * Math.sign(Math.abs(data[i]) > 0.02 ? data[i] : 0);
    });
    const record = await run({ model: join(folder, "ternary"), method: "trilm", format: "int2" });
    expect(record.layers.every(({ relativeError }) => relativeError === 0)).toBe(true);
    const before = await openModel(join(folder, "ternary"));
    const after = await openModel(out());
    for (const { name } of record.layers) {
      const [a, b] = [
        decodeWeight(await before.source.read(name)),
        decodeWeight(await after.source.read(name)),
      ];
      expect(b.data.map((w) => w + 0)).toEqual(a.data.map((w) => w + 0));
    }
    await before.close();
    await after.close();
  });

  it("--bits takes the largest groups that fit, --size the most bits that fit", async () => {
    expect((await run({ bits: 3 })).format).toBe("int3-g32"); // rows of 64 and 96
    const { bytes } = await run({ bits: 3 });
    expect((await run({ size: bytes.after })).format).toBe("int3-g32");
    expect((await run({ size: bytes.after - 1 })).format).toBe("int2-g32");
    rmSync(out(), { recursive: true });
    expect(await failure({ size: 1000 })).toContain("too small; int2-g32 takes");
    expect(await failure({ bits: 5 })).toBe("compress: --bits must be one of 8, 6, 4, 3, 2, got 5");
  });

  it("a method of parts takes the format among its own options", async () => {
    expect(await failure({ method: "reallm", format: "int4" })).toContain("reallm: unknown key format");
    const one = await run({ method: "lorc", format: "int4-g32", clip: true, options: { rank: 1 } });
    for (const { format } of one.layers) expect(format).toBe("sum(int4-g32, lowRank(f16, f16))");
  });

  it("a mix gives each matrix one of several ways within its bits, by Fisher weights where there is text", async () => {
    const mixed = await run({ method: "rtn", mix: { bits: 3.5 }, calibration });
    expect(mixed.method).toBe("rtn");
    expect(mixed.bitsPerWeight.linear).toBeLessThanOrEqual(3.5);
    expect(mixed.bitsPerWeight.linear).toBeGreaterThan(3);
    expect(new Set(mixed.layers.map(({ format }) => format)).size).toBeGreaterThan(1);
    expect((await inspect({ model: out() })).bitsPerWeight).toEqual(mixed.bitsPerWeight);
    const of = [{ format: "int3" }, { method: "reallm", options: { bits: 2, rank: 1 } }];
    const several = await run({ mix: { bits: 4, of, weighting: "none" }, calibration });
    expect(several.method).toBe("mix");
    rmSync(out(), { recursive: true });
    expect(await failure({ method: "rtn", mix: { bits: 1 } })).toMatch(/mix: .* the smallest takes 2\.\d+$/);
    expect(await failure({ format: "int4", mix: { bits: 4 } })).toContain("needs one of --format, --bits");
    expect(await failure({ mix: { bits: 4, of: [] } })).toContain("mix.of");
  });

  it("reads a recipe, and names an unknown key with the nearest known one", async () => {
    const recipe = join(folder, "r.yaml");
    writeFileSync(recipe, "method: gptq\nformat: int4\ngroup: 32\ndamping: 0.02\nsamples: 2\n");
    const record = await compress({
      model: source,
      output: out(),
      backend: "reference",
      recipe,
      calibration,
    });
    expect(record.format).toBe("int4-g32");
    expect(record.options).toMatchObject({ recipe: "r.yaml", methodOptions: { damping: 0.02 } });
    expect(record.data.map(({ name }) => name)).toEqual(["r.yaml", "tale.txt"]);
    rmSync(out(), { recursive: true });
    writeFileSync(recipe, "methd: gptq\n");
    expect(await failure({ recipe, samples: undefined })).toBe(
      "r.yaml: unknown key methd; did you mean method?",
    );
    expect(await failure({ recipe, format: "int4" })).toContain("leave out");
  });
});

describe("bad input", () => {
  it.each([
    [{ format: "int4-g128" }, "int4-g128: rows must be whole groups of 128 weights, got rows of 64"],
    [{ format: "int4", group: 48 }, "did you mean int4-g"],
    [{ format: "int4-g32", group: 32 }, "names its group already"],
    [{ format: "int5" }, "did you mean int"],
    [{ method: "gtpq", format: "int4" }, "did you mean gptq?"],
    [{ method: "gptq", format: "int4" }, "gptq: needs calibration text"],
    [{ method: "gptq", format: "f16", calibration }, "gptq: needs a format of codes and scales, got f16"],
    [{ method: "rtn", format: "int4", damping: 0.1 }, "damping is an option of gptq, not of rtn"],
    [{ method: "rtn", format: "int4", samples: 0.5 }, "compress: samples: "],
    [{ format: "int4", fromat: 1 } as object, "compress: unknown key fromat; did you mean format?"],
    [{ method: "rtn" }, "needs one of --format, --bits and --size"],
    [{ format: "int4", bits: 4 }, "needs one of --format, --bits and --size"],
    [{ format: "int4", calibration, context: 64 }, "a context of 64 is more than the model's 32"],
    [{ format: "int4", calibration: { name: "empty.txt", text: " " } }, "empty.txt"],
  ] as [Partial<CompressOptions>, string][])("%o", async (options, message) => {
    expect(await failure(options)).toContain(message);
  });

  it.each([Number.NaN, Infinity])("names the tensor that holds %f", async (value) => {
    const bad = join(folder, "source", "..", "source");
    await writeTinyModel(bad, (name, data) => {
      if (name === "model.layers.1.mlp.up_proj.weight") data[5] = value;
    });
    const message = await failure({ model: bad, format: "int4" });
    expect(message).toContain("model.layers.1.mlp.up_proj.weight");
  });

  it("names the tensor whose scale does not fit into fp16", async () => {
    await writeTinyModel(source, (name, data) => {
      if (name === "model.layers.0.mlp.up_proj.weight") data[5] = 1e9;
    });
    expect(await failure({ format: "int4" })).toContain(
      "source: model.layers.0.mlp.up_proj.weight: int4: weights must be",
    );
  });

  it("leaves an output folder alone that lowbit did not make", async () => {
    const theirs = join(folder, "source", "model.safetensors");
    expect(existsSync(theirs)).toBe(true);
    const foreign = mkdtempSync(join(tmpdir(), "lowbit-foreign-"));
    writeFileSync(join(foreign, "notes.txt"), "mine");
    await expect(run({ format: "int4", output: foreign })).rejects.toThrow("was not made by lowbit");
    expect(readdirSync(foreign)).toEqual(["notes.txt"]);
    rmSync(foreign, { recursive: true });
  });

  it("stops when it is told to, leaving nothing behind", async () => {
    const signal = AbortSignal.abort(new Error("enough"));
    const work = compress({ model: source, output: out(), backend: "reference", format: "int4" }, { signal });
    await expect(work).rejects.toThrow("enough");
    expect(readdirSync(folder)).toEqual(["source"]);
  });

  it("warns of models that are rounded already and of little calibration text", async () => {
    await run({ format: "int8" });
    const warnings: string[] = [];
    const options = {
      model: out(),
      output: join(folder, "twice"),
      backend: "reference" as const,
      format: "int4",
      samples: 1,
      calibration,
    };
    await compress(options, { onWarning: (message) => warnings.push(message) });
    expect(warnings[0]).toContain("is stored as int8 already");
    expect(warnings[1]).toContain("32 tokens are fewer than the 96 inputs");
  });
});

describe("memory", () => {
  it("holds a block or two of the file at a time, however many there are", async () => {
    setFlagsFromString("--expose-gc");
    const collect: () => void = runInNewContext("gc");
    const blockBytes = 4 * (4 * 128 * 128 + 3 * 128 * 256);
    /** Most bytes in arrays that are still needed, between two matrices. */
    const peak = async (layers: number) => {
      const path = join(folder, `blocks-${layers}`);
      await writeTinyModel(
        path,
        undefined,
        llama({ ...model.config, dim: 128, kvHeads: 4, headDim: 32, ffn: 256, layers }),
      );
      let most = 0;
      const onProgress = () => {
        collect();
        collect(); // what the first one found is counted as gone after the second
        most = Math.max(most, process.memoryUsage().arrayBuffers);
      };
      const options = { model: path, output: join(folder, `small-${layers}`), format: "int4-g64" };
      await compress({ ...options, method: "rtn", calibration, samples: 2 }, { onProgress });
      return most;
    };
    const few = await peak(2);
    expect((await peak(10)) - few).toBeLessThan(3 * blockBytes);
  });
});
