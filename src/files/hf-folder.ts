import { InputError } from "../tensor/tensor.ts";
import { withinBudget } from "./budget.ts";
import { list, openDisk, readSmall, whatIs } from "./disk.ts";
import type { JsonObject, ModelFile } from "./file.ts";
import { fingerprintOf } from "./fingerprint.ts";
import { isObject, parseJson } from "./json.ts";
import { type Shard, safetensorsSource } from "./safetensors-source.ts";
import { openTokenizer, tokenizerFilesOf, tokenizerPath } from "./tokenizer-files.ts";

/** Configs and indexes are a few megabytes at the very most: that of 91,000 tensors, the longest in use, has 8. */
const LARGEST_JSON = 3 * 2 ** 22;
/** All of them are open at a time, and systems allow a thousand; the largest models have 200. */
const MOST_SHARDS = 500;
export const WEIGHTS_FILE = "model.safetensors";
export const INDEX_FILE = "model.safetensors.index.json";

/**
 * Opens a folder in the form of Hugging Face: config.json, model.safetensors
 * or its shards with an index, and where they are there
 * generation_config.json, a tokenizer and record.json. Reads the headers of
 * the weights only. Of a stacked model with a budget (bytes of weights) only the blocks that fit are there. Throws an
 * InputError that names the file.
 */
export async function openHfFolder(folder: string, name: string, budget?: number): Promise<ModelFile> {
  const json = async (file: string): Promise<JsonObject | undefined> => {
    const path = `${folder}/${file}`;
    return (await whatIs(path)) === "file" ? parseJson(await readSmall(path, LARGEST_JSON), file) : undefined;
  };
  const config = await json("config.json");
  if (config === undefined)
    throw new InputError(
      `${name}: the folder holds no config.json; is it a model, and was its training finished?`,
    );
  const record = await json("record.json");
  if (record !== undefined && typeof record.version === "number" && record.version > 1) {
    throw new InputError(
      `${name}: record.json has version ${record.version}, this lowbit knows 1; update lowbit`,
    );
  }
  const generation = await json("generation_config.json");
  const tokenizer = await tokenizerPath(folder);
  const tokenizerData = tokenizer === undefined ? undefined : await openTokenizer(tokenizer);

  const shards = await openShards(folder, name, await json(INDEX_FILE));
  const files = shards.map((shard) => shard.file);
  try {
    const source = await safetensorsSource(shards, config.quantization_config);
    let print: ReturnType<typeof fingerprintOf> | undefined;
    const whole: ModelFile = {
      name,
      bytes: files.reduce((bytes, file) => bytes + file.byteLength, 0),
      fingerprint: () => {
        print ??= fingerprintOf(config, files);
        return print;
      },
      config,
      generation,
      source,
      tokenizer: tokenizerData,
      tokenizerFiles: () => tokenizerFilesOf(folder),
      container: "safetensors",
      record,
      close: () => source.close(),
    };
    return budget === undefined ? whole : await withinBudget(whole, shards, budget);
  } catch (error) {
    for (const file of files) await file.close();
    throw error;
  }
}

async function openShards(folder: string, model: string, index: JsonObject | undefined): Promise<Shard[]> {
  if (index !== undefined && (await whatIs(`${folder}/${WEIGHTS_FILE}`)) !== "file") {
    const names = namesByFile(index);
    if (names.size > MOST_SHARDS)
      throw new InputError(`${INDEX_FILE}: names ${names.size} files; at most ${MOST_SHARDS} are opened`);
    const shards: Shard[] = [];
    try {
      for (const [file, tensors] of names)
        shards.push({ file: await openDisk(`${folder}/${file}`), names: tensors });
    } catch (error) {
      for (const { file } of shards) await file.close();
      throw error;
    }
    return shards;
  }
  const found = await list(folder);
  const weights = found.filter((file) => file.endsWith(".safetensors"));
  const file = weights.includes(WEIGHTS_FILE) ? WEIGHTS_FILE : weights.length === 1 ? weights[0] : undefined;
  if (file !== undefined) return [{ file: await openDisk(`${folder}/${file}`) }];
  const others = found.filter((other) => /^pytorch_model.*\.bin$|\.(gguf|onnx|h5|msgpack)$/.test(other));
  const met = weights.length > 1 ? `several without ${INDEX_FILE}` : others.length > 0 ? others[0] : "none";
  throw new InputError(`${model}: needs ${WEIGHTS_FILE}, met ${met}`);
}

/** The index's weight_map turned round; file names must stay inside the folder. */
function namesByFile(index: JsonObject): Map<string, Set<string>> {
  const map = index.weight_map;
  if (!isObject(map)) throw new InputError(`${INDEX_FILE}: needs a weight_map`);
  const byFile = new Map<string, Set<string>>();
  for (const [tensor, file] of Object.entries(map)) {
    if (typeof file !== "string" || /[\\/\0]/.test(file) || !file.endsWith(".safetensors")) {
      throw new InputError(
        `${INDEX_FILE}: tensor ${tensor}: ${JSON.stringify(file)} is not the name of a safetensors file beside it`,
      );
    }
    byFile.set(file, (byFile.get(file) ?? new Set()).add(tensor));
  }
  return byFile;
}
