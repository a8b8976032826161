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
import { afterEach, beforeEach, expect, test } from "vitest";
import { bytesOf, type Part, packedWeight, type Weight } from "../tensor/weight.ts";
import { openModel } from "./index.ts";
import { assemblyOf, outlineOf, packedOutline } from "./outline.ts";
import { holdingWriter, modelWriter, writeModel } from "./write-model.ts";

let temporary: string;
let out: string;
beforeEach(() => {
  temporary = mkdtempSync(join(tmpdir(), "lowbit-"));
  out = join(temporary, "model");
});
afterEach(() => rmSync(temporary, { recursive: true }));

let filled = 0;
const part = (dtype: Part["dtype"], shape: number[], size: number): Part => ({
  dtype,
  shape,
  bytes: Uint8Array.from(
    { length: shape.reduce((a, b) => a * b, size) },
    () => (filled = (filled + 37) & 0x3f),
  ),
});
const plain = (shape: number[]) => packedWeight(shape, "f16", { data: part("f16", shape, 2) });
const int4 = () =>
  packedWeight([3, 64], "int4-g32", { codes: part("u8", [3, 32], 1), scales: part("f16", [3, 2], 2) });
const weight = (shape: number[], expression: Weight["expression"]): Weight => ({ shape, expression });

/** One weight of every kind of expression, some inside others. */
function everyKind(): [string, Weight][] {
  const book = plain([16, 4]);
  const layers = [
    { kernel: 1, stride: 2, weights: plain([12, 2]), biases: plain([1, 12]) },
    { kernel: 3, stride: 1, weights: plain([1, 27]), biases: plain([1, 1]) },
  ];
  const drawn = () => weight([8, 12], { kind: "decoder", patch: 4, latent: plain([6, 8]), layers });
  return [
    ["plain", plain([2, 2, 2])],
    ["packed", int4()],
    ["ternary", packedWeight([1, 256], "tq2_0", { codes: part("u8", [1, 66], 1) })],
    [
      "sum",
      weight([3, 64], {
        kind: "sum",
        terms: [int4(), weight([3, 64], { kind: "lowRank", a: plain([3, 2]), b: plain([2, 64]) })],
      }),
    ],
    [
      "rotated",
      weight([64, 64], {
        kind: "product",
        factors: [
          weight([64, 64], { kind: "hadamard", block: 32 }),
          weight([64, 64], {
            kind: "scaleGroups",
            scales: plain([64, 2]),
            of: weight([64, 64], { kind: "codebook", codes: part("u8", [64, 16], 1), codeBits: 8, book }),
          }),
        ],
      }),
    ],
    ["product", weight([3, 64], { kind: "product", factors: [plain([3, 5]), plain([5, 64])] })],
    ["codebook", weight([3, 64], { kind: "codebook", codes: part("u8", [3, 16], 1), codeBits: 8, book })],
    [
      "codebook.again",
      weight([3, 64], { kind: "codebook", codes: part("u8", [3, 16], 1), codeBits: 8, book }),
    ],
    ["drawn", drawn()],
    ["drawn.again", drawn()],
    [
      "scaled",
      weight([3, 64], {
        kind: "scaleRows",
        scales: part("f32", [3], 4),
        of: weight([3, 64], {
          kind: "scaleColumns",
          scales: part("f16", [64], 2),
          of: weight([3, 64], { kind: "permuteColumns", order: part("i32", [64], 4), of: int4() }),
        }),
      }),
    ],
    [
      "columns",
      weight([8, 64], {
        kind: "placeColumns",
        places: part("u16", [6], 2),
        of: weight([8, 6], {
          kind: "codebook",
          codes: part("u8", [2, 6], 1),
          codeBits: 8,
          book: plain([16, 4]),
          down: true,
        }),
      }),
    ],
    ["sign", weight([3, 60], { kind: "sign", bits: part("u8", [3, 8], 1) })],
  ];
}

test("every kind of weight comes back as it was written, shared parts stored once", async () => {
  const weights = everyKind();
  await writeModel(out, { config: { model_type: "llama" } }, weights);
  const model = await openModel(out);
  expect(model.source.names.toSorted()).toEqual(weights.map(([name]) => name).sort());
  for (const [name, written] of weights) {
    expect(model.source.shape(name)).toEqual(written.shape);
    expect(await model.source.read(name)).toEqual(written);
  }
  expect(model.source.format("plain")).toBe("f16");
  expect(model.source.format("packed")).toBe("int4-g32");
  expect(model.source.format("sum")).toBe("sum(int4-g32, lowRank(f16, f16))");
  const [a, b] = [await model.source.read("codebook"), await model.source.read("codebook.again")];
  const bookOf = (w: Weight) =>
    w.expression.kind === "codebook" && w.expression.book.expression.kind === "packed"
      ? w.expression.book.expression.parts.data
      : undefined;
  expect(bookOf(a)).toBe(bookOf(b));
  // Stored bytes: all parts of all weights, the shared book of 128 bytes, which three have, and the shared layers of as
  // many, counted once.
  const stored = model.source.names.reduce((bytes, name) => bytes + model.source.bytes(name), 0);
  expect(stored).toBe(weights.reduce((bytes, [, w]) => bytes + bytesOf(w), 0) - 3 * 128);
  await model.close();
});

