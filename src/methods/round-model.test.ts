import { readdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { expect, it } from "vitest";
import { openReference } from "../backends/reference.ts";
import { decodeWeight, formatByName } from "../formats/index.ts";
import { rounding } from "./compressor.ts";
import { gptq } from "./gptq.ts";
import type { Context, Rounding } from "./method.ts";
import { type RoundingPlan, roundedModel } from "./round-model.ts";
import { rtn } from "./rtn.ts";
import { sourceOf, tinyModel } from "./tiny-model.suite.ts";

const calibration = [Int32Array.from({ length: 32 }, (_, i) => (7 * i) % 50), Int32Array.of(1, 2, 3)];
const int4 = formatByName("int4");
const plan: RoundingPlan = { linear: rounding(gptq, int4), calibration };

it("spills activations to disk beyond the limit, with the same result, and frees everything", async () => {
  const backend = openReference();
  const model = tinyModel(2);
  const input = { model, source: sourceOf(model), name: "tiny", backend };
  const temporaries = () => readdirSync(tmpdir()).filter((name) => name.startsWith("lowbit-activations-"));
  const held = await roundedModel(input, plan);
  expect(backend.bytesInUse()).toBe(0);
  expect(await roundedModel(input, { ...plan, activationBytes: 0 })).toEqual(held);
  expect(backend.bytesInUse()).toBe(0);
  expect(temporaries()).toEqual([]);
});

it("holds one block's weights at a time, however many blocks there are", async () => {
  const peak = async (layers: number) => {
    const backend = openReference();
    const model = tinyModel(layers);
    let most = 0;
    const source = sourceOf(model, () => {
      most = Math.max(most, backend.bytesInUse());
    });
    await roundedModel({ model, source, name: "tiny", backend }, plan);
    return most;
  };
  expect(await peak(5)).toBe(await peak(2));
});

it("gives layers that share an input the same H, and each input its own", async () => {
  const seen: { H: Float32Array; cols: number }[] = [];
  const spy: Rounding = {
    ...rtn,
    calibrated: true,
    async quantize(W, format, context: Context) {
      seen.push({ H: (await context.backend.read(context.H!)) as Float32Array, cols: W.cols });
      return rtn.quantize(W, format, context);
    },
  };
  const backend = openReference();
  const model = tinyModel(1);
  await roundedModel(
    { model, source: sourceOf(model), name: "tiny", backend },
    { ...plan, linear: rounding(spy, int4) },
  );
  expect(seen.map(({ cols }) => cols)).toEqual([32, 32, 32, 32, 32, 32, 48]);
  const [q, k, v, o, gate, up] = seen.map(({ H }) => H);
  expect(k).toEqual(q);
  expect(v).toEqual(q);
  expect(up).toEqual(gate);
  expect(o).not.toEqual(q);
  expect(gate).not.toEqual(o);
  // The trace of H is 2·mean‖x‖²; the inputs of q are normalized rows, whose ‖x‖² is dim.
  const trace = Array.from({ length: 32 }, (_, i) => q[33 * i]).reduce((a, b) => a + b);
  expect(trace).toBeGreaterThan(63);
  expect(trace).toBeLessThan(64.001);
});

it("sends the activations of the rounded blocks into the next one", async () => {
  const backend = openReference();
  const model = tinyModel(2);
  const source = sourceOf(model);
  const H = async (linear: string, sequential: boolean) => {
    const found = new Map<string, Float32Array>();
    let next = 0;
    const names = model.tensors.filter(({ role }) => role === "linear").map(({ name }) => name);
    const spy: Rounding = {
      ...rtn,
      async quantize(W, format, context) {
        found.set(names[next++], (await backend.read(context.H!)) as Float32Array);
        return rtn.quantize(W, format, context);
      },
    };
    const steps = { ...plan, linear: rounding(spy, formatByName(linear)), trueSequential: sequential };
    await roundedModel({ model, source, name: "tiny", backend }, steps);
    return (name: string) => found.get(`model.layers.${name}.weight`);
  };
  const fine = await H("int8", false);
  const coarse = await H("int2", false);
  const sequential = await H("int2", true);
  expect(coarse("0.mlp.down_proj")).toEqual(fine("0.mlp.down_proj"));
  expect(coarse("1.self_attn.q_proj")).not.toEqual(fine("1.self_attn.q_proj"));
  expect(sequential("0.self_attn.q_proj")).toEqual(coarse("0.self_attn.q_proj"));
  expect(sequential("0.mlp.down_proj")).not.toEqual(coarse("0.mlp.down_proj"));
});

it("keeps embedding and head in 16 bits and norms as they are", async () => {
  const backend = openReference();
  const model = tinyModel(1);
  const source = sourceOf(model);
  const { weights, layers } = await roundedModel(
    { model, source, name: "tiny", backend },
    { linear: rounding(rtn, formatByName("int8")) },
  );
  expect([...weights.keys()].sort()).toEqual([...source.names].sort());
  expect(layers).toHaveLength(7);
  expect(weights.get("model.embed_tokens.weight")!.expression).toMatchObject({ format: "f16" });
  const norm = "model.norm.weight";
  expect(decodeWeight(weights.get(norm)!)).toEqual(decodeWeight(await source.read(norm)));
});
