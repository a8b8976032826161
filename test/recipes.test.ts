import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { openRecipe } from "../src/training/recipe-file.ts";
import { identityOf } from "../src/training/run-folder.ts";
import { openStart } from "../src/training/start.ts";
import { planTraining } from "../src/verbs/plan-training.ts";

const folder = join(import.meta.dirname, "../recipes");
const temporary = mkdtempSync(join(tmpdir(), "lowbit-recipes-"));
afterAll(() => rmSync(temporary, { recursive: true, force: true }));
// Of studies, and of `lowbit tune`.
const studies = ["low-bits-babyllama.yaml", "low-bits.yaml", "spectra.yaml"];
const tunings = ["int2.1.yaml", "qlora.yaml", "sqft.yaml"];
const names = readdirSync(folder).filter(
  (name) => name.endsWith(".yaml") && ![...studies, ...tunings].includes(name),
);
const text = join(import.meta.dirname, "../../shared/data/text-classics");

test("there is a recipe for each way to begin with", () => {
  expect(names.sort()).toEqual(
    ["bilm", "bitnet-a4.8", "bitnet-b1.58", "continual", "float", "llm-qat", "matquant", "onebit", "paretoq"]
      .concat("trilm")
      .map((name) => `${name}.yaml`),
  );
});

test("the recipes of the bundled models are those that these were trained with", async () => {
  const hashes = {
    float: "4b9cfa92c0389dcb7e025f15f8d9811f8fbc92dc0bc157b03d290e847a747ff3",
    trilm: "3dfb5d763ccd54f6906d38f002e9816ae33d7abf2e82197c3583c60a83a83723",
  };
  for (const [name, hash] of Object.entries(hashes)) {
    const { recipe } = await openRecipe(join(folder, `${name}.yaml`));
    expect((await identityOf(recipe, [])).recipe).toBe(hash);
  }
});

test("the recipe of bundled:bilm computes what its training's record says", async () => {
  const { recipe } = await openRecipe(join(folder, "bilm.yaml"));
  const record = JSON.parse(readFileSync(join(folder, "../bundled/bilm/training.json"), "utf8"));
  const { data, snapshots: _, ...trained } = record.options.recipe;
  expect(recipe).toMatchObject(trained);
  expect(recipe.data).toMatchObject({ heldOut: data.heldOut, packing: data.packing });
});

test.each(tunings)(
  "%s tunes a stored model of any sizes, and says so where it is given none",
  async (name) => {
    const path = join(folder, name);
    const sizes = { dim: 64, layers: 1, heads: 2, ffn: 96, context: 32 };
    const { recipe } = await openRecipe(path, [], { spec: "bundled:float", sizes });
    expect(recipe).toMatchObject({ from: "bundled:float", model: sizes });
    await expect(openRecipe(path)).rejects.toThrow();
    await expect(
      openRecipe(path, ["model={dim: 64, layers: 1, heads: 2, ffn: 96, context: 32}", "from=x"]),
    ).rejects.toThrow("use lowbit tune MODEL");
  },
);

describe("each recipe passes a dry run, and starts from a model of its sizes", () => {
  test.skipIf(!existsSync(text)).each(names)("%s (needs ../shared/data/text-classics)", async (name) => {
    const path = join(folder, name);
    const { steps, memory } = await planTraining({
      recipe: path,
      set: ["steps=10"],
      trial: false,
      backend: "reference",
    });
    expect(steps).toBe(10);
    expect(memory.total).toBeLessThan(4e9);
    const { recipe, base } = await openRecipe(path);
    if (!recipe.from?.startsWith("bundled:")) return;
    const start = await openStart(recipe, base, {});
    await start?.file.close();
  });
});
