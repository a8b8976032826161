import type { Backend } from "../backends/backend.ts";
import { bytesPerMatrix, formatByName } from "../formats/index.ts";
import { InputError, type Tensor } from "../tensor/tensor.ts";
import type { KvCache, ModelConfig } from "./model.ts";

/** How keys and values can be kept, as the command line spells it. */
export const cacheNames = ["f32", "f16", "int8", "int4"] as const;
export type CacheName = (typeof cacheNames)[number];

// Rows that a cache begins with; then it doubles, so that a short text in a long context takes little.
const FIRST_ROWS = 256;

/**
 * Keys and values of one sequence, block by block. `capacity` is the most
 * tokens that it will hold; memory grows with what it holds.
 *
 * With 16, 8 or 4 bits, attention sees what was stored: a token's own key and
 * value too. Integers have a scale for every 32 values of a row, or for the
 * whole row where 32 does not divide it; a group may span short heads.
 *
 * There is no shift. Keys of deeper blocks depend on all tokens before them,
 * so that turning the rest of them to new positions gives another text than a
 * fresh cache would. At the end of a context, call `truncate(keep)` and feed
 * the tokens again that are to stay behind those: same bits as a new session.
 */
export function kvCache(
  backend: Backend,
  config: ModelConfig,
  capacity = config.context,
  name: CacheName = "f32",
): KvCache {
  const width = config.kvHeads * config.headDim;
  const format = cacheFormat(name, width);
  const zeros = (rows: number) => backend.keep(backend.zeros([rows, width], format));
  const first = Math.min(FIRST_ROWS, capacity);
  const keys: Tensor[] = [];
  const values: Tensor[] = [];
  try {
    for (let i = 0; i < config.layers; i++) for (const held of [keys, values]) held.push(zeros(first));
  } catch (error) {
    for (const t of [...keys, ...values]) backend.free(t);
    throw error;
  }
  let length = 0;

  /** Makes room for `end` rows. */
  function grow(tensors: Tensor[], i: number, end: number): void {
    const held = tensors[i];
    if (end <= held.shape[0]) return;
    const larger = zeros(Math.min(capacity, Math.max(end, 2 * held.shape[0])));
    backend.cacheAppend(larger, held, 0);
    backend.free(held);
    tensors[i] = larger;
  }

  return {
    capacity,
    get length() {
      return length;
    },
    append(i: number, k: Tensor, v: Tensor) {
      const end = length + k.shape[0];
      if (end > capacity) {
        throw new InputError(`cache: ${end} tokens do not fit into a context of ${capacity}`);
      }
      grow(keys, i, end);
      grow(values, i, end);
      backend.cacheAppend(keys[i], k, length);
      backend.cacheAppend(values[i], v, length);
      return { keys: keys[i], values: values[i], length: end };
    },
    advance(tokens: number) {
      length += tokens;
    },
    truncate(to: number) {
      length = Math.min(length, to);
    },
    free() {
      for (const t of [...keys, ...values]) backend.free(t);
    },
  };
}

/** The format, by its own name, of a cache with rows of `width` values. */
export function cacheFormat(name: CacheName, width: number): string {
  return name.startsWith("int") && width % 32 === 0 ? `${name}-g32` : name;
}

/** Bytes that a token takes in the caches of all blocks. */
export function cacheBytesPerToken({ kvHeads, headDim, layers }: ModelConfig, name: CacheName): number {
  const width = kvHeads * headDim;
  return 2 * layers * bytesPerMatrix(formatByName(cacheFormat(name, width)), 1, width);
}
