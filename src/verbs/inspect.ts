import type { Role } from "../models/model.ts";
import { type StoredBits, storedBits } from "../models/stored.ts";
import { baseName, startRecord } from "../record/make.ts";
import type { Job, Record } from "../record/record.ts";
import { sizeOf } from "../tensor/tensor.ts";
import { openChecked } from "./load.ts";

export interface InspectOptions {
  readonly model: string;
}

export interface InspectedTensor {
  readonly name: string;
  readonly shape: readonly number[];
  /** As stored: `f32`, `int4-g64`. */
  readonly format: string;
  /** On disk, all parts together. */
  readonly bytes: number;
  /** What the architecture uses it for; absent for a tensor that it does not know. */
  readonly role?: Role;
}

export interface InspectResult {
  readonly name: string;
  readonly architecture: string;
  /** How the weights are kept: `safetensors`. */
  readonly container: string;
  readonly config: object;
  /** Weights of the architecture's tensors, each counted once. */
  readonly parameters: number;
  /** Of the weights' files. */
  readonly bytes: number;
  readonly bitsPerWeight: StoredBits;
  readonly tensors: readonly InspectedTensor[];
}

/** What a model consists of; reads headers only, whatever the size of the file. */
export async function inspect(options: InspectOptions, job: Job = {}): Promise<Record<InspectResult>> {
  const finish = startRecord("inspect", { model: baseName(options.model) });
  const { file, model } = await openChecked(options.model, {}, job);
  try {
    const roles = new Map(model.tensors.map(({ name, role }) => [name, role]));
    const tensors = file.source.names.map((name): InspectedTensor => {
      const role = roles.get(name);
      const { source } = file;
      return {
        name,
        shape: source.shape(name),
        format: source.format(name),
        bytes: source.bytes(name),
        ...(role ? { role } : {}),
      };
    });
    const known = tensors.filter(({ role }) => role !== undefined);
    return finish(
      undefined,
      {},
      {
        name: file.name,
        architecture: model.config.architecture,
        container: file.container,
        config: model.config,
        parameters: known.reduce((sum, { shape }) => sum + sizeOf(shape), 0),
        bytes: file.bytes,
        bitsPerWeight: storedBits(known, (name) => file.source.bytes(name)),
        tensors,
      },
    );
  } finally {
    await file.close();
  }
}
