import { readText, whatIs } from "../files/disk.ts";
import { fs, paths } from "../files/node.ts";
import { decodeText } from "../files/text.ts";
import { baseName } from "../record/make.ts";
import type { Job } from "../record/record.ts";
import { texts } from "../training/corpus.ts";
import type { Recipe } from "../training/recipe.ts";
import { findSources, type Sources } from "../training/text.ts";
import { trainVocabulary } from "../training/vocabulary.ts";

/** A text with its name. */
export interface Named {
  readonly name: string;
  readonly text: string;
}

/** Bytes of the files that a recipe learns from. */
export function trainingBytes({ corpus, data }: Sources): number {
  return data.slice(0, corpus.training.length).reduce((sum, { bytes }) => sum + bytes, 0);
}

/** Learns the tokenizer that a run of this recipe would learn, unless `folder` holds one, whose models it is the tokenizer of. */
export async function learnTokenizer(recipe: Recipe, folder: string, job: Job): Promise<void> {
  if ((await whatIs(paths().join(folder, "tokenizer.json"))) === "file") return;
  const { corpus } = await findSources(recipe, ".");
  await fs().mkdir(folder, { recursive: true });
  await trainVocabulary(corpus.training, recipe.data.tokenizer.train!, folder, job);
}

/** The documents that are kept for validation. */
export async function* heldOutDocuments({ corpus }: Sources): AsyncGenerator<Named> {
  for (const path of corpus.heldOut) {
    const name = baseName(path);
    yield { name, text: decodeText(name, await readText(path)) };
  }
}

/** Everything that is learned from, as one text. */
export async function trainingText({ corpus }: Sources): Promise<Named> {
  const parts: string[] = [];
  for await (const part of texts(corpus.training)) parts.push(part);
  return { name: "training text", text: parts.join("\n\n") };
}
