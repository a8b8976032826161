import { readSmall, remove, whatIs, writeFileAtomic } from "../files/disk.ts";
import type { ModelFile, NamedBytes } from "../files/index.ts";
import { openTokenizer } from "../files/index.ts";
import { paths } from "../files/node.ts";
import { tokenizerFilesFrom, tokenizerFilesOf } from "../files/tokenizer-files.ts";
import type { Job } from "../record/record.ts";
import { InputError } from "../tensor/tensor.ts";
import { type Cuts, cutsOf, trainerCuts } from "../tokenizers/cuts.ts";
import { type Tokenizer, tokenizerFrom, trainByteLevelBpe } from "../tokenizers/index.ts";
import { wordCache } from "../tokenizers/word-cache.ts";

/** A run's tokenizer, and its files as the finished model will hold them. */
export interface Vocabulary {
  readonly tokenizer: Tokenizer;
  /** The same ids as the tokenizer's `encode`, as fast as is known for it. */
  readonly encode: (text: string) => Int32Array;
  /** Where long texts may be cut before they are encoded. */
  readonly cuts?: Cuts;
  readonly files: readonly NamedBytes[];
  /** Of the files. */
  readonly sha256: string;
}

/** The tokenizer in a file. */
export async function readVocabulary(file: string): Promise<Vocabulary> {
  const data = await openTokenizer(file);
  const tokenizer = tokenizerFrom(data);
  const files = await tokenizerFilesFrom(file);
  return {
    tokenizer,
    encode: (text) => tokenizer.encode(text),
    cuts: cutsOf(data),
    files,
    sha256: sha256(files.flatMap(({ name, bytes }) => [name, bytes])),
  };
}

/** The tokenizer that comes with a model; an InputError when none does. */
export async function vocabularyOfModel(file: ModelFile): Promise<Vocabulary> {
  if (!file.tokenizer)
    throw new InputError(`${file.name}: comes without a tokenizer; needs a model whose own is known`);
  const tokenizer = tokenizerFrom(file.tokenizer);
  const files = await file.tokenizerFiles();
  return {
    tokenizer,
    encode: (text) => tokenizer.encode(text),
    cuts: cutsOf(file.tokenizer),
    files,
    sha256: sha256(files.flatMap(({ name, bytes }) => [name, bytes])),
  };
}

/**
 * A tokenizer trained on texts, kept in `folder` for other runs of the same
 * `key`, which names everything that it is made of. What is damaged there is
 * made anew, and a warning says so.
 */
export async function trainVocabulary(
  texts: () => AsyncIterable<string>,
  size: number,
  folder: string,
  key: string,
  job: Job = {},
): Promise<Vocabulary> {
  const { join } = paths();
  const [config, json, seal] = NAMES.map((name) => join(folder, name));
  const wrong = await broken([config, json], seal, key);
  if (wrong !== undefined) {
    if (wrong !== "")
      job.onWarning?.(`${paths().basename(folder)}: ${wrong}; the vocabulary is trained anew`);
    await remove(seal);
    const data = await trainByteLevelBpe(texts(), size, job);
    await writeFileAtomic(config, jsonBytes(data.config));
    await writeFileAtomic(json, jsonBytes(data.tokenizer));
    await writeFileAtomic(seal, jsonBytes({ key, sha256: await hashOf([config, json]) }));
  }
  const tokenizer = tokenizerFrom(await openTokenizer(json));
  const files = await tokenizerFilesOf(folder);
  return {
    tokenizer,
    encode: wordCache(tokenizer),
    cuts: trainerCuts(),
    files,
    sha256: sha256(files.flatMap(({ name, bytes }) => [name, bytes])),
  };
}

/** The last one says what the others are, and is written when they are there. */
const NAMES = ["tokenizer_config.json", "tokenizer.json", "vocabulary.json"];
const LARGEST_FILE = 2 ** 27;

/** Why the files are not what `key` names: empty where there are none, undefined where they are. */
async function broken(files: readonly string[], seal: string, key: string): Promise<string | undefined> {
  for (const path of [seal, ...files]) if ((await whatIs(path)) !== "file") return "";
  try {
    const said = JSON.parse(new TextDecoder().decode(await readSmall(seal, LARGEST_FILE)));
    if (said.key !== key) return "its vocabulary is of another text";
    if (said.sha256 === (await hashOf(files))) return undefined;
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
  }
  return "its vocabulary is damaged";
}

async function hashOf(files: readonly string[]): Promise<string> {
  return sha256(await Promise.all(files.map((path) => readSmall(path, LARGEST_FILE))));
}

function sha256(parts: readonly (string | Uint8Array)[]): string {
  const hash = process.getBuiltinModule("node:crypto").createHash("sha256");
  for (const part of parts) hash.update(part);
  return hash.digest("hex");
}

function jsonBytes(value: object): Uint8Array {
  return new TextEncoder().encode(`${JSON.stringify(value, null, 1)}\n`);
}
