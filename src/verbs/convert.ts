import {
  type Container,
  type Convertible,
  containers,
  type ModelOutput,
  openOutput,
  recode,
  reorderRows,
  ropeOrder,
  rowRange,
} from "../files/index.ts";
import { checkFinite, decodeWeight, encodeWeight, formatByName } from "../formats/index.ts";
import type { Model } from "../models/model.ts";
import { baseName, startRecord } from "../record/make.ts";
import { pauses } from "../record/pause.ts";
import type { Job, Record } from "../record/record.ts";
import { InputError, naming } from "../tensor/tensor.ts";
import type { Weight } from "../tensor/weight.ts";
import { openChecked } from "./load.ts";

export interface ConvertOptions {
  readonly model: string;
  /** File or folder to write. */
  readonly output: string;
  /** Default: by the ending of `output`: .gguf, .bin, else a Hugging Face folder. */
  readonly to?: Container;
  /** Type of the matrices: of GGUF any of ggml's, of folders f32, f16 or bf16. Default: as they are, where the container has it. */
  readonly type?: string;
  readonly tokenizer?: string;
  /** Replace a file that stands there. */
  readonly force?: boolean;
}

export interface ConvertedTensor {
  readonly name: string;
  readonly from: string;
  readonly to: string;
  /** Whether every weight is the same number as before. */
  readonly lossless: boolean;
  readonly note?: string;
}

export interface ConvertResult {
  readonly container: { readonly from: string; readonly to: string };
  /** Of the weights' files. */
  readonly bytes: { readonly before: number; readonly after: number };
  /** All tensors are. */
  readonly lossless: boolean;
  readonly tensors: readonly ConvertedTensor[];
  /** Names of what was written. */
  readonly files: readonly string[];
  /** The record that came with the model: how it was made. */
  readonly source?: object;
}

const FLOATS = ["f32", "f16", "bf16"];
/** Weights converted between two pauses. */
const PIECE = 2 ** 16;

/**
 * Writes a model in another container: Hugging Face folder, GGUF or llama2.c. The rows of q and k are put in the order
 * that readers of the container expect. One tensor is in memory at a time; the output appears whole or not at all.
 */
export async function convert(options: ConvertOptions, job: Job = {}): Promise<Record<ConvertResult>> {
  const { model: spec, output, type, tokenizer, force = false } = options;
  const to = options.to ?? containerOf(output);
  if (!containers.includes(to))
    throw new InputError(`convert: --to must be one of ${containers.join(", ")}, got ${to}`);
  const finish = startRecord("convert", {
    model: baseName(spec),
    output: baseName(output),
    to,
    ...(type === undefined ? {} : { type }),
    ...(tokenizer === undefined ? {} : { tokenizer: baseName(tokenizer) }),
  });
  const { file, model } = await openChecked(spec, { tokenizer }, job);
  try {
    const source: Convertible = {
      file,
      sizes: model.config,
      tensors: model.tensors.map((tensor) => ({ ...tensor, format: file.source.format(tensor.name) })),
    };
    const inputs = { models: [{ name: file.name, ...(await file.fingerprint()) }] };
    const recordOf = (
      planned: Pick<ModelOutput, "tensors" | "container">,
      after: number,
      lossless: ReadonlyMap<string, boolean>,
    ) => {
      const tensors = planned.tensors.map(({ name, format, note }): ConvertedTensor => {
        const from = file.source.format(name);
        return { name, from, to: format, lossless: lossless.get(name) ?? false, ...(note && { note }) };
      });
      return finish(undefined, inputs, {
        container: { from: file.container, to: planned.container },
        bytes: { before: file.bytes, after },
        lossless: tensors.every((tensor) => tensor.lossless),
        tensors,
        files: [baseName(output)],
        ...(file.record && { source: file.record }),
      });
    };
    const writer = await openOutput(output, to, source, {
      type,
      name: nameOf(spec),
      replace: force,
      record: (planned) => recordOf(planned, Number.MAX_SAFE_INTEGER, new Map()),
    });
    try {
      for (const warning of writer.warnings) job.onWarning?.(warning);
      const lossless = await writeAll(source, model, writer, job);
      const record = recordOf(writer, writer.bytes, lossless);
      const again = record.tensors.find((tensor) => !tensor.lossless && !FLOATS.includes(tensor.from));
      if (again) {
        job.onWarning?.(
          `${file.name}: ${again.name} was stored as ${again.from} already; rounding it to ${again.to} added to its error`,
        );
      }
      const files = await writer.finish(record);
      return { ...record, files: files.map(baseName) };
    } finally {
      await writer.discard(); // does nothing after finish
    }
  } finally {
    await file.close();
  }
}

function containerOf(output: string): Container {
  if (output.endsWith(".gguf")) return "gguf";
  return output.endsWith(".bin") ? "llama2c" : "hf";
}

/** What a model is called inside another file: its own name without the ending. */
function nameOf(spec: string): string {
  return baseName(spec)
    .replace(/^(bundled|hf):/, "")
    .replace(/\.(gguf|bin)$/, "");
}

/** Writes every tensor; tells for each whether it lost nothing. */
async function writeAll(
  { file }: Convertible,
  { config, tensors }: Model,
  writer: ModelOutput,
  job: Job,
): Promise<Map<string, boolean>> {
  const pause = pauses(job);
  const lossless = new Map<string, boolean>();
  const turned = config.ropePairing !== writer.pairing;
  for (const [done, { name, format }] of writer.tensors.entries()) {
    await pause();
    job.onProgress?.({ task: "convert", done, total: tensors.length, unit: "tensors", note: name });
    const read = await file.source.read(name);
    checkFinite(file.name, name, read);
    const isTurned = turned && /\.self_attn\.[qk]_proj\./.test(name);
    const weight = isTurned ? reordered(read, config.headDim, writer.pairing) : read;
    for (const rows of pieces(weight)) {
      const { parts, lossless: all } = naming(`${file.name}: tensor ${name}`, () => recode(rows, format));
      lossless.set(name, all && (lossless.get(name) ?? true));
      await writer.write(name, parts);
      await pause();
    }
  }
  return lossless;
}

function reordered(weight: Weight, headDim: number, to: "neighbours" | "halves"): Weight {
  const order = ropeOrder(weight.shape[0], headDim, to);
  const plain = () => encodeWeight(formatByName("f32"), weight.shape, decodeWeight(weight).data);
  return reorderRows(weight, order) ?? reorderRows(plain(), order)!;
}

/** A weight in pieces of whole rows, or whole where it has none. */
function* pieces(weight: Weight): Generator<Weight> {
  const [rows, cols] = weight.shape;
  const step = Math.max(1, Math.floor(PIECE / (cols ?? 1)));
  if (weight.shape.length !== 2 || rowRange(weight, 0, 0) === undefined) return yield weight;
  for (let from = 0; from < rows; from += step) yield rowRange(weight, from, Math.min(rows, from + step))!;
}
