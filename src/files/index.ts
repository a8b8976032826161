import { InputError } from "../tensor/tensor.ts";
import { list, openDisk, whatIs } from "./disk.ts";
import type { ModelFile } from "./file.ts";
import { fingerprintOf } from "./fingerprint.ts";
import { openHfFolder } from "./hf-folder.ts";
import { type HubOptions, hubFolder } from "./hub.ts";
import { openLlama2c } from "./llama2c.ts";
import { openTokenizer, tokenizerFilesFrom } from "./tokenizer-files.ts";

export { checkTensors, checkVocabulary } from "./checks.ts";
export { claimFolder, isOurs, readText, writeFileAtomic } from "./disk.ts";
export type { ByteSource, Json, JsonObject, ModelFile, NamedBytes, TensorSource } from "./file.ts";
export { memorySource } from "./memory.ts";
export { outlineOf, packedOutline, type WeightOutline } from "./outline.ts";
export { decodeText } from "./text.ts";
export { openTokenizer } from "./tokenizer-files.ts";
export { type ModelContents, modelWriter, type WriterOptions, writeModel } from "./write-model.ts";

export interface OpenOptions extends HubOptions {
  /** File of the tokenizer, wherever a model comes without one; takes the place of its own. */
  readonly tokenizer?: string;
}

/**
 * Opens a model for reading; reads headers only.
 *
 *   FOLDER              a Hugging Face folder
 *   FILE.bin            a llama2.c checkpoint
 *   bundled:NAME        a model that comes with lowbit
 *   hf:OWNER/NAME[@REV] a model of the Hugging Face hub, from the cache or downloaded
 *
 * Throws an InputError of one line when it is none of these or damaged.
 */
export async function openModel(spec: string, options: OpenOptions = {}): Promise<ModelFile> {
  const model = await openOwn(spec, options);
  const { tokenizer } = options;
  if (tokenizer === undefined) return model;
  try {
    return {
      ...model,
      tokenizer: await openTokenizer(tokenizer),
      tokenizerFiles: () => tokenizerFilesFrom(tokenizer),
    };
  } catch (error) {
    await model.close();
    throw error;
  }
}

async function openOwn(spec: string, options: OpenOptions): Promise<ModelFile> {
  if (spec.startsWith("hf:")) return openHfFolder(await hubFolder(spec, options), spec);
  if (spec.startsWith("bundled:")) return openHfFolder(await bundledFolder(spec), spec);
  const name = spec.replace(/[\\/]+$/, "").replace(/^.*[\\/]/, "");
  if (name.endsWith(".gguf")) {
    throw new InputError(
      `${name}: GGUF files are not read yet; that comes in a later version; use the model's safetensors`,
    );
  }
  switch (await whatIs(spec)) {
    case "folder":
      return openHfFolder(spec, name);
    case "file":
      if (name.endsWith(".safetensors")) {
        throw new InputError(`${name}: weights alone; give the folder that holds them with config.json`);
      }
      return openCheckpoint(spec);
    default:
      throw new InputError(
        `${spec}: no such file or folder; a model is a folder, a llama2.c .bin, bundled:NAME or hf:OWNER/NAME`,
      );
  }
}

async function openCheckpoint(path: string): Promise<ModelFile> {
  const file = await openDisk(path);
  try {
    const { source, config, container } = await openLlama2c(file);
    return {
      name: file.name,
      bytes: file.byteLength,
      fingerprint: () => fingerprintOf(undefined, [file]),
      config,
      source,
      tokenizerFiles: async () => [],
      container,
      close: () => source.close(),
    };
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** Folder of a model that comes with lowbit: `bundled/NAME` beside `src` or `dist`. */
async function bundledFolder(spec: string): Promise<string> {
  const { fileURLToPath } = process.getBuiltinModule("node:url");
  const root = fileURLToPath(new URL("../../bundled", import.meta.url));
  const entries = (await whatIs(root)) === "folder" ? await list(root) : [];
  const names = entries.filter((entry) => !entry.includes(".")); // folders of models, beside a README
  const name = spec.slice("bundled:".length);
  if (names.includes(name)) return `${root}/${name}`;
  const there = names.length === 0 ? "none came with this package" : `there is ${names.join(", ")}`;
  throw new InputError(`${spec}: no such bundled model; ${there}`);
}
