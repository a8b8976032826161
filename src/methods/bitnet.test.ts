import { describe, expect, it } from "vitest";
import { Tape } from "../autograd/tape.ts";
import { openReference } from "../backends/reference.ts";
import type { GroupFormat } from "../formats/format.ts";
import { decodeWeight, formatByName } from "../formats/index.ts";
import { configJson, describe as modelOf } from "../models/index.ts";
import type { ModelConfig } from "../models/model.ts";
import { generator, normals } from "../tensor/random.ts";
import { hostTensor, matrix } from "../tensor/tensor.ts";
import { trainedMethods } from "./index.ts";
import type { TrainedMethod, TrainedRounding } from "./method.ts";

// Methods that round activations too: BitNet, its two successors, LLM-QAT.

const backend = openReference();
const at = { step: 0, steps: 1 };
const [rows, cols] = [5, 256];
const W = matrix(rows, cols, normals(generator(1), rows * cols, 0.9));

function withOptions(name: keyof typeof trainedMethods, given: object = {}): TrainedRounding {
  const method: TrainedMethod = trainedMethods[name];
  return method.with(method.options.parse(given));
}

const sizes = {
  vocab_size: 11,
  max_position_embeddings: 16,
  hidden_size: 16,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  intermediate_size: 24,
};
const plain = modelOf(sizes).config;
const changed = (rounding: TrainedRounding): ModelConfig => rounding.modelChanges!(plain);

describe.each([
  ["bitnet", {}],
  ["bitnet-b1.58", {}],
  ["bitnet-a4.8", {}],
  ["llm-qat", {}],
  ["llm-qat", { weights: 3 }],
  ["llm-qat", { weights: 8 }],
] as const)("%s %j", (name, given) => {
  const rounding = withOptions(name, given);

  it.each([...rounding.formats])(
    "packs what training's forward pass gives, weight by weight: %s",
    async (format) => {
      const forward = backend.scope(() =>
        rounding.forward(backend, backend.upload(hostTensor([rows, cols], W.data)), {}, at),
      );
      const packed = await rounding.export(W, formatByName(format) as GroupFormat, { backend }, {}, at);
      expect(decodeWeight(packed).data).toEqual(await backend.read(forward));
    },
  );

  it("passes the gradient straight through, within its limit", async () => {
    const parameter = backend.upload(hostTensor([rows, cols], W.data));
    const tape = new Tape(backend, [parameter]);
    const dy = normals(generator(2), rows * cols);
    tape.backward(rounding.forward(tape, parameter, {}, at), backend.upload(hostTensor([rows, cols], dy)));
    const limit = name === "llm-qat" ? 2 : Number.POSITIVE_INFINITY;
    const expected = dy.map((d, i) => (Math.abs(W.data[i]) < limit ? d : 0));
    expect(expected.includes(0)).toBe(name === "llm-qat"); // some weights are beyond 2
    expect(await backend.read(tape.gradients.get(parameter)!)).toEqual(expected);
  });

  it("changes a model that its config describes again", () => {
    const config = changed(rounding);
    expect(modelOf(configJson(config)).config).toEqual({
      ...config,
      ...(config.subNorm === false ? { subNorm: undefined } : {}),
    });
  });
});

it("weights are those of the papers", async () => {
  const upload = backend.upload(hostTensor([rows, cols], W.data));
  const forward = async (name: keyof typeof trainedMethods, given: object = {}) =>
    (await backend.read(withOptions(name, given).forward(backend, upload, {}, at))) as Float32Array;
  const n = rows * cols;
  const mean = W.data.reduce((sum, w) => sum + w, 0) / n;
  const magnitude = W.data.reduce((sum, w) => sum + Math.abs(w), 0) / n;
  const β = Math.f16round(magnitude);
  expect(await forward("bitnet")).toEqual(W.data.map((w) => (w < mean ? -β : β)));
  const γ = Math.f16round(magnitude + 1e-5);
  const ternary = W.data.map((w) => γ * Math.sign(w) * (Math.abs(w) > γ / 2 ? 1 : 0) + 0);
  expect((await forward("bitnet-b1.58")).map((w) => w + 0)).toEqual(ternary);
  expect(await forward("bitnet-a4.8")).toEqual(await forward("bitnet-b1.58"));
  const four = await forward("llm-qat");
  for (let r = 0; r < rows; r++) {
    const row = W.data.subarray(r * cols, (r + 1) * cols);
    const most = row.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
    const step = Math.f16round((most + 1e-6) / 7);
    for (let c = 0; c < cols; c++) {
      expect(Math.abs(four[r * cols + c] - row[c])).toBeLessThan(step / 2 + most * 2 ** -11);
      expect(Number.isInteger(four[r * cols + c] / step)).toBe(true);
    }
  }
});

it("models are those of the papers", () => {
  const absmax = { bits: 8, rule: "absmax" };
  const everywhere = { attention: absmax, attentionOutput: absmax, ffn: absmax, ffnOutput: absmax };
  expect(changed(withOptions("bitnet"))).toEqual({ ...plain, subNorm: true, activations: everywhere });
  expect(changed(withOptions("bitnet-b1.58", { squaredRelu: true, subNorm: false }))).toEqual({
    ...plain,
    subNorm: false,
    ffnActivation: "relu2",
    activations: everywhere,
  });
  expect(changed(withOptions("bitnet-b1.58", { activations: 16 }))).toEqual({ ...plain, subNorm: true });
  expect(changed(withOptions("bitnet-a4.8"))).toEqual({
    ...plain,
    subNorm: true,
    ffnActivation: "relu2",
    activations: {
      attention: { bits: 4, rule: "absmean" },
      attentionOutput: { bits: 8, rule: "absmax", share: 0.5 },
      ffn: { bits: 4, rule: "absmean" },
      ffnOutput: absmax,
    },
    cacheRounding: { bits: 3, rule: "absmax", group: plain.headDim },
  });
  const minmax = (bits: number) => ({ bits, rule: "minmax", limit: 2 });
  expect(changed(withOptions("llm-qat", { weights: 4, activations: 8, cache: 4 }))).toEqual({
    ...plain,
    activations: { attention: minmax(8), attentionOutput: minmax(8), ffn: minmax(8), ffnOutput: minmax(8) },
    cacheRounding: minmax(4),
  });
  expect(changed(withOptions("llm-qat", { activations: 16, cache: 16 }))).toEqual(plain);
});

it("a format without the levels is refused", async () => {
  const wrong = withOptions("bitnet").export(W, formatByName("iq4_nl") as GroupFormat, { backend }, {}, at);
  await expect(wrong).rejects.toThrow(/^bitnet: iq4_nl has no level .*; use binary or /);
});
