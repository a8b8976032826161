import { InputError } from "../tensor/tensor.ts";
import type { GgufVocabulary, TokenizerData } from "../tokenizers/tokenizer.ts";
import { list, openDisk, readSmall, whatIs } from "./disk.ts";
import type { NamedBytes } from "./file.ts";
import { openGguf } from "./gguf.ts";
import { ggufVocabularyOf, vocabularyFiles } from "./gguf-tokenizer.ts";
import { checkCost } from "./json.ts";
import { readSentencePiece, readTokBin } from "./sentencepiece.ts";

/** The largest vocabularies in use take 40 MB as tokenizer.json. */
const LARGEST_TOKENIZER = 2 ** 26;
/** As a SentencePiece model they take 5 MB, and less as tok.bin. */
const LARGEST_PIECES = 2 ** 24;
/** Bytes of memory that tokenizer.json may take: a vocabulary of 262,144 pieces and half a million merges needs 90 MB. */
const MOST_MEMORY = 2 ** 28;

/** Names under which a folder holds its tokenizer, the one we prefer first. */
const TOKENIZERS = ["tokenizer.json", "tokenizer.model", "tokenizer.bin"];
/** What stands beside it and is carried along. */
const COMPANIONS = [
  "tokenizer_config.json",
  "special_tokens_map.json",
  "chat_template.jinja",
  "chat_template.json",
];

/** Vocabulary in a file: tokenizer.json (with tokenizer_config.json and chat_template.jinja beside it), a SentencePiece *.model, a llama2.c tok*.bin, a *.gguf. */
export async function openTokenizer(file: string): Promise<TokenizerData> {
  if ((await whatIs(file)) === "folder") {
    const inside = await tokenizerPath(file);
    if (inside === undefined)
      throw new InputError(`${baseName(file)}: the folder holds none of ${TOKENIZERS.join(", ")}`);
    return openTokenizer(inside);
  }
  const name = baseName(file);
  if (name.endsWith(".gguf")) return openGgufVocabulary(file);
  const bytes = await readSmall(file, largest(name));
  if (name.endsWith(".json")) {
    const beside = async (other: string) => {
      const path = file.slice(0, file.length - name.length) + other;
      return (await whatIs(path)) === "file" ? readSmall(path, LARGEST_TOKENIZER) : undefined;
    };
    const data = readTokenizerJson(bytes, name, await beside("tokenizer_config.json"));
    // Newer folders keep the chat template in a file of its own, which counts before the config's.
    const template = await beside("chat_template.jinja");
    if (template === undefined) return data;
    return { ...data, config: { ...data.config, chat_template: new TextDecoder().decode(template) } };
  }
  if (name.endsWith(".model")) return readSentencePiece(bytes, name);
  if (name.endsWith(".bin")) return readTokBin(bytes, name);
  throw new InputError(
    `${name}: needs a tokenizer.json, a SentencePiece .model, a llama2.c tok*.bin or a .gguf`,
  );
}

/** tokenizer.json, and what tokenizer_config.json beside it holds. */
export function readTokenizerJson(
  bytes: Uint8Array,
  name: string,
  config?: Uint8Array,
): TokenizerData & { kind: "huggingface" } {
  const tokenizer = parse(bytes, name);
  if (!("model" in tokenizer))
    throw new InputError(`${name}: not a Hugging Face tokenizer: it has no "model"`);
  return {
    kind: "huggingface",
    tokenizer,
    config: config === undefined ? {} : parse(config, "tokenizer_config.json"),
  };
}

async function openGgufVocabulary(path: string): Promise<GgufVocabulary> {
  const file = await openDisk(path);
  try {
    const vocabulary = await ggufVocabularyOf(file.name, await openGguf(file));
    if (vocabulary === undefined) throw new InputError(`${file.name}: holds no tokenizer`);
    return vocabulary;
  } finally {
    await file.close();
  }
}

/** The tokenizer's file in a folder, when there is one. */
export async function tokenizerPath(folder: string): Promise<string | undefined> {
  const names = await list(folder);
  const name = TOKENIZERS.find((candidate) => names.includes(candidate));
  return name === undefined ? undefined : `${folder}/${name}`;
}

/** All files of a folder that belong to its tokenizer, byte for byte. */
export async function tokenizerFilesOf(folder: string): Promise<NamedBytes[]> {
  const names = await list(folder);
  return Promise.all(
    [...TOKENIZERS, ...COMPANIONS]
      .filter((name) => names.includes(name))
      .map(async (name) => ({ name, bytes: await readSmall(`${folder}/${name}`, largest(name)) })),
  );
}

/** A tokenizer's single file, under the name that a folder needs, and what stands beside a tokenizer.json. */
export async function tokenizerFilesFrom(file: string): Promise<NamedBytes[]> {
  const name = baseName(file);
  if ((await whatIs(file)) === "folder") return tokenizerFilesOf(file);
  if (name.endsWith(".gguf")) return vocabularyFiles(await openGgufVocabulary(file));
  const bytes = await readSmall(file, largest(name));
  const named = [{ name: `tokenizer.${name.slice(name.lastIndexOf(".") + 1)}`, bytes }];
  for (const other of name.endsWith(".json") ? COMPANIONS : []) {
    const path = file.slice(0, file.length - name.length) + other;
    if ((await whatIs(path)) === "file")
      named.push({ name: other, bytes: await readSmall(path, LARGEST_TOKENIZER) });
  }
  return named;
}

function largest(name: string): number {
  return /\.(model|bin)$/.test(name) ? LARGEST_PIECES : LARGEST_TOKENIZER;
}

function baseName(path: string): string {
  return path.replace(/[\\/]+$/, "").replace(/^.*[\\/]/, "");
}

/** Plain JSON: a vocabulary may spell what it likes, and is too long to look through twice. */
function parse(bytes: Uint8Array, file: string): object {
  checkCost(bytes, MOST_MEMORY, file);
  try {
    const value = JSON.parse(new TextDecoder().decode(bytes));
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return value;
  } catch {}
  throw new InputError(`${file}: not a JSON object; truncated?`);
}
