import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import type { Job } from "../record/record.ts";
import { InputError } from "../tensor/tensor.ts";
import { type CompressOptions, compress } from "./compress.ts";
import { text, writeTinyModel } from "./tiny-model.suite.ts";

const calibration = { name: "tale.txt", text };
const reason = new Error("enough");

let folder: string;
let source: string;
const out = () => join(folder, "out");
const partial = () => join(folder, "out.partial");
const keptFile = (name: string) => join(partial(), `model.layers.${name}.weight.safetensors`);

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "lowbit-resume-"));
  source = join(folder, "source");
  await writeTinyModel(source);
});
afterEach(() => {
  for (const path of [out(), partial()]) rmSync(path, { recursive: true, force: true });
});
afterAll(() => rmSync(folder, { recursive: true }));

type Choices = Partial<CompressOptions>;
const gptq: Choices = { method: "gptq", format: "int3-g32", calibration };
const reallm: Choices = { method: "reallm", options: { rounds: 1, length: 1 }, calibration };
const plans: { readonly [name: string]: Choices } = {
  gptq,
  "gptq with trueSequential": { ...gptq, trueSequential: true },
  reallm,
  "reallm without calibration": { ...reallm, calibration: undefined },
  "reallm with one book for all matrices": {
    ...reallm,
    options: { bits: 2, length: 4, share: true, rank: 0, rounds: 1 },
  },
  "reallm with tuning": { ...reallm, tuning: { epochs: 1, parts: ["scales"], rank: 1 } },
};

const small = { samples: 2, context: 16 };

async function run(choices: Choices) {
  const warnings: string[] = [];
  const tasks = new Set<string>();
  const job: Job = {
    onWarning: (message) => warnings.push(message),
    onProgress: ({ task }) => tasks.add(task),
  };
  const record = await compress({ model: source, output: out(), ...small, ...choices }, job);
  return { ...record, warnings, tasks };
}

/** The same until so many matrices are finished. */
async function interrupted(choices: Choices, finished: number): Promise<string[]> {
  const warnings: string[] = [];
  const controller = new AbortController();
  const job: Job = {
    signal: controller.signal,
    onWarning: (message) => warnings.push(message),
    onProgress: ({ task, done }) => {
      if (task === "compress" && done >= finished) controller.abort(reason);
    },
  };
  await expect(compress({ model: source, output: out(), ...small, ...choices }, job)).rejects.toBe(reason);
  expect(existsSync(out())).toBe(false);
  expect(readdirSync(folder).filter((name) => name.startsWith("."))).toEqual([]);
  return warnings;
}

/** What is in the finished folder, but for the record, which holds times. */
function bytes() {
  return Object.fromEntries(
    ["config.json", "model.safetensors"].map((name) => [
      name,
      readFileSync(join(out(), name)).toString("hex"),
    ]),
  );
}

/** Names of the matrices that are kept. */
function kept(): string[] {
  return existsSync(partial()) ? readdirSync(partial()).filter((name) => name.endsWith(".safetensors")) : [];
}

describe.each(Object.entries(plans))("%s", (_, choices) => {
  const calibrated = choices.calibration !== undefined;
  const perBlock = choices.tuning !== undefined;

  it("interrupted again and again, gives the bytes and layers of a run that was not", async () => {
    const whole = await run(choices);
    const expected = bytes();
    expect(existsSync(partial())).toBe(false);
    rmSync(out(), { recursive: true });

    for (const k of perBlock ? [3, 9] : [1, 5, 10]) {
      const warnings = await interrupted(choices, k);
      expect(kept()).toHaveLength(perBlock ? 7 * Math.floor(k / 7) : k);
      if (kept().length > 0)
        expect(warnings.at(-1)).toMatch(
          /^\d+ (matrix is|matrices are) kept in out\.partial; the same command/,
        );
    }
    const count = kept().length;
    const resumed = await run(choices);
    expect(resumed.warnings.at(-1)).toContain(`out.partial: ${count} matrices are kept from before`);
    expect(bytes()).toEqual(expected);
    expect(resumed.layers).toEqual(whole.layers);
    expect(existsSync(partial())).toBe(false);
    if (perBlock) expect(resumed.tasks).not.toContain("tune block 0");
    if (calibrated) expect(whole.layers.every(({ errorOf }) => errorOf === "output")).toBe(true);
  });
});

