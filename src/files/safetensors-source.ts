import { InputError, naming } from "../tensor/tensor.ts";
import { type Part, packedWeight } from "../tensor/weight.ts";
import type { ByteSource, Json, TensorSource } from "./file.ts";
import { isObject } from "./json.ts";
import { type Assembly, assemblyOf, LOWBIT_VERSION } from "./outline.ts";
import { formatOfDtype, readHeader, readPart, type StoredTensor } from "./safetensors.ts";

/** A file of the model, and which of its tensors count (all, unless an index says otherwise). */
export interface Shard {
  readonly file: ByteSource;
  readonly names?: ReadonlySet<string>;
}

/**
 * The weights in one or several safetensors files. What config.json says in
 * `quantization_config` puts parts together to weights (outline.ts); every
 * other tensor is a weight of its own. Reads headers only; one weight's parts
 * at a time after that.
 */
export async function safetensorsSource(
  shards: readonly Shard[],
  quantization?: Json,
): Promise<TensorSource> {
  const stored = new Map<string, { file: ByteSource; tensor: StoredTensor }>();
  for (const { file, names } of shards) {
    const { tensors } = await readHeader(file);
    for (const name of names ?? tensors.keys()) {
      const tensor = tensors.get(name);
      if (tensor === undefined)
        throw new InputError(`${file.name}: the index says that it holds tensor ${name}; it does not`);
      stored.set(name, { file, tensor });
    }
  }
  const find = (name: string) => {
    const tensor = stored.get(name)?.tensor;
    return tensor && { dtype: formatOfDtype(tensor.dtype), shape: tensor.shape };
  };
  const users = new Map<string, string[]>();
  const owner = new Map<string, string>();
  const assemblies = new Map<string, Assembly>();
  for (const [name, entry] of Object.entries(lowbitWeights(quantization))) {
    const assembly = naming("config.json", () => assemblyOf(name, entry, find));
    assemblies.set(name, assembly);
    for (const part of assembly.stored) users.set(part, [...(users.get(part) ?? []), name]);
    for (const part of assembly.owned) owner.set(part, name);
  }
  // In the order of the files; a tensor that no expression owns is a weight of its own, even if it lends its array.
  const weights = new Map<string, Assembly>();
  for (const [name, { tensor }] of stored) {
    const whole = owner.get(name) ?? name;
    weights.set(whole, assemblies.get(whole) ?? plain(name, tensor));
  }
  for (const [name, assembly] of assemblies) weights.set(name, assembly); // those made of shared parts only

  const sharedParts = new Map<string, WeakRef<Part>>();
  const read = async (name: string): Promise<Part> => {
    const shared = owner.get(name) === undefined ? users.has(name) : users.get(name)!.length > 1;
    const before = shared ? sharedParts.get(name)?.deref() : undefined;
    if (before) return before;
    const { file, tensor } = stored.get(name)!;
    const part = await readPart(file, tensor);
    if (shared) sharedParts.set(name, new WeakRef(part));
    return part;
  };
  const weight = (name: string) => {
    const found = weights.get(name);
    if (found === undefined)
      throw new InputError(`${shards[0]?.file.name ?? "model"}: has no tensor ${name}`);
    return found;
  };
  return {
    names: [...weights.keys()],
    has: (name) => weights.has(name),
    shape: (name) => weight(name).shape,
    format: (name) => weight(name).format,
    bytes: (name) =>
      weight(name).stored.reduce((bytes, part) => {
        // A part that several weights use is counted by the one that it belongs to.
        const { from, to } = stored.get(part)!.tensor;
        return bytes + ((owner.get(part) ?? part) === name ? to - from : 0);
      }, 0),
    read: async (name) => weight(name).assemble(read),
    close: async () => {
      for (const { file } of shards) await file.close();
    },
  };
}

function plain(name: string, { dtype, shape }: StoredTensor): Assembly {
  const format = formatOfDtype(dtype);
  return {
    shape,
    format,
    stored: [name],
    owned: [name],
    assemble: async (read) => packedWeight(shape, format, { data: await read(name) }),
  };
}

/** The entries of `quantization_config`, checked for method and version. */
function lowbitWeights(quantization: Json | undefined): { readonly [name: string]: Json } {
  if (quantization === undefined || quantization === null) return {};
  if (!isObject(quantization)) throw new InputError("config.json: quantization_config needs an object");
  const { quant_method: method, version, weights = {} } = quantization;
  if (method !== "lowbit") {
    throw new InputError(
      `config.json: the weights were quantized by ${JSON.stringify(method ?? null)}, which lowbit does not read; use the unquantized model`,
    );
  }
  if (typeof version !== "number" || version > LOWBIT_VERSION) {
    throw new InputError(
      `config.json: quantization_config has version ${JSON.stringify(version ?? null)}, this lowbit knows up to ${LOWBIT_VERSION}; update lowbit`,
    );
  }
  if (!isObject(weights)) throw new InputError("config.json: quantization_config.weights needs an object");
  return weights;
}
