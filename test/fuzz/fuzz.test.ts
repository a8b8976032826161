import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { expect, test } from "vitest";
import { generator } from "../../src/tensor/random.ts";
import { InputError } from "../../src/tensor/tensor.ts";
import { attack, makeFile } from "./attack.ts";
import type { Target } from "./target.ts";
import { targets } from "./targets.ts";

/**
 * The fuzzer, a slice for each reader: about ten seconds, two minutes with LOWBIT_FUZZ=10, as continuous integration has
 * it. `npm run fuzz` does 100,000 files of each.
 */
const share = Number(process.env.LOWBIT_FUZZ ?? 1);
const SLICES: Readonly<Record<string, number>> = {
  safetensors: 10_000,
  "hf-folder": 1500,
  llama2c: 8000,
  sentencepiece: 3000,
  "tok-bin": 4000,
  "tokenizer-json": 3000,
  gguf: 2000,
};

test("every reader has its slice", () => {
  expect(Object.keys(SLICES).sort()).toEqual([...targets.keys()].sort());
});

test.each(Object.entries(SLICES))(
  "%s: every file is read or refused in one line",
  { timeout: 300_000 },
  (reader, files) => {
    const { status, stdout, stderr } = spawnSync(
      process.execPath,
      [
        join(import.meta.dirname, "fuzz.ts"),
        "--reader",
        reader,
        "--files",
        String(files * share),
        "--seed",
        "3",
      ],
      { encoding: "utf8" },
    );
    expect({ status, stderr }, stdout).toEqual({ status: 0, stderr: "" });
    const [, read, refused] = /(\d+) read, (\d+) refused, 0 findings/.exec(stdout) ?? [];
    expect(Number(read) + Number(refused)).toBe(files * share);
    // The grammar makes files that are files, and damage that is damage.
    expect(Number(read)).toBeGreaterThan(files * share * 0.1);
    expect(Number(refused)).toBeGreaterThan(files * share * 0.1);
  },
);

test("a file is made by its seed and number alone", () => {
  const target = targets.get("safetensors")!;
  expect(makeFile(target, 5, 17)).toEqual(makeFile(target, 5, 17));
  expect(makeFile(target, 5, 17).made).not.toEqual(makeFile(target, 5, 18).made);
});

test("what a reader may not do is a finding", async () => {
  const reading = (read: () => Promise<void>): Target => ({
    name: "bad",
    begins: /^file: /,
    make: () => new Uint8Array(1),
    read,
  });
  const judged = async (read: () => Promise<void>) => {
    const outcome = await attack(reading(read), new Uint8Array(1));
    return outcome.kind === "finding" ? outcome.what : outcome.kind;
  };
  const throwing = (error: Error) => judged(async () => Promise.reject(error));
  expect(await judged(async () => {})).toBe("read");
  expect(await throwing(new InputError("file: bad"))).toBe("refused");
  expect(await throwing(new TypeError("x is not a function"))).toBe("TypeError: x is not a function");
  expect(await throwing(new RangeError("Array buffer allocation failed"))).toContain("RangeError");
  expect(await throwing(new InputError("bad"))).toBe("does not name the file: bad");
  expect(
    await judged(async () => {
      const random = generator(1);
      const bytes = new Uint8Array(80 * 2 ** 20);
      for (let i = 0; i < bytes.length; i += 4096) bytes[i] = 256 * random();
    }),
  ).toMatch(/^took \d+ MB/);
  expect(
    await judged(async () => {
      const begin = process.cpuUsage();
      for (let spent = 0; spent < 2.1e6; ) {
        for (let i = 0; i < 1e6; i++) Math.sqrt(i);
        const { user, system } = process.cpuUsage(begin);
        spent = user + system;
      }
    }),
  ).toMatch(/^took 2\.\d s/);
});
