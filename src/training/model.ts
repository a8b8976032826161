import { llama } from "../models/llama.ts";
import type { Model, ModelConfig } from "../models/model.ts";
import { type Recipe, roundingOf } from "./recipe.ts";

/** The sizes that a recipe gives its model, before its family changes anything. */
function plainConfig({ model }: Pick<Recipe, "model">, vocabulary: number): ModelConfig {
  return {
    architecture: "llama",
    ...model,
    vocabulary,
    headDim: model.dim / model.heads,
    ropePairing: "halves",
  };
}

/** The model that a recipe trains. */
export function modelOf(recipe: Recipe, vocabulary: number): Model {
  const config = plainConfig(recipe, vocabulary);
  return llama(roundingOf(recipe)?.modelChanges?.(config) ?? config);
}
