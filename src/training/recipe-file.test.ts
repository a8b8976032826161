import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { stringify } from "yaml";
import { tinyRecipe } from "../../test/tiny-training.ts";
import { InputError } from "../tensor/tensor.ts";
import { openRecipe } from "./recipe-file.ts";

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "lowbit-recipes-"));
  mkdirSync(join(folder, "base"));
  mkdirSync(join(folder, "own"));
  write("base/float.yaml", {
    ...tinyRecipe("text", "float"),
    from: "start@4",
    loss: { teacher: "bundled:float", soft: {} },
    data: {
      text: "text",
      heldOut: ["a", "b"],
      tokenizer: { file: "words/tokenizer.json" },
      cache: "/tmp/kept",
    },
  });
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function write(name: string, recipe: object): string {
  writeFileSync(join(folder, name), stringify(recipe));
  return join(folder, name);
}

async function refusal(path: string): Promise<string> {
  const error = await openRecipe(path).then(
    () => new Error("was not refused"),
    (reason: Error) => reason,
  );
  expect(error).toBeInstanceOf(InputError);
  return error.message;
}

test("a recipe that extends another says only what differs", async () => {
  const path = write("base/other.yaml", {
    extends: "float.yaml",
    model: { ffn: 48 },
    data: { heldOut: ["c"] },
    from: null,
    schedule: { kind: "trilm", p1: 0.01, p2: 0.005, warmup: 1 },
  });
  const { recipe } = await openRecipe(path, ["batch=8"]);
  const { recipe: extended } = await openRecipe(join(folder, "base/float.yaml"));
  expect(recipe).toEqual({
    ...extended,
    batch: 8,
    from: undefined,
    model: { ...extended.model, ffn: 48 },
    data: { ...extended.data, heldOut: ["c"] }, // a list takes the place of a list
    schedule: { kind: "trilm", p1: 0.01, p2: 0.005, warmup: 1, removesDecay: true }, // nothing of the other kind stays
  });
});

test("a section of the same kind changes key by key", async () => {
  const path = write("base/peak.yaml", { extends: "other-peak.yaml", schedule: { warmup: 3 } });
  write("base/other-peak.yaml", { extends: "float.yaml", schedule: { kind: "cosine", peak: 0.5 } });
  expect((await openRecipe(path)).recipe.schedule).toEqual({
    kind: "cosine",
    peak: 0.5,
    warmup: 3,
    final: 0.1,
  });
});

test("paths of an extended recipe start from its own folder", async () => {
  const path = write("own/far.yaml", { extends: "../base/float.yaml", data: { heldOut: ["c"] } });
  const { recipe, base } = await openRecipe(path);
  expect(base).toBe(join(folder, "own"));
  expect(recipe.from).toBe("../base/start@4");
  expect(recipe.loss.teacher).toBe("bundled:float");
  expect(recipe.data).toMatchObject({
    text: "../base/text",
    tokenizer: { file: "../base/words/tokenizer.json" },
    cache: "/tmp/kept",
  });
});

test("what cannot be extended is one line", async () => {
  expect(await refusal(write("own/self.yaml", { extends: "self.yaml" }))).toBe(
    "self.yaml: extends: self.yaml extends this recipe itself; leave one of them out",
  );
  write("own/b.yaml", { extends: "a.yaml" });
  expect(await refusal(write("own/a.yaml", { extends: "b.yaml" }))).toBe(
    "b.yaml: extends: a.yaml extends this recipe itself; leave one of them out",
  );
  expect(await refusal(write("own/none.yaml", { extends: "absent.yaml" }))).toContain(
    "absent.yaml: no such file",
  );
  expect(await refusal(write("own/list.yaml", { extends: ["a.yaml"] }))).toBe(
    'list.yaml: extends: needs the path of another recipe, got ["a.yaml"]',
  );
  expect(await refusal(write("own/wrong.yaml", { extends: "../base/float.yaml", model: { dims: 3 } }))).toBe(
    "wrong.yaml: unknown key model.dims; did you mean model.dim?",
  );
});
