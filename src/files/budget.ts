import { InputError } from "../tensor/tensor.ts";
import type { Json, JsonObject, ModelFile } from "./file.ts";
import { isObject } from "./json.ts";
import { readHeader } from "./safetensors.ts";
import { type Shard, safetensorsSource } from "./safetensors-source.ts";

/**
 * Key of a config.json: names of the matrices that are sums of blocks, each as often as it has blocks, in the order in
 * which the blocks are read when there is no room for all. The n-th time that a name stands there is its n-th term.
 */
export const BLOCKS_KEY = "lowbit_blocks";

const UNITS: Readonly<Record<string, number>> = {
  B: 1,
  kB: 1e3,
  MB: 1e6,
  GB: 1e9,
  KiB: 2 ** 10,
  MiB: 2 ** 20,
  GiB: 2 ** 30,
};

/** `MODEL@2.5MB` in two, the size in whole bytes; undefined for other names. */
export function splitBudget(spec: string): { model: string; bytes: number } | undefined {
  const [, model, number, unit] = /^(.+)@(\d{1,12}(?:\.\d{1,9})?)(B|[kMG]B|[KMG]iB)$/.exec(spec) ?? [];
  return model === undefined ? undefined : { model, bytes: Math.floor(Number(number) * UNITS[unit]) };
}

export function notStacked(name: string): InputError {
  return new InputError(
    `${name}: the model is not a stack of blocks, it has one size; make one with lowbit compress --method bitstack`,
  );
}

/**
 * A stacked model as it is in so many bytes of weights: all that is no block, the first block of every matrix, and then
 * blocks in their order until the next one has no room. The others are never read. `bytes` are those of the weights,
 * without the files' headers, and at most the budget; an InputError names the least budget that works.
 */
export async function withinBudget(
  file: ModelFile,
  shards: readonly Shard[],
  budget: number,
): Promise<ModelFile> {
  const { name } = file;
  const { [BLOCKS_KEY]: order, quantization_config: quantization, ...config } = file.config;
  if (order === undefined) throw notStacked(name);
  if (!isObject(quantization) || !isObject(quantization.weights)) throw notStacked(name);
  const { weights: entries } = quantization;
  const stacks = stacksOf(order, entries);

  // Bytes of each block, and of all that is read at any size.
  let bytes = 0;
  const stored: { readonly shard: Shard; readonly tensor: string; readonly block: Block | undefined }[] = [];
  for (const shard of shards) {
    for (const [tensor, { from, to }] of (await readHeader(shard.file)).tensors) {
      if (shard.names?.has(tensor) === false) continue;
      const block = blockOf(tensor, stacks);
      stored.push({ shard, tensor, block });
      if (!block || block.at === 0) bytes += to - from;
      else block.stack.bytes[block.at] += to - from;
    }
  }
  if (bytes > budget) {
    throw new InputError(
      `${name}: needs at least ${bytes} bytes for the first block of every matrix and all that is no block; give @${bytes}B or more`,
    );
  }
  const met = new Set<string>();
  for (const matrix of order as readonly string[]) {
    const stack = stacks.get(matrix)!;
    const isFirst = !met.has(matrix);
    met.add(matrix);
    if (isFirst) continue;
    if (bytes + stack.bytes[stack.taken] > budget) break;
    bytes += stack.bytes[stack.taken++];
  }

  const weights: { [name: string]: Json } = { ...entries };
  for (const [matrix, { entry, terms, taken }] of stacks) {
    weights[matrix] = { ...entry, terms: terms.slice(0, taken) };
  }
  const isRead = (of: Shard) =>
    stored.filter(({ shard, block }) => shard === of && !(block && block.at >= block.stack.taken));
  const source = await safetensorsSource(
    shards.map((shard) => ({
      file: shard.file,
      names: new Set(isRead(shard).map(({ tensor }) => tensor)),
    })),
    { ...quantization, weights },
  );
  const blocks = [...stacks.values()].reduce((sum, { taken }) => sum + taken, 0);
  return {
    ...file,
    config: { ...config, quantization_config: { ...quantization, weights } },
    source,
    bytes,
    container: `${file.container}, ${blocks} of ${[...stacks.values()].reduce((sum, { terms }) => sum + terms.length, 0)} blocks`,
    fingerprint: async () => {
      const print = await file.fingerprint();
      const hash = process.getBuiltinModule("node:crypto").createHash("sha256");
      // Another number of blocks is another model, though its bytes are among the same.
      return { bytes, sha256: hash.update(`${print.sha256}@${blocks} blocks`).digest("hex") };
    },
  };
}

/** A matrix that is a sum of blocks, bytes of each but the first, and how many are read. */
interface Stack {
  readonly entry: JsonObject;
  readonly terms: readonly Json[];
  readonly bytes: number[];
  taken: number;
}

interface Block {
  readonly stack: Stack;
  readonly at: number;
}

/** The stacks that an order names; every one is a sum that stands there as often as it has terms. */
function stacksOf(order: Json, entries: JsonObject): Map<string, Stack> {
  if (!Array.isArray(order) || !order.every((matrix) => typeof matrix === "string")) {
    throw new InputError(`config.json: ${BLOCKS_KEY} needs a list of names`);
  }
  const counts = new Map<string, number>();
  for (const matrix of order) counts.set(matrix, (counts.get(matrix) ?? 0) + 1);
  const stacks = new Map<string, Stack>();
  for (const [matrix, count] of counts) {
    const entry = Object.hasOwn(entries, matrix) ? entries[matrix] : undefined;
    const terms = isObject(entry) && entry.kind === "sum" ? entry.terms : undefined;
    if (!isObject(entry) || !Array.isArray(terms) || terms.length !== count) {
      throw new InputError(
        `config.json: ${BLOCKS_KEY} names ${matrix} ${count} times; it is not a sum of as many terms`,
      );
    }
    stacks.set(matrix, { entry, terms, bytes: terms.map(() => 0), taken: 1 });
  }
  return stacks;
}

/** The block that holds a tensor of the file, `MATRIX.terms.2.of.a.data`. */
function blockOf(tensor: string, stacks: ReadonlyMap<string, Stack>): Block | undefined {
  const [, matrix, at] = /^(.+?)\.terms\.(\d+)\./.exec(tensor) ?? [];
  const stack = stacks.get(matrix);
  return stack && { stack, at: Number(at) };
}
