import { makeFolder } from "../files/disk.ts";
import { paths } from "../files/node.ts";
import type { Fingerprint, Job } from "../record/record.ts";
import { InputError } from "../tensor/tensor.ts";
import { trainerCuts } from "../tokenizers/cuts.ts";
import {
  type Corpus,
  findCorpus,
  fingerprints,
  isHeldOut,
  type SourceFile,
  trainingFirst,
} from "./corpus.ts";
import type { DataRecipe } from "./data.ts";
import { documents, type Reading } from "./documents.ts";
import { pieces } from "./pieces.ts";
import type { Recipe } from "./recipe.ts";
import { sample } from "./sample.ts";
import { openTokens, removeTokens, type StoredTokens, type TokenFile, writeTokens } from "./token-file.ts";
import { readVocabulary, trainVocabulary, type Vocabulary } from "./vocabulary.ts";

/** The files that a recipe names. */
export interface Sources {
  readonly corpus: Corpus;
  /** Of the corpus' files, in their order. */
  readonly prints: readonly Fingerprint[];
  readonly tokenizer: string | undefined;
  /** Where tokenized text is kept for other runs. */
  readonly cache: string | undefined;
  /** Bytes of the files, less what is held out. */
  readonly trainingBytes: number;
  /** All of them by content: training files, held-out files, tokenizer. */
  readonly data: readonly Fingerprint[];
}

/** Finds and hashes what a recipe in folder `base` reads; downloads what the hub has of it. */
export async function findSources(recipe: Recipe, base: string, job: Job = {}): Promise<Sources> {
  const { resolve, basename } = paths();
  const { text, heldOut, cache } = recipe.data;
  const corpus = await findCorpus(text.startsWith("hf:") ? text : resolve(base, text), heldOut, job);
  const { file } = recipe.data.tokenizer;
  const tokenizer = file === undefined ? undefined : resolve(base, file);
  const prints = await fingerprints(corpus.files, job);
  const printOf = new Map(corpus.files.map((source, f) => [source, prints[f]]));
  const others = tokenizer === undefined ? [] : [{ path: tokenizer, name: basename(tokenizer) }];
  const held = isHeldOut(corpus);
  const bytes = (files: readonly Fingerprint[]) => files.reduce((sum, print) => sum + print.bytes, 0);
  return {
    corpus,
    prints,
    trainingBytes: Array.isArray(heldOut)
      ? bytes(prints.filter((_, f) => !held(f, 0)))
      : Math.ceil(bytes(prints) * (1 - heldOut.share)),
    tokenizer,
    cache: cache === undefined ? undefined : resolve(base, cache),
    data: [
      ...trainingFirst(corpus).map((source) => printOf.get(source)!),
      ...(await fingerprints(others, job)),
    ],
  };
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
  /** Documents that were skipped because they are empty or white space. */
  readonly emptyDocuments: number;
  close(): Promise<void>;
}

/**
 * Trains or reads the tokenizer and encodes all files with it, once: what the
 * cache of the recipe holds already, or else `folder`, is used when it is of
 * the same content. Damaged files there are made anew, and a warning says so.
 */
export async function openText(
  { data }: Pick<Recipe, "data">,
  sources: Sources,
  folder: string,
  job: Job,
): Promise<TokenizedText> {
  const { corpus, prints, cache = folder } = sources;
  const reading = readingOf(data);
  await makeFolder(cache);
  const vocabulary =
    sources.tokenizer === undefined
      ? await trainedVocabulary({ data }, sources, folder, job)
      : await readVocabulary(sources.tokenizer);
  const key = hash(["tokens", 1, contents(corpus.files, prints), reading, vocabulary.sha256]);
  const path = paths().join(cache, `tokens-${key.slice(0, 16)}`);
  const stored =
    (await opened(path, key, job)) ??
    (await encoded(path, key, { corpus, prints, reading, vocabulary }, job));
  try {
    const holds = isHeldOut(corpus);
    const heldOut = stored.select(holds);
    const training = stored.select((file, place) => !holds(file, place));
    const { documents: count } = stored.header;
    if (count === 0) throw new InputError("data.text: has no document with something in it");
    for (const [side, remedy] of [
      [training, "leaves nothing to train on"],
      [heldOut, "keeps nothing for validation"],
    ] as const) {
      if (side.length > 0) continue;
      const what = Array.isArray(data.heldOut) ? data.heldOut.join(", ") : `a share of ${data.heldOut.share}`;
      const advice =
        data.separator === undefined && !Array.isArray(data.heldOut) && corpus.files.every(isText)
          ? 'a text file is one document unless data.separator, like "\\n\\n", says where others begin'
          : "choose another";
      throw new InputError(
        `data.heldOut: ${what} of ${count} ${count === 1 ? "document" : "documents"} ${remedy}; ${advice}`,
      );
    }
    return {
      vocabulary,
      training,
      heldOut,
      emptyDocuments: stored.header.empty,
      close: () => stored.close(),
    };
  } catch (error) {
    await stored.close();
    throw error;
  }
}