describe("what is kept", () => {
  it("is made again where a file is damaged or missing, wherever that is in a block", async () => {
    for (const choices of [gptq, plans["gptq with trueSequential"]]) {
      await run(choices);
      const expected = bytes();
      rmSync(out(), { recursive: true });
      await interrupted(choices, 12);
      truncateSync(keptFile("0.self_attn.q_proj"), 300);
      rmSync(keptFile("0.self_attn.o_proj"));
      writeFileSync(keptFile("0.mlp.gate_proj"), "{}");
      cpSync(keptFile("0.mlp.down_proj"), keptFile("0.mlp.up_proj"));
      cpSync(keptFile("0.self_attn.k_proj"), keptFile("0.self_attn.v_proj"));
      const { warnings } = await run(choices);
      const damaged = warnings.filter((message) => message.endsWith("this matrix is made again"));
      expect(damaged).toHaveLength(4);
      for (const name of ["q_proj", "v_proj", "gate_proj", "up_proj"])
        expect(damaged.some((message) => message.includes(`${name}.weight.safetensors is damaged`))).toBe(
          true,
        );
      expect(bytes()).toEqual(expected);
    }
  });

  it("is refused where shape, numbers, kind or note are not those of the matrix", async () => {
    await run(gptq);
    const expected = bytes();
    rmSync(out(), { recursive: true });
    const name = "0.self_attn.q_proj";
    const changed: [from: string, to: string][] = [
      ['\\"relativeError\\":', '\\"relativeErrow\\":'],
      ['\\"format\\":\\"int3-g32\\",\\"shape', '\\"format\\":\\"int3-g64\\",\\"shape'],
      ["[64,64]", "[32,64]"],
      ['\\"errorOf\\":\\"output\\"', '\\"errorOf\\":\\"outpux\\"'],
    ];
    for (const [from, to] of changed) {
      await interrupted(gptq, 2);
      const before = readFileSync(keptFile(name), "latin1");
      expect(before).toContain(from);
      writeFileSync(keptFile(name), before.replace(from, to), "latin1");
      const { warnings } = await run(gptq);
      expect(warnings.filter((message) => message.endsWith("made again"))).toHaveLength(1);
      expect(bytes()).toEqual(expected);
      rmSync(out(), { recursive: true });
    }
    await interrupted(gptq, 2);
    const file = readFileSync(keptFile(name));
    const header = 8 + Number(file.readBigUInt64LE(0));
    const scales = JSON.parse(file.toString("utf8", 8, header))[`model.layers.${name}.weight.scales`];
    file.writeUInt16LE(0x7c00, header + scales.data_offsets[0]); // infinity
    writeFileSync(keptFile(name), file);
    expect((await run(gptq)).warnings.join()).toContain("infinity");
    expect(bytes()).toEqual(expected);
  });

  it.each([
    ["other settings", { damping: 0.02 }],
    ["another seed", { seed: 1 }],
    ["another text", { calibration: { name: "tale.txt", text: text.toUpperCase() } }],
  ] as [string, Choices][])("is of no use with %s: all begins anew, with a warning", async (_, other) => {
    await run({ ...gptq, ...other });
    const expected = bytes();
    rmSync(out(), { recursive: true });
    await interrupted(gptq, 3);
    const { warnings } = await run({ ...gptq, ...other });
    expect(warnings.join()).toContain("out.partial: holds matrices of other settings");
    expect(warnings.join()).not.toContain("kept from before");
    expect(bytes()).toEqual(expected);
    expect(existsSync(partial())).toBe(false);
  });

  it("is of no use for another model", async () => {
    const other = join(folder, "other");
    await writeTinyModel(other, (_, data) => {
      data[0] += 0.5;
    });
    await interrupted(gptq, 3);
    const { warnings } = await run({ ...gptq, model: other });
    expect(warnings.join()).toContain("another model");
    rmSync(other, { recursive: true });
  });

  it("is nothing for round to nearest, which is quicker than the disk", async () => {
    await interrupted({ method: "rtn", format: "int4" }, 5);
    expect(existsSync(partial())).toBe(false);
  });

  it("stands beside nothing else: a folder of that name that we did not make is left alone", async () => {
    mkdirSync(partial());
    writeFileSync(join(partial(), "a.safetensors"), "theirs");
    await expect(run(gptq)).rejects.toThrow(InputError);
    await expect(run(gptq)).rejects.toThrow("out.partial: finished matrices are kept under this name");
    cpSync(source, partial(), { recursive: true });
    await expect(run(gptq)).rejects.toThrow("out.partial: finished matrices are kept under this name");
    expect(readFileSync(join(partial(), "a.safetensors"), "utf8")).toBe("theirs");
    expect(existsSync(out())).toBe(false);
  });
});

