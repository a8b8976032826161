import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { openModel } from "../../src/files/index.ts";
import { formatByName } from "../../src/formats/index.ts";
import { configJson, describe } from "../../src/models/index.ts";
import { PART_BYTES, type PartType } from "../../src/tensor/weight.ts";
import { inspect } from "../../src/verbs/inspect.ts";
import { type Damage, Entries, jsonText } from "./damage.ts";
import { randomBytes, readEvery, type Stored, safetensorsBytes } from "./safetensors.ts";
import type { Target } from "./target.ts";
import { tokenizerJson } from "./vocabularies.ts";

const FORMATS = [
  "f32",
  "f16",
  "bf16",
  "int8",
  "int6",
  "int4",
  "int3-offset",
  "int2",
  "int4-g32",
  "tq2_0",
  "tq1_0",
  "q4_0",
  "q5_1",
  "q4_k",
  "q6_k",
];

/** A weight's entry in `quantization_config.weights`, and into `stored` the arrays that it names. */
function weightEntry(
  d: Damage,
  path: string,
  shape: readonly [number, number],
  stored: Stored[],
  depth = 0,
): unknown {
  const [rows, cols] = shape;
  const array = (name: string, dtype: PartType, partShape: readonly number[]) => {
    const bytes = randomBytes(d, PART_BYTES[dtype] * partShape.reduce((a, b) => a * b, 1));
    stored.push({ name, dtype: dtype.toUpperCase(), shape: partShape, bytes });
  };
  const inner = (step: string, size: readonly [number, number]) =>
    d.json(weightEntry(d, `${path}.${step}`, size, stored, depth + 1));
  const entry = (fields: readonly (readonly [string, unknown])[]) =>
    new Entries(
      d.list<readonly [string, unknown]>([...fields, ["shape", d.json(shape.map((n) => d.json(n)))]]),
    );
  const kinds = [
    "sum",
    "product",
    "lowRank",
    "codebook",
    "decoder",
    "scaleRows",
    "scaleColumns",
    "permuteColumns",
    "placeColumns",
    "sign",
  ];
  const kind = depth < 2 && d.chance(0.3) ? d.pick(kinds) : "packed";
  switch (kind) {
    case "sum":
      return entry([
        ["kind", d.json(kind)],
        ["terms", d.json(d.list([inner("terms.0", shape), inner("terms.1", shape)]))],
      ]);
    case "product":
      return entry([
        ["kind", d.json(kind)],
        ["factors", d.json(d.list([inner("factors.0", [rows, 2]), inner("factors.1", [2, cols])]))],
      ]);
    case "lowRank":
      return entry([
        ["kind", d.json(kind)],
        ["a", inner("a", [rows, 1])],
        ["b", inner("b", [1, cols])],
      ]);
    case "codebook":
      array(`${path}.codes`, "u8", [rows, Math.ceil((cols * 2) / 8)]);
      return entry([
        ["kind", d.json(kind)],
        ["codeBits", d.json(2)],
        ["book", inner("book", [4, 1])],
        ...(d.chance(0.5) ? [["down", d.json(true)] as const] : []),
      ]);
    case "decoder": {
      // One patch of the whole matrix where it is square, else of single weights: a layer of one channel.
      const patch = rows === cols ? rows : 1;
      const layer = entry([
        ["kernel", d.json(1)],
        ["stride", d.json(1)],
        ["weights", inner("layers.0.weights", [1, 1])],
        ["biases", inner("layers.0.biases", [1, 1])],
      ]);
      return entry([
        ["kind", d.json(kind)],
        ["patch", d.json(patch)],
        ["latent", inner("latent", [(rows * cols) / patch ** 2, patch ** 2])],
        ["layers", d.json(d.list([layer]))],
      ]);
    }
    case "scaleRows":
    case "scaleColumns":
      array(`${path}.scales`, "f32", [kind === "scaleRows" ? rows : cols]);
      return entry([
        ["kind", d.json(kind)],
        ["of", inner("of", shape)],
      ]);
    case "permuteColumns":
      stored.push({
        name: `${path}.order`,
        dtype: "U8",
        shape: [cols],
        bytes: Uint8Array.from({ length: cols }, (_, c) => d.number(cols - 1 - c)),
      });
      return entry([
        ["kind", d.json(kind)],
        ["of", inner("of", shape)],
      ]);
    case "placeColumns":
      stored.push({
        name: `${path}.places`,
        dtype: "U8",
        shape: [1],
        bytes: Uint8Array.of(d.number(cols - 1)),
      });
      return entry([
        ["kind", d.json(kind)],
        ["of", inner("of", [rows, 1])],
      ]);
    case "sign":
      array(`${path}.bits`, "u8", [rows, Math.ceil(cols / 8)]);
      return entry([["kind", d.json(kind)]]);
    default: {
      const fitting = FORMATS.filter((name) => {
        const { groupShape } = formatByName(name);
        return !("size" in groupShape) || cols % groupShape.size === 0;
      });
      const format = d.pick(fitting);
      for (const part of formatByName(format).parts(rows, cols)) {
        // A plain array that is a whole weight has the weight's own name.
        const plain = format in PART_BYTES && depth === 0;
        array(plain ? path : `${path}.${part.name}`, part.dtype, plain ? shape : part.shape);
      }
      return entry([["format", d.json(format)]]);
    }
  }
}

