import { makeFolder } from "../files/disk.ts";
import { openModel } from "../files/index.ts";
import { paths } from "../files/node.ts";
import { fingerprint } from "../record/make.ts";
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
import { findWriter, generatedFrom, generateTokens, type OpenWriter, type Writer } from "./generated.ts";
import { pieces } from "./pieces.ts";
import type { Recipe } from "./recipe.ts";
import { placed } from "./recipe-file.ts";
import { sample } from "./sample.ts";
import { openTokens, removeTokens, type StoredTokens, type TokenFile, writeTokens } from "./token-file.ts";
import { readVocabulary, trainVocabulary, type Vocabulary, vocabularyOfModel } from "./vocabulary.ts";

/** What a recipe's text is made of. */
export interface Sources {
  readonly corpus: Corpus;
  /** Of the corpus' files, in their order. */
  readonly prints: readonly Fingerprint[];
  readonly tokenizer: string | undefined;
  /** Who writes the text, where it is not read; files are then only held out. */
  readonly writer: Writer | undefined;
  /** That of the model that the run starts from, where the recipe names no other. */
  readonly own: Vocabulary | undefined;
  /** Where tokenized text is kept for other runs. */
  readonly cache: string | undefined;
  /** Bytes of the files, less what is held out. */
  readonly trainingBytes: number;
  /** All of them by content: who writes, training files, held-out files, tokenizer. */
  readonly data: readonly Fingerprint[];
}

/** Finds and hashes what a recipe in folder `base` reads; downloads what the hub has of it. */
export async function findSources(recipe: Recipe, base: string, job: Job = {}): Promise<Sources> {
  const { resolve, basename } = paths();
  const { text, heldOut, cache } = recipe.data;
  const writer = await findWriter(recipe, base, job);
  const at = (place: string) => (place.startsWith("hf:") ? place : resolve(base, place));
  const corpus = await findCorpus(
    text === undefined ? undefined : at(text),
    "text" in heldOut ? { text: at(heldOut.text) } : heldOut,
    job,
  );
  const { file, train } = recipe.data.tokenizer;
  const isOwn = !writer && file === undefined && train === undefined;
  const own = isOwn ? await startVocabulary(placed(recipe.from!, base), job) : undefined;
  const tokenizer = file === undefined ? undefined : resolve(base, file);
  const prints = await fingerprints(corpus.files, job);
  const printOf = new Map(corpus.files.map((source, f) => [source, prints[f]]));
  const others = tokenizer === undefined ? [] : [{ path: tokenizer, name: basename(tokenizer) }];
  const held = isHeldOut(corpus);
  const bytes = (files: readonly Fingerprint[]) => files.reduce((sum, print) => sum + print.bytes, 0);
  return {
    corpus,
    prints,
    trainingBytes:
      "share" in heldOut
        ? Math.ceil(bytes(prints) * (1 - heldOut.share))
        : bytes(prints.filter((_, f) => !held(f, 0))),
    tokenizer,
    own,
    writer,
    cache: cache === undefined ? undefined : resolve(base, cache),
    data: [
      ...(writer ? [writer.print] : []),
      ...trainingFirst(corpus).map((source) => printOf.get(source)!),
      ...(await fingerprints(others, job)),
      ...(await Promise.all((own?.files ?? []).map(({ name, bytes }) => fingerprint(name, bytes.slice())))),
    ],
  };
}

async function startVocabulary(spec: string, job: Job): Promise<Vocabulary> {
  const file = await openModel(spec, { ...job, onWarning: undefined });
  try {
    return await vocabularyOfModel(file);
  } finally {
    await file.close();
  }
}

/** Ids that the recipe's tokenizer will have: those of its file, or as many as are trained. */
export async function vocabularyOf({ data }: Recipe, { tokenizer, own, writer }: Sources): Promise<number> {
  const given = writer?.vocabulary ?? own;
  if (given) return given.tokenizer.vocabulary;
  return data.tokenizer.train ?? (await readVocabulary(tokenizer!)).tokenizer.vocabulary;
}

/** The text as ids, on disk, with the vocabulary that made them. */
export interface TokenizedText {
  readonly vocabulary: Vocabulary;
  readonly training: TokenFile;
  readonly heldOut: TokenFile;
  /** Documents that were skipped because they are empty or white space. */
  readonly emptyDocuments: number;
  /** What was written by a model. */
  readonly generated?: { readonly tokens: number; readonly texts: number; readonly sha256: string };
  close(): Promise<void>;
}

