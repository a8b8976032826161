import type { Backend } from "../backends/backend.ts";
import { decodeWeight } from "../formats/index.ts";
import { type HostTensor, hostTensor, sizeOf, type Tensor } from "../tensor/tensor.ts";
import type { Weight } from "../tensor/weight.ts";
import type { Model, Role, TensorSpec } from "./model.ts";
import { ropeTable } from "./rope-table.ts";
import type { Running } from "./run.ts";

/**
 * Norm gains, and what is put together from several parts and not only multiplied by (embedding, head), are read as
 * plain floats; everything else stays as it is stored.
 */
export function forKernels({ role, shape }: TensorSpec, weight: Weight): HostTensor | Weight {
  return role === "norm" || (role !== "linear" && weight.expression.kind !== "packed")
    ? hostTensor(shape, decodeWeight(weight).data)
    : weight;
}

/** A model of stored weights on a backend, as it will be after loading; call `free` when done. */
export function runStored(
  model: Model,
  stored: ReadonlyMap<string, Weight>,
  backend: Backend,
): Running & { free(): void } {
  const weights = new Map<string, Tensor>();
  for (const spec of model.tensors) {
    weights.set(spec.name, backend.upload(forKernels(spec, stored.get(spec.name)!)));
  }
  const rope = backend.upload(ropeTable(model.config, model.config.context));
  return {
    model,
    backend,
    weights,
    rope,
    free: () => {
      for (const t of [...weights.values(), rope]) backend.free(t);
    },
  };
}

/** Stored bits, scales and padding included, for each weight of the linear layers and of all tensors. */
export interface StoredBits {
  readonly linear: number;
  readonly total: number;
}

/** Bits per weight of tensors that are stored in so many bytes each. */
export function storedBits(
  tensors: readonly { readonly name: string; readonly shape: readonly number[]; readonly role?: Role }[],
  bytesOf: (name: string) => number,
): StoredBits {
  const bits = (some: typeof tensors) =>
    (8 * some.reduce((sum, { name }) => sum + bytesOf(name), 0)) /
    some.reduce((sum, { shape }) => sum + sizeOf(shape), 0);
  return { linear: bits(tensors.filter(({ role }) => role === "linear")), total: bits(tensors) };
}