function isText({ kind }: SourceFile): boolean {
  return kind === "text";
}

function readingOf({ field, separator }: DataRecipe): Reading {
  return { field, separator };
}

/**
 * The vocabulary that a recipe wants trained on the text that its model learns
 * from, in its cache or else in `folder`, where it is made unless it is there.
 */
export async function trainedVocabulary(
  { data }: Pick<Recipe, "data">,
  { corpus, prints, cache }: Sources,
  folder: string,
  job: Job,
): Promise<Vocabulary> {
  const { heldOut, tokenizer } = data;
  const { train, sample: most } = tokenizer;
  const reading = readingOf(data);
  const byName = Array.isArray(heldOut);
  const isHeld = isHeldOut(corpus);
  const chosen = [...corpus.files.keys()].filter((f) => !byName || !isHeld(f, 0));
  const files = chosen.map((f) => corpus.files[f]);
  const filePrints = chosen.map((f) => prints[f]);
  const bytes = filePrints.reduce((sum, print) => sum + print.bytes, 0);
  const texts = () =>
    sample(
      pieces(reporting("read", documents(files, reading, job), bytes, job), trainerCuts()),
      Math.min(1, most / bytes),
      byName ? undefined : (file, place) => !isHeld(file, place),
    );
  const split = byName ? null : heldOut;
  const key = hash(["vocabulary", 1, contents(files, filePrints), reading, split, train, most]);
  const place = cache === undefined ? folder : paths().join(cache, `vocabulary-${key.slice(0, 16)}`);
  await makeFolder(place);
  return trainVocabulary(texts, train!, place, key, job);
}

async function opened(path: string, key: string, job: Job): Promise<StoredTokens | undefined> {
  try {
    return await openTokens(path, key);
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
    job.onWarning?.(`${error.message}; the text is tokenized anew`);
    await removeTokens(path);
    return undefined;
  }
}

async function encoded(
  path: string,
  key: string,
  text: Pick<Sources, "corpus" | "prints"> & { readonly reading: Reading; readonly vocabulary: Vocabulary },
  job: Job,
): Promise<StoredTokens> {
  const { corpus, prints, reading, vocabulary } = text;
  const { tokenizer, encode, cuts, sha256 } = vocabulary;
  const total = prints.reduce((sum, { bytes }) => sum + bytes, 0);
  const began = performance.now();
  const report = throttled(job, (done: number, ids: number) => {
    const perSecond = Math.round((1000 * ids) / (performance.now() - began));
    return { task: "tokenize", done, total, unit: "bytes", note: `${perSecond} tokens/s` };
  });
  await writeTokens(
    path,
    { key, sources: prints, tokenizer: sha256 },
    pieces(documents(corpus.files, reading, job), cuts),
    { vocabulary: tokenizer.vocabulary, start: tokenizer.bos ?? tokenizer.eos, encode },
    ({ read }, ids) => {
      job.signal?.throwIfAborted();
      report(read, ids);
    },
  );
  return (await openTokens(path, key))!;
}

/** Passes parts on and says how far they are. */
async function* reporting<P extends { readonly read: number }>(
  task: string,
  parts: AsyncIterable<P>,
  total: number,
  job: Job,
): AsyncGenerator<P> {
  const report = throttled(job, (done: number) => ({ task, done, total, unit: "bytes" }));
  for await (const part of parts) {
    yield part;
    report(part.read);
  }
}

/** Milliseconds between two reports: documents can be many thousands a second. */
const BETWEEN_REPORTS = 100;

function throttled<A extends [done: number, ...rest: unknown[]]>(
  { onProgress }: Job,
  progress: (...values: A) => Parameters<NonNullable<Job["onProgress"]>>[0],
): (...values: A) => void {
  let last = Number.NEGATIVE_INFINITY;
  let over = false; // many documents may end in the last bytes
  return (...values) => {
    const event = progress(...values);
    const ends = event.done >= event.total && !over;
    if (performance.now() - last < BETWEEN_REPORTS && !ends) return;
    over ||= ends;
    last = performance.now();
    onProgress?.(event);
  };
}

/** What files are, without their names. */
function contents(files: readonly SourceFile[], prints: readonly Fingerprint[]): unknown {
  return files.map(({ kind }, f) => [kind, prints[f].sha256]);
}

function hash(parts: readonly unknown[]): string {
  const { createHash } = process.getBuiltinModule("node:crypto");
  return createHash("sha256").update(JSON.stringify(parts)).digest("hex");
}
