import { InputError } from "../tensor/tensor.ts";
import type { TokenizerData } from "../tokenizers/tokenizer.ts";
import { list, readSmall, whatIs } from "./disk.ts";
import type { NamedBytes } from "./file.ts";
import { readSentencePiece, readTokBin } from "./sentencepiece.ts";

/** The largest vocabularies in use take 40 MB as tokenizer.json. */
const LARGEST_TOKENIZER = 2 ** 28;

/** Names under which a folder holds its tokenizer, the one we prefer first. */
const TOKENIZERS = ["tokenizer.json", "tokenizer.model", "tokenizer.bin"];
/** What stands beside it and is carried along. */
const COMPANIONS = [
  "tokenizer_config.json",
  "special_tokens_map.json",
  "chat_template.jinja",
  "chat_template.json",
];

/** Vocabulary in a file: tokenizer.json (with tokenizer_config.json beside it), a SentencePiece *.model, a llama2.c tok*.bin. */
export async function openTokenizer(file: string): Promise<TokenizerData> {
  if ((await whatIs(file)) === "folder") {
    const inside = await tokenizerPath(file);
    if (inside === undefined)
      throw new InputError(`${baseName(file)}: the folder holds none of ${TOKENIZERS.join(", ")}`);
    return openTokenizer(inside);
  }
  const name = baseName(file);
  const bytes = await readSmall(file, LARGEST_TOKENIZER);
  if (name.endsWith(".json")) {
    const tokenizer = parse(bytes, name);
    if (!("model" in tokenizer))
      throw new InputError(`${name}: not a Hugging Face tokenizer: it has no "model"`);
    const config = `${file.slice(0, file.length - name.length)}tokenizer_config.json`;
    const hasConfig = (await whatIs(config)) === "file";
    return {
      kind: "huggingface",
      tokenizer,
      config: hasConfig ? parse(await readSmall(config, LARGEST_TOKENIZER), config) : {},
    };
  }
  if (name.endsWith(".model")) return readSentencePiece(bytes, name);
  if (name.endsWith(".bin")) return readTokBin(bytes, name);
  throw new InputError(`${name}: needs a tokenizer.json, a SentencePiece .model or a llama2.c tok*.bin`);
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
      .map(async (name) => ({ name, bytes: await readSmall(`${folder}/${name}`, LARGEST_TOKENIZER) })),
  );
}

/** A tokenizer's single file, under the name that a folder needs. */
export async function tokenizerFilesFrom(file: string): Promise<NamedBytes[]> {
  const name = baseName(file);
  if ((await whatIs(file)) === "folder") return tokenizerFilesOf(file);
  const bytes = await readSmall(file, LARGEST_TOKENIZER);
  const named = [{ name: `tokenizer.${name.slice(name.lastIndexOf(".") + 1)}`, bytes }];
  const config = `${file.slice(0, file.length - name.length)}tokenizer_config.json`;
  if (name.endsWith(".json") && (await whatIs(config)) === "file") {
    named.push({ name: "tokenizer_config.json", bytes: await readSmall(config, LARGEST_TOKENIZER) });
  }
  return named;
}

function baseName(path: string): string {
  return path.replace(/[\\/]+$/, "").replace(/^.*[\\/]/, "");
}

/** Plain JSON: a vocabulary may spell what it likes, and is too long to look through twice. */
function parse(bytes: Uint8Array, file: string): object {
  try {
    const value = JSON.parse(new TextDecoder().decode(bytes));
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return value;
  } catch {}
  throw new InputError(`${baseName(file)}: not a JSON object; truncated?`);
}
