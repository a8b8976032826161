import { whatIs } from "../files/disk.ts";
import type { NamedBytes } from "../files/index.ts";
import { openTokenizer, writeFileAtomic } from "../files/index.ts";
import { paths } from "../files/node.ts";
import { tokenizerFilesFrom, tokenizerFilesOf } from "../files/tokenizer-files.ts";
import type { Job } from "../record/record.ts";
import { type Tokenizer, tokenizerFrom, trainByteLevelBpe } from "../tokenizers/index.ts";
import { wordCache } from "../tokenizers/word-cache.ts";
import { texts } from "./corpus.ts";

/** A run's tokenizer, and its files as the finished model will hold them. */
export interface Vocabulary {
  readonly tokenizer: Tokenizer;
  /** The same ids as the tokenizer's `encode`, as fast as is known for it. */
  readonly encode: (text: string) => Int32Array;
  readonly files: readonly NamedBytes[];
}

/** The tokenizer in a file. */
export async function readVocabulary(file: string): Promise<Vocabulary> {
  const tokenizer = tokenizerFrom(await openTokenizer(file));
  return { tokenizer, encode: (text) => tokenizer.encode(text), files: await tokenizerFilesFrom(file) };
}

/** A tokenizer trained on the files, kept in `folder` for when the run is resumed. */
export async function trainVocabulary(
  files: readonly string[],
  size: number,
  folder: string,
  job: Job = {},
): Promise<Vocabulary> {
  const { join } = paths();
  if ((await whatIs(join(folder, LAST))) !== "file") {
    const data = await trainByteLevelBpe(texts(files), size, job);
    await writeFileAtomic(join(folder, "tokenizer_config.json"), jsonBytes(data.config));
    await writeFileAtomic(join(folder, LAST), jsonBytes(data.tokenizer));
  }
  const tokenizer = tokenizerFrom(await openTokenizer(join(folder, LAST)));
  return { tokenizer, encode: wordCache(tokenizer), files: await tokenizerFilesOf(folder) };
}

/** Written last: where it is, the other is too. */
const LAST = "tokenizer.json";

function jsonBytes(value: object): Uint8Array {
  return new TextEncoder().encode(`${JSON.stringify(value, null, 1)}\n`);
}
