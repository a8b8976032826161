import { expect, test } from "vitest";
import { tinyRecipe } from "../../test/tiny-training.ts";
import { readRecipe } from "./recipe.ts";

const read = (data: object, set: string[] = []) => {
  const recipe = tinyRecipe("text", "float");
  return readRecipe({ ...recipe, data: { ...recipe.data, ...data } }, "r.yaml", set).data;
};
const failure = (data: object) => {
  try {
    read(data);
  } catch (error) {
    return (error as Error).message;
  }
};

test("what a recipe does not say has a default", () => {
  expect(read({})).toEqual({
    text: "text",
    field: "text",
    heldOut: ["held.txt"],
    tokenizer: { train: 280, sample: 67_108_864 },
    packing: "continuous",
  });
});

test("a share takes the place of names, also when it is set alone", () => {
  expect(read({ heldOut: { share: 0.01 } }).heldOut).toEqual({ share: 0.01 });
  expect(read({}, ["data.heldOut.share=0.1"]).heldOut).toEqual({ share: 0.1 });
});

test("what is held out is said in one way or the other", () => {
  for (const heldOut of [{ shar: 0.1 }, "held.txt", 5, {}]) {
    expect(failure({ heldOut })).toBe(
      "r.yaml: data.heldOut: needs a list of names of files, a share between 0 and 1 like { share: 0.01 }, or another text like { text: FILE }",
    );
  }
  expect(failure({ heldOut: [] })).toContain("r.yaml: data.heldOut");
  expect(failure({ heldOut: { share: 1 } })).toContain("r.yaml: data.heldOut.share");
});
