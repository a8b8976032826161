import { writeModel } from "../files/index.ts";
import { encodeWeight, formatByName } from "../formats/index.ts";
import { configJson } from "../models/index.ts";
import { initialize } from "../models/initialize.ts";
import { llama } from "../models/llama.ts";
import type { Model } from "../models/model.ts";
import { generator } from "../tensor/random.ts";
import type { Weight } from "../tensor/weight.ts";
import { trainByteLevelBpe } from "../tokenizers/bpe-trainer.ts";

export const model = llama({
  architecture: "llama",
  vocabulary: 260,
  context: 32,
  dim: 64,
  layers: 2,
  heads: 4,
  kvHeads: 2,
  headDim: 16,
  ffn: 96,
  normEpsilon: 1e-5,
  ropeBase: 10000,
  ropePairing: "halves",
  tiedHead: false,
});
export const text = "It was the best of times, it was the worst of times, it was the age of wisdom. ".repeat(
  40,
);

/** A model of random weights, with a change to one of them. */
export async function writeTinyModel(
  path: string,
  change: (name: string, data: Float32Array) => void = () => {},
  its: Model = model,
): Promise<void> {
  const weights: [string, Weight][] = [];
  for (const [name, { shape, data }] of initialize(its, generator(1), 0.05)) {
    change(name, data as Float32Array);
    weights.push([name, encodeWeight(formatByName("f32"), shape, data as Float32Array)]);
  }
  const { tokenizer, config } = await trainByteLevelBpe([text], 260);
  const json = (name: string, value: object) => ({
    name,
    bytes: new TextEncoder().encode(JSON.stringify(value)),
  });
  await writeModel(path, { config: configJson(its.config) }, weights, {
    tokenizerFiles: [json("tokenizer.json", tokenizer), json("tokenizer_config.json", config)],
  });
}