test("a plain weight may lend its array to another and stay a weight", async () => {
  const table = plain([4, 8]);
  const tied = weight([4, 8], { kind: "scaleRows", scales: part("f32", [4], 4), of: table });
  await writeModel(out, { config: {} }, [
    ["table", table],
    ["head", tied],
  ]);
  const model = await openModel(out);
  expect(await model.source.read("table")).toEqual(table);
  expect(await model.source.read("head")).toEqual(tied);
  expect([model.source.bytes("table"), model.source.bytes("head")]).toEqual([64, 16]);
  await model.close();
});

test("shards: an index, every weight in one file with its parts, the same weights again", async () => {
  const weights = everyKind();
  await writeModel(out, { config: {}, shardBytes: 300 }, weights);
  const files = readdirSync(out).filter((name) => name.endsWith(".safetensors"));
  expect(files.length).toBeGreaterThan(2);
  expect(files[0]).toBe(`model-00001-of-0000${files.length}.safetensors`);
  const index = JSON.parse(readFileSync(join(out, "model.safetensors.index.json"), "utf8"));
  expect(index.weight_map["packed.codes"]).toBe(index.weight_map["packed.scales"]);
  const model = await openModel(out);
  for (const [name, written] of weights) expect(await model.source.read(name)).toEqual(written);
  await model.close();
});

test("tokenizer files byte for byte, generation config, record and a card made from it", async () => {
  const tokenizer = new TextEncoder().encode('{ "model": {"vocab":{}} ,\n "odd":  "spacing" }');
  const record = {
    record: "lowbit",
    version: 1,
    verb: "compress",
    options: { format: "int4" },
    models: [{ name: "source", bytes: 12, sha256: "ab" }],
    started: "2026-01-02T03:04:05Z",
    seconds: 2,
    bitsPerWeight: { linear: 4.25 },
  };
  await writeModel(out, { config: { vocab_size: 3 } }, [["w", plain([1])]], {
    tokenizerFiles: [{ name: "tokenizer.json", bytes: tokenizer }],
    generation: { temperature: 1 },
    record,
  });
  const model = await openModel(out);
  expect(await model.tokenizerFiles()).toEqual([{ name: "tokenizer.json", bytes: tokenizer }]);
  expect(model).toMatchObject({
    name: "model",
    config: { vocab_size: 3 },
    generation: { temperature: 1 },
    record,
    container: "safetensors",
  });
  expect(model.tokenizer?.kind).toBe("huggingface");
  expect(model.config.quantization_config).toBeUndefined();
  const card = readFileSync(join(out, "README.md"), "utf8");
  for (const line of [
    "| bitsPerWeight.linear | 4.25 |",
    "| source | 12 bytes, SHA-256 `ab` |",
    "| format | int4 |",
  ])
    expect(card).toContain(line);
  await model.close();
});

test("weights may be written in any order, as soon as each exists; the size is known before", async () => {
  const [first, second] = [int4(), plain([5])];
  const writer = await modelWriter(out, {
    config: {},
    weights: [
      ["first", packedOutline("first", [3, 64], "int4-g32")],
      ["second", packedOutline("second", [5], "f16")],
    ],
  });
  expect(packedOutline("first", [3, 64], "int4-g32")).toEqual(outlineOf("first", first));
  await writer.write("second", second);
  expect(existsSync(out)).toBe(false);
  await writer.write("first", first);
  await writer.finish();
  const model = await openModel(out);
  expect(model.bytes).toBe(writer.bytes);
  expect(await model.source.read("first")).toEqual(first);
  await model.close();
});

test("a weight that is missing, given twice or other than announced leaves nothing behind", async () => {
  const start = () => modelWriter(out, { config: {}, weights: [["w", packedOutline("w", [5], "f16")]] });
  await expect((await start()).finish()).rejects.toThrow("weight w was announced, but not written");
  await expect((await start()).write("w", plain([6]))).rejects.toThrow(
    "part w is f16 6, announced was f16 5",
  );
  await expect((await start()).write("x", plain([5]))).rejects.toThrow(
    "weight x is not among those announced",
  );
  const writer = await start();
  await writer.write("w", plain([5]));
  await expect(writer.write("w", plain([5]))).rejects.toThrow("weight w is written twice");
  await (await start()).discard();
  expect(readdirSync(temporary)).toEqual([]);
});

