import { InputError } from "../tensor/tensor.ts";
import { notStacked, splitBudget } from "./budget.ts";
import { deltaHead, overBase, splitDelta } from "./delta.ts";
import { list, openDisk, whatIs } from "./disk.ts";
import type { ModelFile } from "./file.ts";
import { fingerprintOf } from "./fingerprint.ts";
import { openGgufModel } from "./gguf-model.ts";
import { ggufOutput } from "./gguf-output.ts";
import { openHfFolder } from "./hf-folder.ts";
import { hfOutput } from "./hf-output.ts";
import { type HubOptions, hubFolder } from "./hub.ts";
import { openLlama2c } from "./llama2c.ts";
import { llama2cOutput, tokenizerBeside } from "./llama2c-output.ts";
import type { Convertible, ModelOutput } from "./output.ts";
import { snapshotFolder, splitSnapshot } from "./snapshots.ts";
import { openTokenizer, tokenizerFilesFrom } from "./tokenizer-files.ts";
import { atWidth, splitWidth } from "./widths.ts";

export { BLOCKS_KEY } from "./budget.ts";
export { checkTensors, checkVocabulary } from "./checks.ts";
export { DELTA_KEY, headOver, overBase } from "./delta.ts";
export { checkOutputFolder, claimFolder, isOurs, readText, writeFileAtomic } from "./disk.ts";
export type { ByteSource, Json, JsonObject, ModelFile, NamedBytes, TensorSource } from "./file.ts";
export { type KeptWeights, keptWeights } from "./kept-weights.ts";
export { memorySource } from "./memory.ts";
export { outlineOf, packedOutline, type WeightOutline } from "./outline.ts";
export type { Convertible, ModelOutput, NeededTensor } from "./output.ts";
export { recode } from "./recode.ts";
export { reorderRows, ropeOrder, rowRange } from "./rows.ts";
export { readSnapshots, type SnapshotEntry } from "./snapshots.ts";
export { decodeText } from "./text.ts";
export { openTokenizer } from "./tokenizer-files.ts";
export {
  holdingWriter,
  type ModelContents,
  modelWriter,
  type WriterOptions,
  weightsBytes,
  writeModel,
} from "./write-model.ts";

export interface OpenOptions extends HubOptions {
  /** File of the tokenizer, wherever a model comes without one; takes the place of its own. */
  readonly tokenizer?: string;
  readonly onWarning?: (message: string) => void;
}

/**
 * Opens a model for reading; reads headers only.
 *
 *   FOLDER              a Hugging Face folder
 *   FILE.gguf           a GGUF file of llama.cpp
 *   FILE.bin            a llama2.c checkpoint
 *   bundled:NAME        a model that comes with lowbit
 *   hf:OWNER/NAME[@REV] a model of the Hugging Face hub, from the cache or downloaded
 *   FOLDER@STEP         a snapshot that the model's training kept, bundled:NAME@STEP too; @last is the last one
 *   MODEL@4bit          a model that was trained to be read at several widths, at this one; FOLDER@STEP@4bit too
 *   MODEL@2.5MB         as many blocks of a stacked model as fit into so many bytes (B, kB, MB, GB, KiB, MiB, GiB)
 *   MODEL+DELTA         a base with what fine-tuning added to it; DELTA alone where its base is bundled, on the hub or beside it
 *
 * Throws an InputError of one line when it is none of these or damaged.
 */
