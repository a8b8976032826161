import { readdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { expect, it } from "vitest";
import { openReference } from "../backends/reference.ts";
import { decodeWeight, formatByName } from "../formats/index.ts";
import { partKey } from "../record/make.ts";
import { onlyPart, partsOf } from "../tensor/weight.ts";
import { decomposition, rounding } from "./compressor.ts";
import { gptq } from "./gptq.ts";
import type { Context, Rounding } from "./method.ts";
import { reallm } from "./reallm.ts";
import { type RoundingPlan, roundedModel } from "./round-model.ts";
import { rtn } from "./rtn.ts";
import { sourceOf, tinyModel } from "./tiny-model.suite.ts";
import { tuningSchema } from "./tune-block.ts";

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

const sentences = Array.from({ length: 10 }, (_, s) =>
  Int32Array.from({ length: 32 }, (_, i) => (7 * i * (s + 1) + s * s + i * i) % 50),
);
const tuning = tuningSchema.parse({ epochs: 3, batch: 2, rate: 0.01 });

it("tuning the scales lowers what a block loses on windows that it did not learn", async () => {
  const backend = openReference();
  const model = tinyModel(2);
  const input = { model, source: sourceOf(model), name: "tiny", backend };
  const int2 = { linear: rounding(rtn, formatByName("int2-offset")), calibration: sentences };
  const { layers, weights } = await roundedModel(input, { ...int2, tuning });
  expect(backend.bytesInUse()).toBe(0);
  for (const { tuned } of layers) expect(tuned!.after).toBeLessThan(0.9 * tuned!.before);
  const plain = await roundedModel(input, int2);
  for (const [name, weight] of plain.weights) {
    if (!name.endsWith("_proj.weight")) continue;
    const [before, after] = [weight, weights.get(name)!].map((w) => onlyPart(w).parts);
    expect(after.codes).toEqual(before.codes);
    expect(after.scales).not.toEqual(before.scales);
  }
});

it("a book of all matrices becomes one for each block when it is tuned, not one for each matrix", async () => {
  const model = tinyModel(2);
  const input = { model, source: sourceOf(model), name: "tiny", backend: openReference() };
  const linear = decomposition(reallm, { bits: 2, rank: 0, share: true });
  const booksOf = async (more: object) => {
    const { weights } = await roundedModel(input, { linear, calibration: sentences, ...more });
    const books = [...weights.values()].flatMap((w) =>
      [...partsOf(w)].filter(([path]) => path.includes("book")),
    );
    return new Set(await Promise.all(books.map(([, part]) => partKey(part))));
  };
  const before = await booksOf({});
  const after = await booksOf({ tuning });
  expect([before.size, after.size]).toEqual([1, 2]);
  expect([...after].filter((book) => before.has(book))).toEqual([]);
});

it("PV-Tuning moves codes too, and never to a larger held-out error than tuning alone", async () => {
  const backend = openReference();
  const model = tinyModel(1);
  const input = { model, source: sourceOf(model), name: "tiny", backend };
  const linear = decomposition(reallm, { bits: 2, rank: 0 });
  const plan = { linear, calibration: sentences, tuning };
  const alone = await roundedModel(input, plan);
  const codes = { share: 0.05, rounds: 3, rate: 0.1 };
  const both = await roundedModel(input, { ...plan, tuning: { ...tuning, codes } });
  expect(both.layers[0].tuned!.before).toBe(alone.layers[0].tuned!.before);
  expect(both.layers[0].tuned!.after).toBeLessThan(alone.layers[0].tuned!.after);
  const codesOf = ({ weights }: typeof both) =>
    [...weights.values()].flatMap((w) => [...partsOf(w)].filter(([path]) => path.endsWith("codes")));
  expect(codesOf(both)).not.toEqual(codesOf(alone));
  expect(backend.bytesInUse()).toBe(0);
});

it("tuning what a matrix does not have, or on one window, is refused", async () => {
  const model = tinyModel(1);
  const input = { model, source: sourceOf(model), name: "tiny", backend: openReference() };
  const linear = rounding(rtn, int4);
  const books = { ...tuning, parts: ["codebooks" as const] };
  await expect(roundedModel(input, { linear, calibration: sentences, tuning: books })).rejects.toThrow(
    "tuning: these matrices have none of codebooks; name other parts, or add a rank or magnitudes",
  );
  await expect(roundedModel(input, { linear, calibration: sentences.slice(0, 1), tuning })).rejects.toThrow(
    "tuning: needs at least 2 windows of calibration text, got 1",
  );
});
