import { readSmall } from "../files/disk.ts";
import { paths } from "../files/node.ts";
import { baseName } from "../record/make.ts";
import { parseYaml, type Recipe, type RecipeInput, readRecipe } from "./recipe.ts";

/** A recipe longer than this is not one. */
const LARGEST_RECIPE = 1 << 20;

/**
 * The recipe in a YAML file, with `set` over it, and the folder from which its
 * paths start; those of a recipe given as it is start from the current one.
 */
export async function openRecipe(
  recipe: string | RecipeInput,
  set: readonly string[] = [],
): Promise<{ recipe: Recipe; base: string }> {
  if (typeof recipe !== "string") return { recipe: readRecipe(recipe, "recipe", set), base: "." };
  const where = baseName(recipe);
  const text = new TextDecoder().decode(await readSmall(recipe, LARGEST_RECIPE));
  return { recipe: readRecipe(parseYaml(text, where), where, set), base: paths().dirname(recipe) };
}

/** The teacher that a recipe names: of the bundle or the hub as it is, a path from the recipe's folder. */
export function teacherOf({ loss }: Recipe, base: string): string | undefined {
  const { isAbsolute, join } = paths();
  const { teacher } = loss;
  if (teacher === undefined || /^(bundled|hf):/.test(teacher) || isAbsolute(teacher)) return teacher;
  return join(base, teacher);
}

/** A recipe as records keep it: without the paths of this machine. */
export function forRecord({ from, loss, ...recipe }: Recipe): object {
  const { cache: _, tokenizer, ...data } = recipe.data;
  return {
    ...recipe,
    ...(from === undefined ? {} : { from: baseName(from) }),
    loss: loss.teacher === undefined ? loss : { ...loss, teacher: baseName(loss.teacher) },
    data: {
      ...data,
      text: baseName(data.text),
      tokenizer: tokenizer.file === undefined ? tokenizer : { ...tokenizer, file: baseName(tokenizer.file) },
    },
  };
}
