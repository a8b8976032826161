import { partKey } from "../record/make.ts";
import { sizeOf } from "../tensor/tensor.ts";
import { PART_BYTES, type Part, partsOf, type Weight, withParts } from "../tensor/weight.ts";
import { type OpenFile, type StageOptions, stageFolder } from "./disk.ts";
import type { JsonObject, NamedBytes } from "./file.ts";
import { INDEX_FILE, WEIGHTS_FILE } from "./hf-folder.ts";
import { modelCard } from "./model-card.ts";
import { LOWBIT_VERSION, outlineOf, storedName, type WeightOutline } from "./outline.ts";
import { layOut, type PartOutline, type SafetensorsLayout } from "./safetensors.ts";

/** Bytes of weights in one file, unless told. */
const LARGEST_SHARD = 2 ** 32;

export interface WriterOptions extends StageOptions {
  readonly config: JsonObject;
  /** Every weight by name, in the order of the file; from `packedOutline` or `outlineOf`. */
  readonly weights: Iterable<readonly [name: string, outline: WeightOutline]>;
  /** Longer models are cut into several files with an index; bytes of weights in one file. Default: 4 GiB. */
  readonly shardBytes?: number;
}

/** What joins the weights in the folder when they are all written. */
export interface ModelContents {
  /** What joins the config.json that was announced. */
  readonly config?: JsonObject;
  readonly tokenizerFiles?: readonly NamedBytes[];
  readonly generation?: JsonObject;
  readonly record?: object;
  /** README.md; made from the record unless given. */
  readonly card?: string;
}

export interface ModelWriter {
  /** Bytes of the weights' files, headers included. */
  readonly bytes: number;
  /**
   * Writes one weight; in any order, each once. Only its own bytes are in memory. Gives it as it is stored: its parts are
   * those of weights before it where they have the same content.
   */
  write(name: string, weight: Weight): Promise<Weight>;
  /** Adds the small files and puts the folder at its place. Fails when a weight is missing. */
  finish(contents?: ModelContents): Promise<void>;
  /** Removes everything that was written; does nothing after `finish`. */
  discard(): Promise<void>;
}

/**
 * Begins a model folder: model.safetensors (or shards), config.json with our
 * `quantization_config`, and with `finish` tokenizer, generation_config.json,
 * record.json and a model card. The folder appears whole or not at all. A
 * folder that exists and that lowbit did not make is refused at once.
 */
export async function modelWriter(folder: string, options: WriterOptions): Promise<ModelWriter> {
  const { config, shardBytes = LARGEST_SHARD } = options;
  const weights = new Map(options.weights);
  const shards = cut([...weights.values()], shardBytes).map((parts) => layOut(parts, { format: "pt" }));
  const places = new Map<string, { shard: number; from: number; to: number }>();
  for (const [shard, layout] of shards.entries()) {
    for (const [name, range] of layout.tensors) places.set(name, { shard, ...range });
  }

  const staged = await stageFolder(folder, options);
  const files: OpenFile[] = [];
  const missing = new Set(weights.keys());
  let over = false;
  const orDiscard = async <T>(work: () => Promise<T>): Promise<T> => {
    try {
      return await work();
    } catch (error) {
      over = true;
      await staged.discard();
      throw error;
    }
  };
  await orDiscard(async () => {
    for (const [i, layout] of shards.entries()) {
      const file = await staged.create(shardName(i, shards.length));
      files.push(file);
      await file.write(layout.header, 0);
    }
  });

  return {
    bytes: shards.reduce((bytes, shard) => bytes + shard.byteLength, 0),
    write: (name, weight) =>
      orDiscard(async () => {
        const outline = weights.get(name);
        if (outline === undefined || !missing.delete(name)) {
          throw new Error(
            `modelWriter: weight ${name} is ${outline ? "written twice" : "not among those announced"}`,
          );
        }
        const announced = new Map(outline.parts.map((part) => [part.name, part]));
        for (const [path, part] of partsOf(weight)) {
          const stored = storedName(name, weight, path);
          const spec = announced.get(stored);
          if (spec === undefined && sharedPaths(outline).has(path)) continue;
          checkPart(stored, spec, part);
          announced.delete(stored);
          const { shard, from } = places.get(stored)!;
          await files[shard].write(part.bytes, from);
        }
        for (const stored of announced.keys())
          throw new Error(`modelWriter: part ${stored} was announced, but not given`);
        return weight;
      }),
    finish: (contents = {}) =>
      orDiscard(async () => {
        for (const name of missing)
          throw new Error(`modelWriter: weight ${name} was announced, but not written`);
        for (const file of files) await file.close();
        if (shards.length > 1) await staged.put(INDEX_FILE, json(indexOf(shards)));
        for (const { name, bytes } of contents.tokenizerFiles ?? []) await staged.put(name, bytes);
        if (contents.generation) await staged.put("generation_config.json", json(contents.generation));
        const { record } = contents;
        await staged.put("README.md", new TextEncoder().encode(contents.card ?? modelCard(config, record)));
        const joined = { ...config, ...contents.config };
        await staged.put("config.json", json(withQuantization(joined, weights)));
        if (record) await staged.put("record.json", json(record));
        else await staged.mark();
        await staged.commit();
        over = true;
      }),
    async discard() {
      if (!over) await staged.discard();
      over = true;
    },
  };
}

/**
 * The same where nobody knows beforehand what parts the weights will have: they are held in memory and written with
 * `finish`, and until then `bytes` are those of what is there. Parts that weights share are stored once.
 */
