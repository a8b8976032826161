import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { openReference } from "../backends/reference.ts";
import { DELTA_KEY, openModel } from "../files/index.ts";
import { decodeWeight } from "../formats/index.ts";
import { tensorsOf } from "../kernels/compound.ts";
import { hiddenStates } from "../models/run.ts";
import { generator, normals } from "../tensor/random.ts";
import { type DeltaOptions, delta } from "./delta.ts";
import { evaluate } from "./evaluate.ts";
import { generate } from "./generate.ts";
import { inspect } from "./inspect.ts";
import { load, loadDelta } from "./load.ts";
import { model, text, writeTinyModel } from "./tiny-model.suite.ts";

const linears = model.tensors.filter(({ role }) => role === "linear").map(({ name }) => name);
const calibration = { name: "tale.txt", text };
/** A matrix that fine-tuning left alone, and a norm that it changed. */
const [still, norm] = [linears[3], "model.norm.weight"];

let folder: string;
const at = (name: string) => join(folder, name);

function run(options: Partial<DeltaOptions>) {
  return delta({ model: at("tuned"), base: at("base"), output: at("out"), backend: "reference", ...options });
}

async function floats(spec: string, name: string): Promise<Float32Array> {
  const file = await openModel(spec);
  const { data } = decodeWeight(await file.source.read(name));
  await file.close();
  return data;
}

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "lowbit-delta-"));
  await writeTinyModel(at("base"));
  const random = generator(77);
  await writeTinyModel(at("tuned"), (name, data) => {
    if (name === norm) data.fill(1.25);
    if (!linears.includes(name) || name === still) return;
    for (const [i, noise] of normals(random, data.length).entries()) data[i] += 0.02 * noise;
  });
  await writeTinyModel(at("other"), (_, data) => void (data[0] += 1));
  await run({ output: at("bits") });
  await run({ output: at("vectors"), method: "delta-come" });
});
afterAll(() => rmSync(folder, { recursive: true }));

it("holds α·sign(Δ) of what changed, tensors that are no matrices whole, and nothing of what did not", async () => {
  const record = JSON.parse(readFileSync(join(at("bits"), "record.json"), "utf8"));
  expect(record.matrices.map(({ name }: { name: string }) => name)).toEqual(
    linears.filter((name) => name !== still),
  );
  expect(record.whole).toEqual([{ name: norm, bytes: 4 * 64 }]);
  const config = JSON.parse(readFileSync(join(at("bits"), "config.json"), "utf8"));
  expect(config[DELTA_KEY].base).toBe("base");
  const name = linears[0];
  const [W, B, Ŵ] = await Promise.all(
    ["tuned", "base", "base+DELTA"].map((spec) =>
      floats(spec === "base+DELTA" ? `${at("base")}+${at("bits")}` : at(spec), name),
    ),
  );
  const α = W.reduce((sum, w, i) => sum + Math.abs(w - B[i]), 0) / W.length;
  for (const [i, ŵ] of Ŵ.entries()) expect(ŵ - B[i]).toBeCloseTo(W[i] - B[i] < 0 ? -α : α, 4);
  // What is alike is the base's own, a norm the tuned model's.
  expect(await floats(at("bits"), still)).toEqual(await floats(at("base"), still));
  expect(await floats(at("bits"), norm)).toEqual(await floats(at("tuned"), norm));
});

it("opens with its base beside it or given, and every verb takes both", async () => {
  const both = `${at("base")}+${at("bits")}`;
  const [alone, given] = await Promise.all([inspect({ model: at("bits") }), inspect({ model: both })]);
  expect(given.name).toBe("base+bits");
  expect(given.tensors).toEqual(alone.tensors);
  expect(given.tensors.find(({ name }) => name === linears[0])!.format).toBe("sum(f32, binary)");
  expect(given.container).toMatch(/^safetensors, with a delta of \d+ bytes$/);
  const { tokens } = await generate({
    model: both,
    prompt: "It was",
    tokens: 2,
    seed: 1,
    backend: "reference",
  });
  expect(tokens).toBeGreaterThan(0);
  mkdirSync(at("elsewhere"));
  cpSync(at("bits"), join(at("elsewhere"), "bits"), { recursive: true });
  await expect(openModel(join(at("elsewhere"), "bits"))).rejects.toThrow(
    "bits: is a delta over base, which is not beside it; give both, as BASE+bits",
  );
});

