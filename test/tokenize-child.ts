import { mkdirSync } from "node:fs";
import { dataSchema } from "../src/training/data.ts";
import type { Recipe } from "../src/training/recipe.ts";
import { findSources, openText } from "../src/training/text.ts";
import { peakMemory } from "./peak-memory.ts";

/** Tokenizes a text, as the recipe's data in the first argument says, into the folder in the second; prints tokens and peak memory. */
const [data, out] = process.argv.slice(2);
mkdirSync(out, { recursive: true });
const recipe = { data: dataSchema.parse(JSON.parse(data)) } as Recipe;
const text = await openText(recipe, await findSources(recipe, "."), out, {});
console.log(
  JSON.stringify({ tokens: text.training.length, documents: text.training.documents, peak: peakMemory() }),
);
await text.close();
