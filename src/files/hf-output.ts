import { formats } from "../formats/index.ts";
import { InputError } from "../tensor/tensor.ts";
import { type Part, packedWeight } from "../tensor/weight.ts";
import { ggufVocabulary } from "../tokenizers/index.ts";
import type { JsonObject, ModelFile, NamedBytes } from "./file.ts";
import { vocabularyFiles } from "./gguf-tokenizer.ts";
import { packedOutline } from "./outline.ts";
import type { Convertible, ModelOutput } from "./output.ts";
import { modelWriter } from "./write-model.ts";

const PLAIN = ["f32", "f16", "bf16"];

/**
 * Begins a Hugging Face folder of a model: each tensor keeps its format, or all matrices get the plain one of `type`.
 * The rows of q and k stand as transformers wants them, so that everyone reads the folder alike.
 */
export async function hfOutput(
  folder: string,
  { file, tensors }: Convertible,
  { type }: { readonly type?: string },
): Promise<ModelOutput> {
  if (type !== undefined && !PLAIN.includes(type)) {
    throw new InputError(
      `convert: a folder is written as it is or in ${PLAIN.join(", ")}, not in ${type}; for fewer bits use lowbit compress --format`,
    );
  }
  const planned = tensors.map(({ name, shape, role, format }) => {
    const wanted = role === "norm" ? undefined : type;
    const kept = formats.has(format) ? format : "f32";
    const note = kept === format ? {} : { note: "put together from its parts" };
    return { name, shape, format: wanted ?? kept, ...(wanted === undefined ? note : {}) };
  });
  const shapes = new Map(planned.map(({ name, shape, format }) => [name, { shape, format }]));
  const writer = await modelWriter(folder, {
    config: configOf(file),
    weights: planned.map(({ name, shape, format }) => [name, packedOutline(name, shape, format)]),
  });
  const pieces = new Map<string, Map<string, Part[]>>();
  return {
    container: "safetensors",
    pairing: "halves",
    tensors: planned.map(({ shape: _, ...rest }) => rest),
    bytes: writer.bytes,
    warnings: [],
    // A weight is written whole: its pieces wait until the last one is there.
    async write(name, parts) {
      const { shape, format } = shapes.get(name)!;
      const waiting = pieces.get(name) ?? new Map<string, Part[]>();
      pieces.set(name, waiting);
      let rows = 0;
      for (const [path, part] of Object.entries(parts)) {
        const list = [...(waiting.get(path) ?? []), part];
        waiting.set(path, list);
        rows = list.reduce((sum, { shape: [count] }) => sum + count, 0);
      }
      if (rows < shape[0]) return;
      const whole = [...waiting].map(([path, list]) => [path, joined(list)] as const);
      pieces.delete(name);
      await writer.write(name, packedWeight(shape, format, Object.fromEntries(whole)));
    },
    async finish(record) {
      const { generation } = file;
      await writer.finish({ tokenizerFiles: await filesOf(file), generation, record });
      return [folder];
    },
    discard: () => writer.discard(),
  };
}

/** Config of a model whose halves turn together, which is Hugging Face's own way. */
function configOf({ config }: ModelFile): JsonObject {
  const { rope_pairing: _, ...rest } = config;
  return rest;
}

/** The tokenizer's files; llama2.c's, which only lowbit reads, as SentencePiece's. */
async function filesOf(file: ModelFile): Promise<readonly NamedBytes[]> {
  const files = await file.tokenizerFiles();
  const onlyOurs = files.length > 0 && files.every(({ name }) => name === "tokenizer.bin");
  return onlyOurs && file.tokenizer ? vocabularyFiles(ggufVocabulary(file.tokenizer)) : files;
}

function joined(parts: readonly Part[]): Part {
  if (parts.length === 1) return parts[0];
  const [{ dtype, shape }] = parts;
  const rows = parts.reduce((sum, part) => sum + part.shape[0], 0);
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.bytes.byteLength, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part.bytes, at);
    at += part.bytes.byteLength;
  }
  return { dtype, shape: [rows, ...shape.slice(1)], bytes };
}