export async function openModel(spec: string, options: OpenOptions = {}): Promise<ModelFile> {
  const model = await openWithDelta(spec, options);
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

/** A delta as it lies in its folder, without its base. */
export async function openDelta(spec: string, options: OpenOptions = {}): Promise<ModelFile> {
  return openAtWidth(spec, options);
}

async function openWithDelta(spec: string, options: OpenOptions): Promise<ModelFile> {
  const parts = (await whatIs(spec)) === "nothing" ? splitDelta(spec) : undefined;
  const file = await openAtWidth(parts?.delta ?? spec, options);
  try {
    const head = deltaHead(file);
    if (parts === undefined && head === undefined) return file;
    const base = await openWithDelta(parts?.base ?? (await baseBeside(spec, file.name, head!.base)), options);
    try {
      return await overBase(base, file);
    } catch (error) {
      await base.close();
      throw error;
    }
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** Where the base of a delta is when nobody says it: bundled, on the hub, or a folder or file beside the delta's. */
async function baseBeside(spec: string, name: string, base: string): Promise<string> {
  if (/^(bundled|hf):/.test(base)) return base;
  const own = base.replace(/^.*[\\/]/, ""); // a damaged config must not lead elsewhere
  const path = `${spec.replace(/[\\/]+$/, "").replace(/[^\\/]*$/, "")}${own}`;
  if (own !== "" && (await whatIs(path)) !== "nothing") return path;
  throw new InputError(
    `${name}: is a delta over ${base}, which is not beside it; give both, as BASE+${name}`,
  );
}

async function openAtWidth(spec: string, options: OpenOptions): Promise<ModelFile> {
  const { model, bits } = splitWidth(spec) ?? {};
  if (model === undefined || bits === undefined || (await whatIs(spec)) !== "nothing") {
    return openOwn(spec, options);
  }
  const whole = await openOwn(model, options);
  try {
    return atWidth(whole, bits, options.onWarning);
  } catch (error) {
    await whole.close();
    throw error;
  }
}

async function openOwn(given: string, options: OpenOptions): Promise<ModelFile> {
  const named = (await whatIs(given)) === "nothing" ? splitBudget(given) : undefined;
  const { model: spec = given, bytes } = named ?? {};
  if (spec.startsWith("hf:")) return openHfFolder(await hubFolder(spec, options), given, bytes);
  const snapshot = await snapshotOf(spec);
  if (snapshot) return openHfFolder(snapshot.folder, snapshot.name, bytes);
  if (spec.startsWith("bundled:")) return openHfFolder(await bundledFolder(spec), given, bytes);
  const name = nameOf(given);
  switch (await whatIs(spec)) {
    case "folder":
      return openHfFolder(spec, name, bytes);
    case "file":
      if (bytes !== undefined) throw notStacked(name);
      if (name.endsWith(".safetensors")) {
        throw new InputError(`${name}: weights alone; give the folder that holds them with config.json`);
      }
      if (name.endsWith(".gguf")) return openGguf(spec);
      return openCheckpoint(spec);
    default:
      throw new InputError(
        `${given}: no such file or folder; a model is a folder, a .gguf, a llama2.c .bin, bundled:NAME or hf:OWNER/NAME`,
      );
  }
}

/** The folder of the snapshot that `MODEL@STEP` names, and what it is called; undefined for names that mean something else. */
export async function snapshotOf(spec: string): Promise<{ folder: string; name: string } | undefined> {
  const { model, step } = splitSnapshot(spec) ?? {};
  if (model === undefined || step === undefined || (await whatIs(spec)) !== "nothing") return undefined;
  const bundled = model.startsWith("bundled:");
  if (!bundled && (await whatIs(model)) !== "folder") return undefined;
  const name = bundled ? model : nameOf(model);
  const folder = await snapshotFolder(bundled ? await bundledFolder(model) : model, name, step);
  return { folder, name: `${name}@${step}` };
}

function nameOf(path: string): string {
  return path.replace(/[\\/]+$/, "").replace(/^.*[\\/]/, "");
}

/** Containers that a model can be written in. */
export const containers = ["gguf", "hf", "llama2c"] as const;
export type Container = (typeof containers)[number];

export interface OutputOptions {
  /** Format of the matrices, where the container leaves a choice. */
  readonly type?: string;
  /** What the model is called in it. */
  readonly name: string;
  /** What its record will be like; GGUF leaves room for it. */
  record(planned: Pick<ModelOutput, "tensors" | "container">): object;
  /** Whether a file that stands there may be replaced; a folder may when lowbit made it. */
  readonly replace: boolean;
}

/** Begins a model in a container; nothing appears at `path` before `finish`. */
export async function openOutput(
  path: string,
  container: Container,
  model: Convertible,
  options: OutputOptions,
): Promise<ModelOutput> {
  if (container === "hf") return hfOutput(path, model, options);
  const places = container === "gguf" ? [path] : [path, tokenizerBeside(path)];
  for (const place of places) {
    const name = place.replace(/^.*[\\/]/, "");
    const found = await whatIs(place);
    if (found === "folder")
      throw new InputError(`${name}: output needs a file, met a folder; choose another name`);
    if (found === "file" && !options.replace)
      throw new InputError(`${name}: is there already; choose another name, or replace it with --force`);
  }
  return container === "gguf" ? ggufOutput(path, model, options) : llama2cOutput(path, model, options);
}

async function openGguf(path: string): Promise<ModelFile> {
  const file = await openDisk(path);
  try {
    return await openGgufModel(file);
  } catch (error) {
    await file.close();
    throw error;
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
