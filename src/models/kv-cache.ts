import type { Backend } from "../backends/backend.ts";
import { InputError, type Tensor } from "../tensor/tensor.ts";
import type { KvCache, ModelConfig } from "./model.ts";

/** Keys and values of one sequence in float32: 8·kvHeads·headDim bytes a token and block. */
export function kvCache(backend: Backend, config: ModelConfig, capacity = config.context): KvCache {
  const width = config.kvHeads * config.headDim;
  const make = () =>
    Array.from({ length: config.layers }, () => backend.keep(backend.zeros([capacity, width])));
  const keys = make();
  const values = make();
  let length = 0;
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
      backend.cacheAppend(keys[i], k, length);
      backend.cacheAppend(values[i], v, length);
      return { keys: backend.rows(keys[i], 0, end), values: backend.rows(values[i], 0, end), length: end };
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