test("our own folder is replaced whole; beside other files only when asked for", async () => {
  await writeModel(out, { config: {} }, [["old", plain([1])]]);
  writeFileSync(join(out, "log.jsonl"), "{}\n");
  await writeModel(out, { config: {}, into: "beside" }, [["middle", plain([1])]]);
  expect(readdirSync(out)).toContain("log.jsonl");
  await writeModel(out, { config: {} }, [["new", plain([1])]]);
  expect(readdirSync(out)).not.toContain("log.jsonl");
  const model = await openModel(out);
  expect(model.source.names).toEqual(["new"]);
  await model.close();
  expect(readdirSync(temporary)).toEqual(["model"]);
});

test("an empty folder is written into", async () => {
  mkdirSync(out);
  await writeModel(out, { config: {} }, [["w", plain([1])]]);
  expect(readdirSync(out)).toContain("model.safetensors");
});

test("a writer that holds the weights stores a part of several once, and refuses a stranger's folder before any work", async () => {
  const signs = () =>
    ({ dtype: "i8", shape: [64], bytes: Uint8Array.from({ length: 64 }, (_, i) => i & 1) }) as const;
  const signed = (name: string): [string, Weight] => [
    name,
    weight([3, 64], { kind: "scaleColumns", scales: signs(), of: int4() }),
  ];
  const weights = new Map([signed("one"), signed("two"), ["plain", plain([64])] as [string, Weight]]);
  const writer = await holdingWriter(out, { config: { model_type: "llama" } });
  for (const [name, held] of weights) await writer.write(name, held);
  const { bytes } = writer;
  await writer.finish();
  expect(readFileSync(join(out, "model.safetensors")).byteLength).toBe(bytes);
  const config = JSON.parse(readFileSync(join(out, "config.json"), "utf8"));
  expect(config.quantization_config.weights.two.shared).toEqual({ scales: "one.scales" });
  const model = await openModel(out);
  for (const [name, held] of weights) expect(await model.source.read(name)).toEqual(held);
  await model.close();
  mkdirSync(join(temporary, "stranger"));
  writeFileSync(join(temporary, "stranger", "letter.txt"), "");
  await expect(holdingWriter(join(temporary, "stranger"), { config: {} })).rejects.toThrow("stranger");
});

test("a decoder in a file whose parts disagree is refused by name, before any of them is read", () => {
  const layer = { kernel: 1, stride: 4, weights: entry(16, 2), biases: entry(1, 16) };
  const good = { kind: "decoder", shape: [8, 12], patch: 4, latent: entry(6, 2), layers: [layer] };
  // The file has whatever the entry says: that it does not fit is for the entry to show.
  const shapes = new Map<string, readonly number[]>();
  const read = (changed: object) => {
    const json = { ...good, ...changed } as typeof good;
    shapes.set("w.latent.data", json.latent?.shape);
    for (const [i, { weights, biases }] of json.layers.entries()) {
      shapes.set(`w.layers.${i}.weights.data`, weights.shape);
      shapes.set(`w.layers.${i}.biases.data`, biases.shape);
    }
    return assemblyOf("w", json as never, (stored) => {
      const shape = shapes.get(stored);
      return shape && { dtype: "f16", shape };
    });
  };
  expect(read({}).format).toBe("decoder(f16, f16)");
  const wrong: [object, string][] = [
    [{ patch: 3 }, "patches of 3 do not fill 8×12; take 1, 2, 4"],
    [{ patch: "4" }, 'patches of "4" do not fill 8×12'],
    [{ latent: entry(5, 2) }, "the latent must be 6 images of 1×1, has shape 5×2"],
    [{ latent: null }, "weight w, latent: needs an object with a shape"],
    [{ layers: [{ ...layer, weights: entry(16, 3) }] }, "the weights of layer 0 must be 16×2, are 16×3"],
    [{ layers: [{ ...layer, biases: entry(1, 4) }] }, "the biases of layer 0 must be 1×16, are 1×4"],
    [{ layers: [{ ...layer, kernel: "1" }] }, 'the kernel of layer 0 must be an odd number up to 15, is "1"'],
    [{ layers: Array(17).fill(layer) }, "a decoder has 1 to 16 layers, met 17"],
    [
      { shape: [4096, 4096], patch: 4096, latent: entry(1, 2), layers: [{ ...layer, stride: 128 }] },
      "strides that come to 128 must divide a patch of 4096, and be 64 at most",
    ],
    [
      { shape: [2 ** 20, 2 ** 20], patch: 64, latent: entry(2 ** 28, 1), layers: [wide(), wide(), last()] },
      "layer 2 would make more than 268435456 numbers of 16384 patches of 64",
    ],
  ];
  for (const [changed, message] of wrong) expect(() => read(changed)).toThrow(message);
  expect(() => assemblyOf("w", good as never, () => undefined)).toThrow("its part w.latent.data is missing");

  function entry(...shape: number[]) {
    return { format: "f16", shape };
  }
  function wide() {
    return { kernel: 1, stride: 8, weights: entry(64, 1), biases: entry(1, 64) };
  }
  function last() {
    return { kernel: 15, stride: 1, weights: entry(1, 225), biases: entry(1, 1) };
  }
});