/**
 * Trains or reads the tokenizer and encodes all files with it, once: what the
 * cache of the recipe holds already, or else `folder`, is used when it is of
 * the same content. Damaged files there are made anew, and a warning says so.
 * Text that a model writes is written once in the same way, with the model
 * that `openWriter` gives.
 */
export async function openText(
  { data }: Pick<Recipe, "data">,
  sources: Sources,
  folder: string,
  job: Job,
  openWriter?: OpenWriter,
): Promise<TokenizedText> {
  const { corpus, prints, cache = folder, writer } = sources;
  const reading = readingOf(data);
  await makeFolder(cache);
  if (writer) return openGenerated({ data }, sources, writer, cache, job, openWriter!);
  const vocabulary =
    sources.own ??
    (sources.tokenizer === undefined
      ? await trainedVocabulary({ data }, sources, folder, job)
      : await readVocabulary(sources.tokenizer));
  const stored = await tokenized(cache, { corpus, prints, reading, vocabulary }, job);
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
      const isOneFile = data.separator === undefined && "share" in data.heldOut && corpus.files.every(isText);
      const advice = isOneFile
        ? 'a text file is one document unless data.separator, like "\\n\\n", says where others begin'
        : "choose another";
      const documents = count === 1 ? "document" : "documents";
      throw new InputError(
        `data.heldOut: ${heldOutWords(data)} of ${count} ${documents} ${remedy}; ${advice}`,
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

function heldOutWords({ heldOut }: DataRecipe): string {
  if (Array.isArray(heldOut)) return heldOut.join(", ");
  return "text" in heldOut ? heldOut.text : `a share of ${heldOut.share}`;
}

/** A text that a model writes, and what is held out: a share of it, or a text that is read. */
async function openGenerated(
  { data }: Pick<Recipe, "data">,
  { corpus, prints }: Sources,
  writer: Writer,
  folder: string,
  job: Job,
  open: OpenWriter,
): Promise<TokenizedText> {
  const { vocabulary } = writer;
  const key = hash(generatedFrom(writer));
  const path = paths().join(folder, `generated-${key.slice(0, 16)}`);
  const about = { key, sources: [writer.print], tokenizer: vocabulary.sha256 };
  const written = async () => {
    await generateTokens(path, about, writer, open, job);
    return (await openTokens(path, key))!;
  };
  const own = (await opened(path, key, job)) ?? (await written());
  const stores = [own];
  const close = async () => {
    for (const store of stores) await store.close();
  };
  try {
    const { heldOut } = data;
    const isHeld = (place: number) => "share" in heldOut && place < heldOut.share;
    const training = own.select((_, place) => !isHeld(place));
    if (!("share" in heldOut))
      stores.push(await tokenized(folder, { corpus, prints, reading: readingOf(data), vocabulary }, job));
    const held = stores[1]?.select(() => true) ?? own.select((_, place) => isHeld(place));
    if (training.length === 0 || held.length === 0) {
      throw new InputError(
        `data.heldOut: ${heldOutWords(data)} leaves ${training.length} generated ids to train on and keeps ${held.length} for validation; choose another, or more data.generate.tokens`,
      );
    }
    const { ids, documents: count, sha256 } = own.header;
    return {
      vocabulary,
      training,
      heldOut: held,
      emptyDocuments: stores[1]?.header.empty ?? 0,
      generated: { tokens: ids, texts: count, sha256: sha256.ids },
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
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
  const byName = !("share" in heldOut);
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

/** Files to be encoded, and how. */
type Encoded = Pick<Sources, "corpus" | "prints"> & {
  readonly reading: Reading;
  readonly vocabulary: Vocabulary;
};

/** Files as ids, from `folder` where they are there. */
async function tokenized(folder: string, text: Encoded, job: Job): Promise<StoredTokens> {
  const { corpus, prints, reading, vocabulary } = text;
  const key = hash(["tokens", 1, contents(corpus.files, prints), reading, vocabulary.sha256]);
  const path = paths().join(folder, `tokens-${key.slice(0, 16)}`);
  return (await opened(path, key, job)) ?? (await encoded(path, key, text, job));
}

async function encoded(path: string, key: string, text: Encoded, job: Job): Promise<StoredTokens> {
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
    {
      vocabulary: tokenizer.vocabulary,
      start: tokenizer.bos ?? tokenizer.eos,
      encode: ({ text }) => encode(text),
    },
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