it("a base of other weights, a whole model in the delta's place and a damaged head are refused by name", async () => {
  await expect(openModel(`${at("other")}+${at("bits")}`)).rejects.toThrow(
    /^bits: is a delta over base with SHA-256 [0-9a-f]{12}…, other has [0-9a-f]{12}…; give the model/,
  );
  await expect(openModel(`${at("base")}+${at("tuned")}`)).rejects.toThrow(
    "tuned: is a whole model, not a delta",
  );
  await expect(openModel(`${at("bits")}+${at("bits")}`)).rejects.toThrow("base+bits has ");
  const damaged = at("damaged");
  cpSync(at("bits"), damaged, { recursive: true });
  const config = JSON.parse(readFileSync(join(damaged, "config.json"), "utf8"));
  const withHead = (head: object) =>
    writeFileSync(join(damaged, "config.json"), JSON.stringify({ ...config, [DELTA_KEY]: head }));
  withHead({ base: "base" });
  await expect(openModel(damaged)).rejects.toThrow(`config.json: ${DELTA_KEY} needs the base's name`);
  withHead({ ...config[DELTA_KEY], base: "../" });
  await expect(openModel(damaged)).rejects.toThrow("which is not beside it");
  withHead({ ...config[DELTA_KEY], added: ["model.none.weight"] });
  await expect(openModel(damaged)).rejects.toThrow(
    "delta: model.none.weight to be added is none, the base's is none",
  );
});

it("bad choices are refused before any work", async () => {
  await expect(run({ method: "bitdleta" })).rejects.toThrow("did you mean bitdelta");
  await expect(run({ steps: 5 })).rejects.toThrow("scales are tuned on text");
  await expect(run({ method: "delta-come", steps: 5 })).rejects.toThrow("steps tune the scales of bitdelta");
  await expect(run({ method: "rtn" })).rejects.toThrow("rtn rounds to a format; give one with --format");
  await expect(evaluate({ models: ["a", "b"], deltas: ["c"], text: calibration })).rejects.toThrow(
    "deltas are over one model, got 2",
  );
});

it("two deltas over one base share its tensors; freeing them leaves it as it was", async () => {
  const backend = openReference();
  try {
    const ids = Int32Array.of(5, 6, 7);
    const base = await load(at("base"), backend, { positions: 8 });
    const outputOf = async (loaded: typeof base) => {
      const hidden = hiddenStates(loaded, ids);
      const values = await backend.read(hidden);
      backend.free(hidden);
      return values;
    };
    const alone = backend.bytesInUse();
    const before = await outputOf(base);
    const both = await Promise.all(
      ["bits", "vectors"].map((name) => loadDelta(base, at(name), { positions: 8 })),
    );
    const more = backend.bytesInUse() - alone;
    expect(more).toBeLessThan(alone / 2);
    const inBase = new Set([...base.weights.values()].flatMap((t) => [...tensorsOf(t)]));
    for (const { weights } of both) {
      expect(tensorsOf(weights.get(linears[0])!).has(base.weights.get(linears[0])!)).toBe(true);
      expect(weights.get(still)).toBe(base.weights.get(still));
      const own = [...weights.values()].flatMap((t) => [...tensorsOf(t)]).filter((t) => !inBase.has(t));
      expect(own.length).toBeGreaterThan(0);
    }
    // Together with the base each is what its folder and the base's are when they are opened as one.
    const whole = await load(`${at("base")}+${at("bits")}`, backend, { positions: 8 });
    const [shared, single] = [await outputOf(both[0]), await outputOf(whole)];
    for (const [i, x] of shared.entries()) expect(x).toBeCloseTo(single[i], 4);
    await whole.free();
    for (const each of both) await each.free();
    expect(backend.bytesInUse()).toBe(alone);
    expect(await outputOf(base)).toEqual(before);
    await expect(loadDelta(base, at("tuned"))).rejects.toThrow("tuned: is a whole model");
    await base.free();
  } finally {
    backend.dispose();
  }
});

it("evaluates a base once with each of its deltas; both are nearer to the tuned model than the base is", async () => {
  const { models } = await evaluate({
    models: [at("base")],
    deltas: [at("bits"), at("vectors")],
    reference: at("tuned"),
    text: { name: "tale.txt", text: text.slice(0, 300) },
    backend: "reference",
  });
  expect(models.map(({ name }) => name)).toEqual(["base", "base+bits", "base+vectors"]);
  const [base, ...deltas] = models.map(({ divergence }) => divergence!.klMean);
  for (const one of deltas) expect(one).toBeLessThan(0.9 * base);
});

it("tuning scales brings the logits nearer, and one scale of a matrix stays one", async () => {
  const record = await run({
    output: at("distilled"),
    calibration,
    steps: 12,
    batch: 2,
    length: 16,
    rate: 0.05,
  });
  expect(record.distilled!.after).toBeLessThan(record.distilled!.before);
  const name = linears[0];
  const [B, Ŵ, plain] = await Promise.all(
    ["base", "distilled", "bits"].map((spec) => floats(at(spec), name)),
  );
  const sizes = new Set(Ŵ.map((ŵ, i) => Math.f16round(Math.abs(ŵ - B[i]) * 64)));
  expect(Math.max(...sizes) / Math.min(...sizes)).toBeLessThan(1.01);
  expect(Ŵ).not.toEqual(plain);
});
