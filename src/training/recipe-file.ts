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
  return { recipe: readRecipe(await readYaml(recipe), baseName(recipe), set), base: paths().dirname(recipe) };
}

/** What a recipe's file says, of training or of a study; an InputError when it is too long or no YAML. */
export async function readYaml(path: string): Promise<unknown> {
  return parseYaml(new TextDecoder().decode(await readSmall(path, LARGEST_RECIPE)), baseName(path));
}

/** A model that a recipe in folder `base` names, as commands name it: one of the hub or the bundle as it is, else a path. */
export function modelFrom(spec: string, base: string): string {
  return /^(hf|bundled):/.test(spec) ? spec : paths().resolve(base, spec);
}

/** A recipe as records keep it: without the paths of this machine. */
export function forRecord({ from, loss, ...recipe }: Recipe): object {
  const { cache: _, tokenizer, ...data } = recipe.data;
  const named = (key: string, path: string | undefined) =>
    path === undefined ? {} : { [key]: baseName(path) };
  return {
    ...recipe,
    ...named("from", from),
    loss: { ...loss, ...named("teacher", loss.teacher) },
    data: {
      ...data,
      text: baseName(data.text),
      tokenizer: { ...tokenizer, ...named("file", tokenizer.file) },
    },
  };
}
