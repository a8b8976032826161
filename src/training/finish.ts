import type { Backend } from "../backends/backend.ts";
import type { JsonObject, NamedBytes } from "../files/index.ts";
import { WIDTHS_KEY } from "../files/widths.ts";
import { encode, encodeWeight, formatByName } from "../formats/index.ts";
import type { Moment, TrainedRounding, TunedBase, Width } from "../methods/method.ts";
import { configJson } from "../models/index.ts";
import type { Model } from "../models/model.ts";
import type { Job } from "../record/record.ts";
import { type HostTensor, hostTensor, InputError, matrix } from "../tensor/tensor.ts";
import { packedWeight, type Weight } from "../tensor/weight.ts";
import type { Vocabulary } from "./vocabulary.ts";

/** What stands beside the weights in a trained model's folder. */
export interface ModelFiles {
  readonly config: JsonObject;
  readonly generation: JsonObject;
  readonly tokenizerFiles: readonly NamedBytes[];
}

/** `widths` are those at which the model was trained to be read. */
export function modelFiles(
  model: Model,
  { tokenizer, files }: Vocabulary,
  widths: readonly Width[] = [],
): ModelFiles {
  const { bos, eos } = tokenizer;
  const generation = {
    ...(bos === undefined ? {} : { bos_token_id: bos }),
    ...(eos === undefined ? {} : { eos_token_id: eos }),
  };
  const several: JsonObject = widths.length === 0 ? {} : { [WIDTHS_KEY]: widths.map(({ bits }) => bits) };
  return {
    config: { ...configJson(model.config), ...generation, ...several },
    generation,
    tokenizerFiles: files,
  };
}

/** The weights of a trained model as they will be stored, in the model's order. */
export async function storedWeights(
  model: Model,
  parameters: ReadonlyMap<string, Float32Array>,
  formats: { readonly linear: string; readonly other: string },
  rounded: { readonly rounding: TrainedRounding; readonly at: Moment } | undefined,
  backend: Backend,
  job: Job,
): Promise<Map<string, Weight>> {
  const weights = new Map<string, Weight>();
  for (const { name, shape, role } of model.tensors) {
    const cols = shape[shape.length - 1];
    const W = matrix(parameters.get(name)!.length / cols, cols, parameters.get(name)!);
    const format = formatByName(role === "linear" ? formats.linear : formats.other);
    if (role === "linear" && rounded) {
      const { rounding, at } = rounded;
      if (format.kind !== "group")
        throw new InputError(`formats.linear: ${rounding.name} needs a packed format, got ${format.name}`);
      const beside = besideOf(name, parameters);
      weights.set(name, await rounding.export(W, format, { ...job, backend }, beside, at));
    } else {
      const { data } = encode(format, W);
      weights.set(name, packedWeight(shape, format.name, { data: { ...data, shape } })); // norms are vectors
    }
  }
  return weights;
}

/** The same of a tuned model: what was not trained is what it was. */
export async function tunedWeights(
  model: Model,
  parameters: ReadonlyMap<string, Float32Array>,
  { weights, tuned }: TunedBase,
  other: string,
  backend: Backend,
): Promise<Map<string, Weight>> {
  const stored = new Map<string, Weight>();
  for (const { name, shape } of model.tensors) {
    const values = Object.entries(besideOf(name, parameters)).map(
      ([path, { data }]) => [path, data as Float32Array] as const,
    );
    const whole = parameters.get(name);
    const weight = whole ? encodeWeight(formatByName(other), shape, whole) : weights.get(name)!;
    stored.set(name, (await tuned.get(name)?.stored(new Map(values), backend)) ?? weight);
  }
  return stored;
}

/** What was trained beside a matrix, by its own names. */
function besideOf(name: string, parameters: ReadonlyMap<string, Float32Array>): Record<string, HostTensor> {
  const beside: Record<string, HostTensor> = {};
  for (const [other, data] of parameters) {
    if (other.startsWith(`${name}.`)) beside[other.slice(name.length + 1)] = hostTensor([data.length], data);
  }
  return beside;
}
