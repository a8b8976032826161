import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { matrix } from "../tensor/tensor.ts";
import { bookKernel, choicesFor, fastestKernel, forgetChoices, type IntegerKernel } from "./kernel-choice.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "lowbit-choices-"));
  forgetChoices();
});
afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
  forgetChoices();
});

const BODY = "native, AVX2, 2 threads";

/** The choice among kernels that take so long by a clock of their own. */
function fastest(dot: number, table: number, planes: number): IntegerKernel {
  let time = 0;
  const work = (duration: number) => () => {
    time += duration;
  };
  const candidates = new Map<IntegerKernel, () => void>([
    ["dot", work(dot)],
    ["table", work(table)],
    ["planes", work(planes)],
  ]);
  return fastestKernel(candidates, () => time);
}

test("only a clear win changes the default", () => {
  expect(fastest(0.2, 0.1, 0.15)).toBe("table");
  expect(fastest(0.2, 0.6, 0.05)).toBe("planes");
  expect(fastest(0.2, 0.199, 0.6)).toBe("dot");
});

test("a choice is there for the next process", () => {
  choicesFor(BODY, folder).set("tq2_0", "table");
  expect(readdirSync(folder)).toEqual(["kernels-native-avx2-2-threads.json"]);
  forgetChoices();
  expect(choicesFor(BODY, folder).get("tq2_0")).toBe("table");
  expect(choicesFor(BODY, folder).get("tq1_0")).toBeUndefined();
  expect(choicesFor("native, AVX2, 3 threads", folder).get("tq2_0")).toBeUndefined();
});

test("choices of two processes are kept together", () => {
  const first = choicesFor(BODY, folder);
  forgetChoices();
  const second = choicesFor(BODY, folder);
  first.set("tq2_0", "table");
  second.set("int2-g32", "planes");
  forgetChoices();
  expect(choicesFor(BODY, folder).get("tq2_0")).toBe("table");
});

test("a file that is no JSON, or of another processor or version, counts as none", () => {
  choicesFor(BODY, folder).set("tq2_0", "table");
  const path = join(folder, readdirSync(folder)[0]);
  const good = JSON.parse(readFileSync(path, "utf8"));
  for (const text of [
    "{",
    "null",
    "[]",
    JSON.stringify({ ...good, kernels: null }),
    JSON.stringify({ ...good, processor: "another" }),
    JSON.stringify({ ...good, lowbit: "0.0.0" }),
    JSON.stringify({ ...good, kernels: { tq2_0: "fast" } }),
  ]) {
    writeFileSync(path, text);
    forgetChoices();
    expect(choicesFor(BODY, folder).get("tq2_0"), text).toBeUndefined();
  }
});

test("a folder that cannot be written is not missed", () => {
  const file = join(folder, "file");
  writeFileSync(file, "");
  const choices = choicesFor(BODY, join(file, "inside"));
  choices.set("tq2_0", "table");
  expect(choices.get("tq2_0")).toBe("table");
  expect(existsSync(join(file, "inside"))).toBe(false);
});

test("codes with a book look up sums where rows and groups are whole bytes and W has as many rows as the book entries", () => {
  const coded = { rows: 256, cols: 96, rowBytes: 24, group: 32, codeBits: 8, book: matrix(256, 4) };
  const four = { ...coded, codeBits: 4, rowBytes: 12, book: matrix(16, 4) };
  expect(bookKernel(coded)).toBe("table");
  expect(bookKernel(four)).toBe("table");
  expect(bookKernel(coded, "dot")).toBe("dot");
  expect(bookKernel({ ...coded, rows: 255 })).toBe("dot");
  expect(bookKernel({ ...coded, rows: 1 }, "table")).toBe("table");
  for (const other of [
    { ...coded, down: true },
    { ...coded, codeBits: 7, rowBytes: 21 },
    { ...coded, codeBits: 16, rowBytes: 48 },
    { ...four, cols: 92, group: 92 },
    { ...four, group: 12 },
    { ...coded, cols: 0, rowBytes: 0, group: 0 },
  ])
    expect(bookKernel(other, "table")).toBe("dot");
});
