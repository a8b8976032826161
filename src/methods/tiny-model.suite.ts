import type { TensorSource } from "../files/file.ts";
import { encodeWeight, formatByName } from "../formats/index.ts";
import { initialize } from "../models/initialize.ts";
import { llama } from "../models/llama.ts";
import type { Model } from "../models/model.ts";
import { generator } from "../tensor/random.ts";
import type { Weight } from "../tensor/weight.ts";

/** A Llama of a few thousand weights. */
export function tinyModel(layers: number): Model {
  return llama({
    architecture: "llama",
    vocabulary: 50,
    context: 32,
    dim: 32,
    layers,
    heads: 2,
    kvHeads: 1,
    headDim: 16,
    ffn: 48,
    normEpsilon: 1e-5,
    ropeBase: 10000,
    ropePairing: "halves",
    tiedHead: false,
  });
}

/** Random weights in memory; `onRead` is called before each one is given. */
export function sourceOf(model: Model, onRead: () => void = () => {}): TensorSource {
  const weights = new Map<string, Weight>();
  for (const [name, { shape, data }] of initialize(model, generator(1), 0.1)) {
    weights.set(name, encodeWeight(formatByName("f32"), shape, data as Float32Array));
  }
  return {
    names: [...weights.keys()],
    has: (name) => weights.has(name),
    shape: (name) => weights.get(name)!.shape,
    format: () => "f32",
    bytes: (name) => 4 * weights.get(name)!.shape.reduce((a, b) => a * b, 1),
    read: async (name) => {
      onRead();
      return weights.get(name)!;
    },
    close: async () => {},
  };
}
