import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { parse } from "yaml";
import { trainedMethods } from "../src/methods/index.ts";
import { parseYaml, readRecipe } from "../src/training/recipe.ts";

const root = join(import.meta.dirname, "..");
const text = (path: string) => readFileSync(join(root, path), "utf8");
const yamlIn = (path: string) => /```yaml\n([\s\S]*?)```/.exec(text(path))![1];

test("the recipes that the documents show are recipes", () => {
  for (const path of ["README.md", "docs/training.md"]) readRecipe(parseYaml(yamlIn(path), path), path);
});

test("docs/training.md has every key of a recipe", () => {
  const shown = parse(yamlIn("docs/training.md"));
  const full = readRecipe(shown, "full");
  expect(Object.keys(shown).sort()).toEqual(Object.keys(full).sort());
  for (const key of ["model", "optimizer", "schedule", "spikes", "formats"] as const)
    expect(Object.keys(shown[key]).sort()).toEqual(Object.keys(full[key] as object).sort());
});

test("README's tables have every way to train with its options and defaults, and every optimizer", () => {
  const rows = new Map(
    [...text("README.md").matchAll(/^\| `([\w.-]+)`[^|]*\|[^|]*\|([^|]*)\|/gm)].map(([, name, rest]) => [
      name,
      rest,
    ]),
  );
  for (const [name, { options }] of Object.entries(trainedMethods)) {
    const row = rows.get(name);
    expect(row, name).toBeDefined();
    const filled = options.parse(name === "continual" ? { from: 1 } : {}) as object;
    const named = [...row!.matchAll(/`(\w+)`/g)].map(([, option]) => option);
    expect(named.sort(), name).toEqual(Object.keys(filled).sort());
    for (const [option, value] of Object.entries(filled)) {
      if (typeof value !== "object" && !(name === "continual" && option === "from") && option !== "density")
        expect(row, name).toMatch(new RegExp(`\`${option}\`[^\`]*\\(${value}\\b`));
    }
  }
  for (const name of ["adamw", "adamw8", "adamw4", "collage", "muon"])
    expect([...rows.keys()]).toContain(name);
});