describe("a dry run", () => {
  const dry = (choices: Choices) =>
    compress({ model: source, output: out(), ...small, ...choices, dryRun: true });

  it.each([
    ["reallm", { ...reallm, options: { ...reallm.options, rank: 2 } }],
    ["reallm without calibration", plans["reallm without calibration"]],
    ["reallm with tuning", plans["reallm with tuning"]],
    ["qtip", { method: "qtip", bits: 2, calibration }],
    [
      "a mix",
      {
        method: "lq-lora",
        options: { rank: 1, rounds: 1 },
        mix: { bits: 6, of: [{ format: "int2-offset" }, { format: "int4-offset" }] },
      },
    ],
    ["gptq", { ...gptq, others: "int8" }],
    ["rtn", { method: "rtn", format: "int4-g32" }],
  ] as [string, Choices][])(
    "of %s writes nothing and says what the run then gives",
    async (name, choices) => {
      const before = readdirSync(folder);
      const said = await dry(choices);
      expect(readdirSync(folder)).toEqual(before);
      const done = await run(choices);
      expect(said.method).toBe(done.method);
      expect(said.shapes.map(({ matrices }) => matrices)).toEqual([4, 4, 4, 2]);
      expect(said.compressionSeconds).toBeCloseTo(
        said.shapes.reduce((sum, { matrices, seconds }) => sum + matrices * seconds, 0),
        9,
      );
      if (name === "a mix")
        return expect(said.bitsPerWeight.linear).toBeCloseTo(done.bitsPerWeight.linear, 0);
      // Signs and books that matrices share are stored and counted once; the dry run counts them for each.
      const linearWeights = said.shapes.reduce(
        (sum, { shape: [r, c], matrices }) => sum + r * c * matrices,
        0,
      );
      const over = (8 * (said.bytes.after - done.bytes.after)) / linearWeights;
      expect(said.bitsPerWeight.linear - done.bitsPerWeight.linear).toBeGreaterThanOrEqual(0);
      expect(said.bitsPerWeight.linear - done.bitsPerWeight.linear).toBeLessThanOrEqual(over + 1e-9);
      if (done.format !== "parts") expect(said.bitsPerWeight).toEqual(done.bitsPerWeight);
      for (const { format, bits, split } of said.shapes) {
        const same = done.layers.filter((layer) => layer.format === format && layer.bits === bits);
        expect(same.length).toBeGreaterThan(0);
        expect(Object.values(split).reduce((a, b) => a + b, 0)).toBeCloseTo(bits, 9);
      }
      expect(said.bytes.before).toBe(done.bytes.before);
      expect(said.bytes.after).toBeGreaterThanOrEqual(done.bytes.after);
      expect(said.bytes.after).toBeLessThan(1.1 * done.bytes.after);
      if (done.format !== "parts") expect(said.bytes.after).toBe(done.bytes.after);
    },
  );

  it("refuses what the run refuses", async () => {
    await expect(dry({ method: "gptq", format: "int4" })).rejects.toThrow("needs calibration text");
    await expect(dry({ method: "rtn", format: "int4-g128" })).rejects.toThrow("whole groups of 128");
    mkdirSync(out());
    writeFileSync(join(out(), "notes.txt"), "mine");
    await expect(dry(gptq)).rejects.toThrow("was not made by lowbit");
  });
});
