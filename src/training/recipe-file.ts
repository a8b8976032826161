import { readSmall } from "../files/disk.ts";
import { isObject } from "../files/json.ts";
import { paths } from "../files/node.ts";
import { tunedMethods } from "../methods/index.ts";
import { baseName } from "../record/make.ts";
import { InputError } from "../tensor/tensor.ts";
import { parseYaml, type Recipe, type RecipeInput, readRecipe, tuningOf } from "./recipe.ts";

/** A recipe longer than this is not one. */
const LARGEST_RECIPE = 1 << 20;

type Raw = { readonly [key: string]: unknown };

/**
 * The recipe in a YAML file, with `set` over it, and the folder from which its
 * paths start; those of a recipe given as it is start from the current one.
 * A file may say only what differs from another one: `extends: FILE`. A recipe that tunes a `stored` model has its sizes.
 */
export async function openRecipe(
  recipe: string | RecipeInput,
  set: readonly string[] = [],
  stored?: StoredModel,
): Promise<{ recipe: Recipe; base: string }> {
  const { dirname, resolve } = paths();
  const [raw, where, base] =
    typeof recipe === "string"
      ? [await readExtending(recipe, []), baseName(recipe), dirname(recipe)]
      : [recipe, "recipe", "."];
  const full = stored ? merged({ model: stored.sizes }, raw) : raw;
  const from = stored && { from: placed(stored.spec, resolve(".")) };
  const read = readRecipe(from ? merged(full, from) : full, where, set);
  const tunes = tuningOf(read) !== undefined;
  if (tunes && !stored)
    throw new InputError(
      `${where}: family ${read.family} tunes a model that is stored; use lowbit tune MODEL`,
    );
  if (stored && !tunes)
    throw new InputError(
      `${where}: family ${read.family} trains floats, with lowbit train; to tune a stored model use ${Object.keys(tunedMethods).join(" or ")}`,
    );
  return { recipe: read, base };
}

/** A model that is tuned, as commands name models; a recipe for it need not repeat its sizes. */
export interface StoredModel {
  readonly spec: string;
  readonly sizes: Partial<Recipe["model"]>;
}

/** What a recipe's file says, of training or of a study; an InputError when it is too long or no YAML. */
export async function readYaml(path: string): Promise<unknown> {
  return parseYaml(new TextDecoder().decode(await readSmall(path, LARGEST_RECIPE)), baseName(path));
}

/** What a file says over what it extends; `below` are the files that extend it. */
async function readExtending(path: string, below: readonly string[]): Promise<unknown> {
  const { dirname, resolve, relative } = paths();
  const where = baseName(path);
  const raw = await readYaml(path);
  if (!isObject(raw as never) || !Object.hasOwn(raw as object, "extends")) return raw;
  const { extends: other, ...own } = raw as Raw;
  if (typeof other !== "string" || other === "")
    throw new InputError(`${where}: extends: needs the path of another recipe, got ${JSON.stringify(other)}`);
  const place = resolve(dirname(path), other);
  const chain = [...below, resolve(path)];
  if (chain.includes(place))
    throw new InputError(`${where}: extends: ${other} extends this recipe itself; leave one of them out`);
  const extended = await readExtending(place, chain);
  return merged(moved(extended, relative(dirname(path), dirname(place))), own);
}

/**
 * One recipe over another, section by section: lists and values take the
 * place of what is there, null takes it away, and so does a section of
 * another `kind`, whose keys are others.
 */
export function merged(under: unknown, over: unknown): unknown {
  if (!isObject(under as never) || !isObject(over as never)) return over;
  const [a, b] = [under as Raw, over as Raw];
  if (b.kind !== undefined && b.kind !== a.kind) return b;
  const both: Record<string, unknown> = { ...a };
  for (const [key, value] of Object.entries(b)) {
    if (value === null) delete both[key];
    else both[key] = Object.hasOwn(a, key) ? merged(a[key], value) : value;
  }
  return both;
}

/** Keys of a recipe that hold a path or the name of a model or data set. */
const PLACES = [
  ["from"],
  ["loss", "teacher"],
  ["data", "text"],
  ["data", "cache"],
  ["data", "tokenizer", "file"],
  ["data", "heldOut", "text"],
  ["data", "generate", "model"],
];

/** A recipe whose paths start from another folder, from which its own is `folder`. */
function moved(raw: unknown, folder: string): unknown {
  if (folder === "") return raw;
  return PLACES.reduce((recipe, keys) => replaced(recipe, keys, (spec) => placed(spec, folder)), raw);
}

function replaced(value: unknown, keys: readonly string[], by: (spec: string) => string): unknown {
  if (keys.length === 0) return typeof value === "string" ? by(value) : value;
  const [key, ...rest] = keys;
  if (!isObject(value as never) || !Object.hasOwn(value as object, key)) return value;
  return { ...(value as Raw), [key]: replaced((value as Raw)[key], rest, by) };
}

/** A path that starts from a folder, as one from the current folder; names of the bundle and the hub mean the same everywhere. */
export function placed(spec: string, folder: string): string {
  const { isAbsolute, join } = paths();
  return /^(bundled|hf):/.test(spec) || isAbsolute(spec) ? spec : join(folder, spec);
}

/** A recipe as records keep it: without the paths of this machine. */
export function forRecord(recipe: Recipe): object {
  const { cache: _, ...data } = recipe.data;
  return PLACES.reduce((raw: unknown, keys) => replaced(raw, keys, baseName), { ...recipe, data }) as object;
}
