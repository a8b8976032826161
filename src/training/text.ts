import { paths } from "../files/node.ts";
import type { Fingerprint, Job } from "../record/record.ts";
import { type Corpus, findCorpus, fingerprints, texts } from "./corpus.ts";
import type { Recipe } from "./recipe.ts";
import { openTokens, type TokenFile, writeTokens } from "./token-file.ts";
import { readVocabulary, trainVocabulary, type Vocabulary } from "./vocabulary.ts";

/** The files that a recipe names. */
export interface Sources {
  readonly corpus: Corpus;
  readonly tokenizer: string | undefined;
  /** All of them by content: training files, held-out files, tokenizer. */
  readonly data: readonly Fingerprint[];
}

/** Finds and hashes what a recipe in folder `base` reads. */
export async function findSources(recipe: Recipe, base: string): Promise<Sources> {
  const { resolve } = paths();
  const corpus = await findCorpus(resolve(base, recipe.data.text), recipe.data.heldOut);
  const { file } = recipe.data.tokenizer;
  const tokenizer = file === undefined ? undefined : resolve(base, file);
  const data = await fingerprints([
    ...corpus.training,
    ...corpus.heldOut,
    ...(tokenizer === undefined ? [] : [tokenizer]),
  ]);
  return { corpus, tokenizer, data };
}

/** Ids that the recipe's tokenizer will have: those of its file, or as many as are trained. */
export async function vocabularyOf({ data }: Recipe, { tokenizer }: Sources): Promise<number> {
  return data.tokenizer.train ?? (await readVocabulary(tokenizer!)).tokenizer.vocabulary;
}

/** The text as ids, on disk, with the vocabulary that made them. */
export interface TokenizedText {
  readonly vocabulary: Vocabulary;
  readonly training: TokenFile;
  readonly heldOut: TokenFile;
  close(): Promise<void>;
}

/** Trains or reads the tokenizer and encodes all files with it, once: what `folder` holds already is used. */
export async function openText(
  recipe: Recipe,
  { corpus, tokenizer }: Sources,
  folder: string,
  job: Job,
): Promise<TokenizedText> {
  const vocabulary =
    tokenizer === undefined
      ? await trainVocabulary(corpus.training, recipe.data.tokenizer.train!, folder, job)
      : await readVocabulary(tokenizer);
  const write = async (name: string, files: readonly string[]) => {
    const path = paths().join(folder, `${name}.ids`);
    await writeTokens(
      path,
      reporting(texts(files), files.length, job),
      vocabulary.tokenizer,
      vocabulary.encode,
    );
    return path;
  };
  const size = vocabulary.tokenizer.vocabulary;
  const trainingPath = await write("training", corpus.training);
  const heldOutPath = await write("held-out", corpus.heldOut);
  const training = await openTokens(trainingPath, size);
  const heldOut = await openTokens(heldOutPath, size);
  return {
    vocabulary,
    training,
    heldOut,
    async close() {
      await training.close();
      await heldOut.close();
    },
  };
}

/** Passes documents on, says how far it is, and stops when the job is aborted. */
async function* reporting(documents: AsyncIterable<string>, total: number, { onProgress, signal }: Job) {
  let done = 0;
  for await (const document of documents) {
    signal?.throwIfAborted();
    yield document;
    onProgress?.({ task: "tokenize", done: ++done, total, unit: "files" });
  }
}
