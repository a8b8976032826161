import { whatIs } from "../files/disk.ts";
import { paths } from "../files/node.ts";
import type { Job } from "../record/record.ts";
import { isHeldOut } from "../training/corpus.ts";
import { documents } from "../training/documents.ts";
import { pieces } from "../training/pieces.ts";
import type { Recipe } from "../training/recipe.ts";
import { findSources, type Sources, trainedVocabulary } from "../training/text.ts";

/** A text with its name. */
export interface Named {
  readonly name: string;
  readonly text: string;
}

/** Learns the tokenizer that a run of this recipe would learn, unless `folder` holds one, whose models it is the tokenizer of. */
export async function learnTokenizer(recipe: Recipe, folder: string, job: Job): Promise<void> {
  if ((await whatIs(paths().join(folder, "tokenizer.json"))) === "file") return;
  const sources = await findSources(recipe, ".", job);
  await trainedVocabulary(recipe, { ...sources, cache: undefined }, folder, job);
}

/** The documents that are kept for validation, with their files' names; of a file with several, numbered. */
export async function* heldOutDocuments(recipe: Recipe, sources: Sources): AsyncGenerator<Named> {
  const counts = new Map<number, number>();
  for await (const { file, text } of documentsOf(recipe, sources, true)) {
    const before = counts.get(file) ?? 0;
    counts.set(file, before + 1);
    const { name } = sources.corpus.files[file];
    yield { name: before === 0 ? name : `${name} ${before + 1}`, text };
  }
}

/** Everything that is learned from, as one text. */
export async function trainingText(recipe: Recipe, sources: Sources): Promise<Named> {
  const parts: string[] = [];
  for await (const { text } of documentsOf(recipe, sources, false)) parts.push(text);
  return { name: "training text", text: parts.join("\n\n") };
}

/** The documents of one side, whole; empty ones are left out. */
async function* documentsOf(
  { data }: Recipe,
  { corpus }: Sources,
  heldOut: boolean,
): AsyncGenerator<{ file: number; text: string }> {
  const holds = isHeldOut(corpus);
  const { field, separator } = data;
  const files = [...corpus.files.keys()].filter(
    (f) => !Array.isArray(corpus.heldOut) || holds(f, 0) === heldOut,
  );
  const parts = documents(
    files.map((f) => corpus.files[f]),
    { field, separator },
  );
  for await (const { file, text, end } of pieces(parts, undefined)) {
    if (end && !end.empty && holds(files[file], end.place) === heldOut) yield { file: files[file], text };
  }
}
