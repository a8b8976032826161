import { bytesPerMatrix, formatByName } from "../formats/index.ts";
import type { IntegerBits } from "../formats/integer.ts";
import { narrowed, narrowFormat, widths } from "../formats/narrow.ts";
import { InputError, sizeOf } from "../tensor/tensor.ts";
import type { ModelFile, TensorSource } from "./file.ts";

/** Key of a config.json: widths at which the model was trained to be read. */
export const WIDTHS_KEY = "lowbit_widths";

/**
 * `MODEL@4bit` in two; undefined for other names. `MODEL@STEP@4bit` is a
 * snapshot at 4 bits. Of a name of the hub the first @ begins a revision:
 * `hf:OWNER/NAME@main@4bit`.
 */
export function splitWidth(spec: string): { model: string; bits: number } | undefined {
  const [, model, bits] = /^(.+)@(\d{1,3})bit$/.exec(spec) ?? [];
  if (model === undefined || (model.startsWith("hf:") && !model.includes("@"))) return undefined;
  return { model, bits: Number(bits) };
}

/**
 * A model of 8 bits as it is at fewer: matrices stored in int8 or int8-offset
 * are narrowed when they are read, all else is as it was. An InputError for a
 * model that was not trained for it (families matquant and double-rounding);
 * a width between those of its training is a warning.
 */
export function atWidth(
  file: ModelFile,
  bits: number,
  onWarning: (message: string) => void = () => {},
): ModelFile {
  const { [WIDTHS_KEY]: trained, ...config } = file.config;
  const name = `${file.name}@${bits}bit`;
  if (!Array.isArray(trained) || !trained.every((width) => typeof width === "number")) {
    throw new InputError(
      `${name}: the model was not trained to be read at fewer bits; train one with the family matquant or double-rounding`,
    );
  }
  const list = trained.join(", ");
  if (!isWidth(bits)) {
    throw new InputError(
      `${name}: a model is read at ${widths.join(", ")} bits; this one was trained at ${list}`,
    );
  }
  if (!trained.includes(bits)) {
    onWarning(`${name}: was trained at ${list} bits, not at ${bits}; measure it before you rely on it`);
  }
  const source = narrowSource(file.source, bits);
  const bytes = (of: TensorSource) => of.names.reduce((sum, tensor) => sum + of.bytes(tensor), 0);
  return {
    ...file,
    name,
    config,
    source,
    bytes: file.bytes - bytes(file.source) + bytes(source),
    container: `${file.container}, read at ${bits} bits`,
    fingerprint: async () => {
      const print = await file.fingerprint();
      const hash = process.getBuiltinModule("node:crypto").createHash("sha256");
      // Another width is another model, though its bytes are among the same.
      return { ...print, sha256: hash.update(`${print.sha256}@${bits}bit`).digest("hex") };
    },
  };
}

function isWidth(bits: number): bits is IntegerBits {
  return widths.some((width) => width === bits);
}

function narrowSource(source: TensorSource, bits: IntegerBits): TensorSource {
  const formatOf = (name: string) => narrowFormat(source.format(name), bits);
  return {
    names: source.names,
    has: (name) => source.has(name),
    shape: (name) => source.shape(name),
    format: (name) => formatOf(name)?.name ?? source.format(name),
    bytes: (name) => {
      const format = formatOf(name);
      if (!format) return source.bytes(name);
      const shape = source.shape(name);
      const cols = shape[shape.length - 1];
      return bytesPerMatrix(formatByName(format.name), sizeOf(shape) / cols, cols);
    },
    read: async (name) => {
      const weight = await source.read(name);
      return formatOf(name) ? narrowed(weight, bits) : weight;
    },
    close: () => source.close(),
  };
}
