import { describe, expect, test } from "vitest";
import { openReference } from "../backends/reference.ts";
import { generator } from "../tensor/random.ts";
import { hostTensor } from "../tensor/tensor.ts";
import { configJson, describe as modelOf } from "./index.ts";
import { initialize } from "./initialize.ts";
import { kvCache } from "./kv-cache.ts";
import { ropeTable } from "./rope-table.ts";
import { hiddenStates, type Running } from "./run.ts";

const backend = openReference();
const sizes = {
  vocab_size: 23,
  max_position_embeddings: 20,
  hidden_size: 16,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  intermediate_size: 24,
  rms_norm_eps: 1e-5,
};
const everything = {
  ...sizes,
  model_type: "lowbit_llama",
  hidden_act: "relu2",
  lowbit: {
    sub_norm: true,
    output_norm: true,
    activations: {
      attention: { bits: 4, rule: "absmean" },
      attentionOutput: { bits: 8, rule: "absmax", share: 0.5 },
      ffn: { bits: 3, rule: "minmax", group: 8 },
      ffnOutput: { bits: 8, rule: "absmax", limit: 2 },
    },
    cache_rounding: { bits: 3, rule: "absmax", group: 4 },
  },
};

function running(config: object): Running {
  const model = modelOf(config as { [key: string]: unknown });
  const weights = new Map(
    Array.from(initialize(model, generator(3), 0.5), ([name, value]) => [name, backend.upload(value)]),
  );
  return { model, backend, weights, rope: backend.upload(ropeTable(model.config, 20)) };
}

const ids = Int32Array.of(3, 22, 0, 7, 7, 1, 15, 9, 2, 11, 4);

describe("a model with all that low-bit training changes", () => {
  test("is described by its own config.json, under a name that plain readers do not know", () => {
    const { config } = modelOf(everything);
    const json = configJson(config);
    expect(json.lowbit).toEqual(everything.lowbit);
    expect([json.model_type, json.hidden_act]).toEqual(["lowbit_llama", "relu2"]);
    expect(modelOf(json).config).toEqual(config);
    expect(configJson(modelOf(sizes).config)).not.toHaveProperty("lowbit");
    expect(configJson(modelOf({ ...sizes, hidden_act: "relu2" }).config).model_type).toBe("llama");
  });

  test("has BitNet's norms before o and down, named as Hugging Face names them", () => {
    const added = modelOf(everything).tensors.filter(({ name }) => name.includes("sub_norm"));
    expect(added).toEqual(
      [0, 1].flatMap((block) => [
        { name: `model.layers.${block}.self_attn.attn_sub_norm.weight`, shape: [16], role: "norm", block },
        { name: `model.layers.${block}.mlp.ffn_sub_norm.weight`, shape: [24], role: "norm", block },
      ]),
    );
    expect(modelOf(everything).tensors).toHaveLength(modelOf(sizes).tensors.length + 4);
  });

  test("gives the same states token by token from a cache as at once", async () => {
    const model = running(everything);
    const whole = await backend.read(hiddenStates(model, ids));
    const cache = kvCache(backend, model.model.config, 20);
    const parts: number[] = [];
    for (const [from, to] of [
      [0, 4],
      [4, 5],
      [5, 11],
    ]) {
      parts.push(...(await backend.read(hiddenStates(model, ids.subarray(from, to), cache))));
    }
    expect(Float32Array.from(parts)).toEqual(whole);
  });

  test("multiplies rounded inputs: few levels a token, half of o's inputs 0", async () => {
    const { model, weights, rope } = running(everything);
    const seen = new Map<string, { width: number; data: Float32Array }>();
    const x = model.embed(backend, backend.upload(hostTensor([11], ids)), weights);
    const tap = (name: string, input: { shape: readonly number[] }) => {
      seen.set(name.split(".").at(-2)!, { width: input.shape[1], data: input as unknown as Float32Array });
    };
    model.block(backend, 0, x, weights, { batch: 1, time: 11, from: 0 }, rope, undefined, tap);
    const levels = async (name: string) => {
      const { width, data } = seen.get(name)!;
      const values = (await backend.read(data as never)) as Float32Array;
      return Array.from({ length: 11 }, (_, t) => values.subarray(t * width, (t + 1) * width));
    };
    for (const name of ["q_proj", "k_proj", "v_proj"]) {
      for (const row of await levels(name)) expect(new Set(row).size).toBeLessThanOrEqual(16);
    }
    for (const row of await levels("o_proj")) {
      expect(row.filter((value) => value === 0).length).toBeGreaterThanOrEqual(8);
    }
    for (const row of await levels("gate_proj")) {
      expect(new Set(row.subarray(0, 8).map((v) => v + 0)).size).toBeLessThanOrEqual(7);
    }
    expect(seen.get("down_proj")!.width).toBe(24);
  });
});

test("what a config may not say", () => {
  const refused = (lowbit: unknown, message: string) =>
    expect(() => modelOf({ ...sizes, lowbit }), JSON.stringify(lowbit)).toThrow(message);
  const activation = (attention: unknown) => ({ activations: { attention } });
  refused([], "config: lowbit must be an object");
  refused({ subnorm: true }, "config: lowbit.subnorm is not supported; known: sub_norm");
  refused({ sub_norm: 1 }, "config: lowbit.sub_norm must be true or false, got 1");
  refused({ activations: { heads: {} } }, "config: lowbit.activations.heads is not supported");
  refused(activation({ rule: "absmax" }), "lowbit.activations.attention.bits must be a whole number from 2");
  refused(activation({ bits: 17, rule: "absmax" }), "attention.bits must be a whole number from 2 to 16");
  refused(activation({ bits: 8, rule: "max" }), "attention.rule must be one of absmax, absmean");
  refused(activation({ bits: 8, rule: "absmax", group: 5 }), "attention.group must be a divisor of 16");
  refused(activation({ bits: 8, rule: "absmax", share: 0 }), "attention.share must be above 0");
  refused(activation({ bits: 8, rule: "absmax", limit: -1 }), "attention.limit must be a positive number");
  refused(
    { cache_rounding: { bits: 8, rule: "absmax", group: 16 } },
    "cache_rounding.group must be a divisor of 8",
  );
  expect(() => modelOf({ ...sizes, hidden_act: "gelu" })).toThrow(
    'config: hidden_act "gelu" is not supported',
  );
});
