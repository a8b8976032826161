import { formatByName } from "../formats/index.ts";
import { InputError, sizeOf } from "../tensor/tensor.ts";
import { PART_BYTES, type PartType, packedWeight, type Weight } from "../tensor/weight.ts";
import type { ByteSource, JsonObject, ModelFile } from "./file.ts";
import { fingerprintOf } from "./fingerprint.ts";
import { type Gguf, type GgufTensor, openGguf, RECORD_KEY } from "./gguf.ts";
import { llamaConfig, llamaTensors } from "./gguf-llama.ts";
import { ggufVocabularyOf, vocabularyFiles } from "./gguf-tokenizer.ts";
import { parseJson } from "./json.ts";

/**
 * Opens a GGUF model; reads its header and vocabulary only. Tensors have their
 * Hugging Face names; types that lowbit has formats for are read as they are,
 * other exact ones as float32, and those that need ggml's grids are refused
 * when they are read. Throws an InputError of one line.
 */
export async function openGgufModel(file: ByteSource): Promise<ModelFile> {
  const gguf = await openGguf(file);
  const architecture = gguf.metadata.get("general.architecture");
  const parts = gguf.metadata.get("split.count");
  if (typeof parts === "number" && parts > 1) {
    throw new InputError(
      `${file.name}: one of ${parts} files of a split model; join them with llama.cpp's llama-gguf-split --merge`,
    );
  }
  if (architecture !== "llama") {
    const met = typeof architecture === "string" ? JSON.stringify(architecture) : "none";
    throw new InputError(`${file.name}: general.architecture is ${met}; lowbit runs "llama"`);
  }
  if (gguf.tensors.size === 0) {
    throw new InputError(
      `${file.name}: holds a vocabulary and no tensors; give it with --tokenizer, beside a model`,
    );
  }
  const tensors = llamaTensors(file.name, gguf);
  const config = await llamaConfig(file.name, gguf, tensors);
  const tokenizer = await ggufVocabularyOf(file.name, gguf);
  const tensor = (name: string) => {
    const found = tensors.get(name);
    if (found === undefined) throw new InputError(`${file.name}: has no tensor ${name}`);
    return found;
  };
  return {
    name: file.name,
    bytes: file.byteLength,
    fingerprint: () => fingerprintOf(undefined, [file]),
    config,
    source: {
      names: [...tensors.keys()],
      has: (name) => tensors.has(name),
      shape: (name) => tensor(name).shape,
      format: (name) => readAs(tensor(name)),
      bytes: (name) => tensor(name).bytes,
      read: (name) => readWeight(file.name, gguf, tensor(name)),
      close: () => file.close(),
    },
    tokenizer,
    tokenizerFiles: async () => (tokenizer === undefined ? [] : vocabularyFiles(tokenizer)),
    container: containerOf(gguf),
    record: recordOf(file.name, gguf),
    close: () => file.close(),
  };
}

/** Format that a tensor has when it is read; a type that is refused has its own name. */
function readAs({ type }: GgufTensor): string {
  return type.reading.kind === "decoded" ? "f32" : type.name;
}

async function readWeight(file: string, gguf: Gguf, tensor: GgufTensor): Promise<Weight> {
  const { name, shape, type } = tensor;
  const { reading } = type;
  if (reading.kind === "refused")
    throw new InputError(`${file}: tensor ${name} is stored as ${type.name}: ${reading.why}`);
  const bytes = await gguf.read(tensor);
  const plain = (dtype: PartType, data: Uint8Array) =>
    packedWeight(shape, dtype, { data: { dtype, shape, bytes: data } });
  if (reading.kind === "decoded") {
    const values = reading.decode(bytes);
    return plain("f32", new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
  }
  if (Object.hasOwn(PART_BYTES, type.name)) return plain(type.name as PartType, bytes);
  const cols = shape.at(-1) ?? 1;
  const [part] = formatByName(type.name).parts(sizeOf(shape) / cols, cols);
  return packedWeight(shape, type.name, { [part.name]: { dtype: part.dtype, shape: part.shape, bytes } });
}

function containerOf({ version, bigEndian, tensors }: Gguf): string {
  const decoded = new Set<string>();
  for (const { type } of tensors.values()) if (type.reading.kind === "decoded") decoded.add(type.name);
  return [
    `GGUF version ${version}${bigEndian ? ", big-endian" : ""}`,
    ...(decoded.size === 0 ? [] : [`${[...decoded].join(", ")} decoded to f32 when read`]),
  ].join(", ");
}

/** The record that lowbit wrote into the file. */
function recordOf(file: string, { metadata }: Gguf): JsonObject | undefined {
  const text = metadata.get(RECORD_KEY);
  if (text === undefined) return undefined;
  if (typeof text !== "string") throw new InputError(`${file}: key ${RECORD_KEY} must be a string`);
  return parseJson(new TextEncoder().encode(text), `${file}: ${RECORD_KEY}`);
}
