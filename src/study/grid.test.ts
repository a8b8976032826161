import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { tinyRecipe, writeTinyText } from "../../test/tiny-training.ts";
import type { RecipeInput } from "../training/recipe.ts";
import {
  chosen,
  type GridRun,
  parametersOf,
  planGrid,
  runGrid,
  shareTokenizer,
  withSharedTokenizer,
} from "./grid.ts";

let folder: string;
let text: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "lowbit-grid-"));
  text = writeTinyText(folder);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const short = (change: object = {}): RecipeInput => ({
  ...tinyRecipe(text, "float"),
  steps: 1,
  checkpointEvery: 1,
  ...change,
});

test("parameters and bits are Spectra's: table 3's 99M and 3.9B, with its vocabulary of 50304", () => {
  const of = (dim: number, ffn: number, layers: number, heads: number) =>
    parametersOf(
      {
        ...{ dim, ffn, layers, heads, kvHeads: heads, context: 2048 },
        ...{ tiedHead: false, normEpsilon: 1e-5, ropeBase: 1e4 },
      },
      50304,
    );
  const small = of(512, 1280, 16, 8);
  expect(small).toEqual({ linear: 48_234_496, others: 51_511_296 });
  const large = of(3072, 9216, 30, 24);
  expect((large.linear + large.others) / 1e9).toBeCloseTo(3.9896, 4); // printed as 3.989
  // Table 4, in 10⁹ bits: FloatLM 63.83, QuantLM-4 20.59, TriLM 10.76.
  for (const [bits, total] of [
    [16, 63.83],
    [4.25, 20.59],
    [1.58, 10.76],
  ]) {
    expect((16 * large.others + bits * large.linear) / 1e9).toBeCloseTo(total, 1);
  }
});

test("names are chosen by patterns", () => {
  expect(chosen("float-0.1M-s1", undefined)).toBe(true);
  expect(chosen("float-0.1M-s1", "float-*")).toBe(true);
  expect(chosen("float-0.1M-s1", "trilm-*, *-0.1M-*")).toBe(true);
  expect(chosen("float-0.1M-s1", "float-0.1M-s")).toBe(false);
  expect(chosen("float-0x1M-s1", "float-0.1M-s1")).toBe(false);
  expect(chosen("ablation-drop+removal-s1", "ablation-drop+removal-*")).toBe(true);
});

test("one tokenizer for runs that would all learn the same one; others keep what they name", async () => {
  const out = join(folder, "shared");
  const named = short({ data: { ...short().data, tokenizer: { file: "/somewhere/tokenizer.json" } } });
  const runs = [
    { name: "a", recipe: short() },
    { name: "b", recipe: short({ seed: 9 }) },
    { name: "c", recipe: named },
  ];
  const shared = withSharedTokenizer(runs, out);
  const file = join(out, "tokenizer", "tokenizer.json");
  expect(shared.map(({ recipe }) => recipe.data.tokenizer)).toEqual([
    { file },
    { file },
    { file: "/somewhere/tokenizer.json" },
  ]);
  await shareTokenizer(runs, out, {});
  const first = readFileSync(file, "utf8");
  await shareTokenizer(runs, out, {});
  expect(readFileSync(file, "utf8")).toBe(first);

  const other = short({ data: { ...short().data, tokenizer: { train: 300 } } });
  await expect(
    shareTokenizer([...runs, { name: "d", recipe: other }], join(folder, "no"), {}),
  ).rejects.toThrow("its runs learn tokenizers of different texts or sizes");
});

test("a finished run is known by its recipe, whatever its record's hash was made of", async () => {
  const out = join(folder, "grid");
  const runs: GridRun[] = [{ name: "a", recipe: short() }];
  const state = async (all = runs) => (await planGrid(all, { out }))[0].state;
  expect(await state()).toBe("new");
  await runGrid(await planGrid(runs, { out }), { out, backend: "reference" });
  expect(await state()).toBe("finished");
  expect(await state([{ name: "a", recipe: short({ seed: 9 }) }])).toBe("other");

  // A later version of recipes has a key more, and so another hash of the same recipe.
  const path = join(out, "runs", "a", "record.json");
  const record = JSON.parse(readFileSync(path, "utf8"));
  const write = (identity: object) => writeFileSync(path, JSON.stringify({ ...record, identity }));
  write({ ...record.identity, recipe: "0".repeat(64) });
  expect(await state()).toBe("finished");
  write({ ...record.identity, data: "0".repeat(64) });
  expect(await state()).toBe("other");
  writeFileSync(path, "{");
  await expect(state()).rejects.toThrow(/record\.json: is not JSON; the folder is damaged/);
});

test("times are told from finished runs of the family", async () => {
  const out = join(folder, "grid-times");
  const runs: GridRun[] = [
    { name: "one", recipe: short() },
    { name: "three", recipe: short({ steps: 3 }) },
  ];
  await runGrid(await planGrid(runs, { out, only: "one" }), { out, backend: "reference" });
  const [one, three] = await planGrid(runs, { out });
  expect(three.operations / one.operations).toBeCloseTo(3, 10);
  expect(three.seconds / one.seconds).toBeCloseTo(3, 10);
  expect(three.tokens).toBe(3 * 4 * 16);
});