export async function holdingWriter(
  folder: string,
  options: Omit<WriterOptions, "weights"> & {
    /** Names in the order of the file. Default: as they are written. */
    readonly order?: readonly string[];
  },
): Promise<ModelWriter> {
  const probe = await stageFolder(folder, options); // refuses a folder that lowbit did not make, before any work
  await probe.discard();
  const held = new Map<string, Weight>();
  const { order = [] } = options;
  const inOrder = () => [...held].sort(([a], [b]) => order.indexOf(a) - order.indexOf(b));
  const known = new Map<string, Part>();
  /** The first part of the same content: signs of rotations, and books, that matrices have in common. */
  async function first(part: Part): Promise<Part> {
    const key = await partKey(part);
    const before = known.get(key) ?? part;
    known.set(key, before);
    return before;
  }
  return {
    get bytes() {
      return weightsBytes(
        outlinesOf(inOrder()).map(([, outline]) => outline),
        options.shardBytes,
      );
    },
    async write(name, weight) {
      const firsts = new Map<Part, Part>();
      const sharing = weight.expression.kind !== "packed";
      if (sharing) for (const [, part] of partsOf(weight)) firsts.set(part, await first(part));
      const stored = sharing ? withParts(weight, (part) => firsts.get(part)!) : weight;
      held.set(name, stored);
      return stored;
    },
    finish: (contents) => writeModel(folder, options, inOrder(), contents),
    async discard() {},
  };
}

/** Bytes of the files of such weights, headers included. */
export function weightsBytes(outlines: readonly WeightOutline[], shardBytes = LARGEST_SHARD): number {
  return cut(outlines, shardBytes).reduce(
    (bytes, parts) => bytes + layOut(parts, { format: "pt" }).byteLength,
    0,
  );
}

function outlinesOf(weights: Iterable<readonly [string, Weight]>): [name: string, outline: WeightOutline][] {
  const owners = new Map<Part, string>();
  return Array.from(weights, ([name, weight]) => [name, outlineOf(name, weight, owners)]);
}

/** Writes a whole model whose weights are all at hand; where they are not, use `modelWriter`. */
export async function writeModel(
  folder: string,
  options: StageOptions & { readonly config: JsonObject; readonly shardBytes?: number },
  weights: readonly (readonly [name: string, weight: Weight])[],
  contents: ModelContents = {},
): Promise<void> {
  const writer = await modelWriter(folder, { ...options, weights: outlinesOf(weights) });
  for (const [name, weight] of weights) await writer.write(name, weight);
  await writer.finish(contents);
}

/** Parts in the order given, cut where a file would grow beyond the limit; a weight's own parts stay together. */
function cut(outlines: readonly WeightOutline[], limit: number): PartOutline[][] {
  const shards: PartOutline[][] = [[]];
  let bytes = 0;
  for (const { parts } of outlines) {
    const more = parts.reduce((sum, { dtype, shape }) => sum + sizeOf(shape) * PART_BYTES[dtype], 0);
    if (bytes > 0 && bytes + more > limit) {
      shards.push([]);
      bytes = 0;
    }
    shards[shards.length - 1].push(...parts);
    bytes += more;
  }
  return shards;
}

function shardName(i: number, count: number): string {
  if (count === 1) return WEIGHTS_FILE;
  const number = (n: number) => String(n).padStart(5, "0");
  return `model-${number(i + 1)}-of-${number(count)}.safetensors`;
}

function indexOf(shards: readonly SafetensorsLayout[]): JsonObject {
  const map: Record<string, string> = {};
  let size = 0;
  for (const [i, { tensors, byteLength, header }] of shards.entries()) {
    for (const name of tensors.keys()) map[name] = shardName(i, shards.length);
    size += byteLength - header.byteLength;
  }
  return { metadata: { total_size: size }, weight_map: map };
}

function withQuantization(config: JsonObject, weights: ReadonlyMap<string, WeightOutline>): JsonObject {
  const { quantization_config: _, ...rest } = config;
  const entries: [string, JsonObject][] = [];
  for (const [name, { entry }] of weights) if (entry) entries.push([name, entry]);
  if (entries.length === 0) return rest;
  const quantization = {
    quant_method: "lowbit",
    version: LOWBIT_VERSION,
    weights: Object.fromEntries(entries),
  };
  return { ...rest, quantization_config: quantization };
}

function sharedPaths(outline: WeightOutline): Set<string> {
  return new Set(Object.keys(outline.entry?.shared ?? {}));
}

/** What was laid out and what is written must be the same, or the file would say something else than it holds. */
function checkPart(stored: string, spec: PartOutline | undefined, part: Part): void {
  const needed = spec && `${spec.dtype} ${spec.shape.join("×")}`;
  const met = `${part.dtype} ${part.shape.join("×")}`;
  if (spec === undefined || needed !== met)
    throw new Error(`modelWriter: part ${stored} is ${met}, announced was ${needed ?? "none"}`);
  const bytes = sizeOf(part.shape) * PART_BYTES[part.dtype];
  if (part.bytes.byteLength !== bytes) {
    throw new Error(`modelWriter: part ${stored} has ${part.bytes.byteLength} bytes, ${met} needs ${bytes}`);
  }
}

/** JSON as people read it, with lists of numbers on one line (a line break inside brackets is never part of a string). */
function json(value: object): Uint8Array {
  const numbers = /\[\n\s*(-?[\d.e+-]+(?:,\n\s*-?[\d.e+-]+)*)\n\s*\]/g;
  const text = JSON.stringify(value, null, 2).replace(
    numbers,
    (_, list: string) => `[${list.replace(/\s+/g, " ")}]`,
  );
  return new TextEncoder().encode(`${text}\n`);
}