/** Disk of the fuzzer's own, in memory where the system keeps such a folder. */
let folder: string | undefined;
function place(): string {
  if (folder === undefined) {
    const made = mkdtempSync(join(tmpdir(), "lowbit-fuzz-"));
    process.on("exit", () => rmSync(made, { recursive: true, force: true }));
    folder = made;
  }
  return folder;
}

export const hfFolder: Target = {
  name: "hf-folder",
  begins:
    /^(fuzzed|(generation_)?config\.json|record\.json|tokenizer(_config)?\.json|[^:]*\.safetensors(\.index\.json)?): /,
  make(d) {
    const kvHeads = d.whole(1, 2);
    const heads = kvHeads * d.whole(1, 2);
    const headDim = d.pick([2, 4, 8]);
    const config = {
      ...configJson({
        architecture: "llama",
        vocabulary: d.whole(1, 4),
        context: d.whole(1, 8),
        dim: d.chance(0.05) ? 32 : heads * headDim,
        layers: d.chance(0.9) ? 1 : 2,
        heads,
        kvHeads,
        headDim,
        ffn: d.whole(1, 6),
        normEpsilon: 1e-5,
        ropeBase: 10000,
        ropePairing: d.pick(["halves", "neighbours"]),
        tiedHead: d.chance(0.5),
      }),
    };
    const stored: Stored[] = [];
    const weights: [string, unknown][] = [];
    for (const { name, shape, role } of describe(config).tensors) {
      if (role !== "norm" && d.chance(0.4)) {
        weights.push([name, d.json(weightEntry(d, name, shape as [number, number], stored))]);
        continue;
      }
      const size = shape.reduce((a, b) => a * b, 1);
      const dtype = d.pick(["F32", "F16", "BF16"]);
      stored.push({ name, dtype, shape, bytes: randomBytes(d, size * (dtype === "F32" ? 4 : 2)) });
    }
    if (d.chance(0.05)) weights.push(["extra", d.json(weightEntry(d, "extra", [1, 256], stored))]);
    const quantization = new Entries(
      d.list<[string, unknown]>([
        ["quant_method", d.json("lowbit")],
        ["version", d.json(1)],
        ["weights", d.json(new Entries(d.list(weights)))],
      ]),
    );
    const fields = Object.entries(config).map(([key, value]): [string, unknown] => [key, d.json(value)]);
    if (weights.length > 0) fields.push(["quantization_config", d.json(quantization)]);

    const utf8 = (value: unknown) => d.bytes(new TextEncoder().encode(jsonText(value)));
    const files = new Map([["config.json", utf8(d.json(new Entries(d.list(fields))))]]);
    if (d.chance(0.5)) files.set("model.safetensors", safetensorsBytes(d, stored));
    else {
      const half = Math.floor(stored.length / 2);
      const shards = new Map([
        ["part.safetensors", stored.slice(0, half)],
        ["other.safetensors", stored.slice(half)],
      ]);
      for (const [name, part] of shards) files.set(name, safetensorsBytes(d, part));
      const map = [...shards].flatMap(([name, part]) =>
        part.map((tensor): [string, unknown] => [d.text(tensor.name), d.json(name)]),
      );
      files.set(
        "model.safetensors.index.json",
        utf8(d.json({ weight_map: d.json(new Entries(d.list(map))) })),
      );
    }
    if (d.chance(0.1)) files.set("generation_config.json", utf8(d.json({ temperature: d.json(1) })));
    if (d.chance(0.1))
      files.set("record.json", utf8(d.json({ record: d.json("lowbit"), version: d.json(1) })));
    if (d.chance(0.1)) {
      for (const [name, bytes] of tokenizerJson.make(d) as ReadonlyMap<string, Uint8Array>)
        files.set(name, bytes);
    }
    return files;
  },
  async read(made) {
    const path = join(place(), "fuzzed");
    mkdirSync(path, { recursive: true });
    const names: string[] = [];
    try {
      for (const [name, bytes] of made as ReadonlyMap<string, Uint8Array>) {
        names.push(name);
        writeFileSync(join(path, basename(name)), bytes);
      }
      await inspect({ model: path });
      const { source, close } = await openModel(path);
      try {
        await readEvery("fuzzed", source);
      } finally {
        await close();
      }
    } finally {
      for (const name of names) rmSync(join(path, name), { force: true });
    }
  },
};
