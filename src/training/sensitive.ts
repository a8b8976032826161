import type { Backend } from "../backends/backend.ts";
import { readSmall, whatIs, writeFileAtomic } from "../files/disk.ts";
import { decode, encode, formatByName } from "../formats/index.ts";
import type { Moment, TrainedRounding } from "../methods/method.ts";
import type { Model } from "../models/model.ts";
import { ropeTable } from "../models/rope-table.ts";
import type { Running } from "../models/run.ts";
import type { Job } from "../record/record.ts";
import { type HostTensor, hostTensor, matrix, sizeOf, type Tensor } from "../tensor/tensor.ts";
import type { Chosen } from "./log.ts";
import type { Recipe } from "./recipe.ts";

/** A layer, and what rounding it alone adds to the loss, nats per token. */
export type Damage = Chosen["layers"][number];

/** A model whose layers are measured, in float, and how a layer is rounded: as a family does it at a moment, or in a format. */
export interface Measured {
  readonly model: Model;
  readonly weights: Pick<ReadonlyMap<string, HostTensor>, "get">;
  readonly by: { readonly rounding: TrainedRounding; readonly at: Moment } | string;
  readonly backend: Backend;
}

/** Measures a model and frees it. */
export type LossOf = (running: Running & { free(): void }) => Promise<number>;

/**
 * The linear layers of a model by what each does to the loss when it alone is
 * rounded, the most damaging first; of equals the one that comes first in the
 * model.
 *
 *   damage(l) = L(W with Ŵ_l in place of W_l) − L(W)
 */
export async function damages(
  { model, weights, by, backend }: Measured,
  lossOf: LossOf,
  { onProgress, signal }: Job = {},
): Promise<Damage[]> {
  const keep = (t: HostTensor) => backend.keep(backend.upload(t));
  const plain = new Map(model.tensors.map(({ name }) => [name, keep(weights.get(name)!)]));
  const rope = keep(ropeTable(model.config, model.config.context));
  const lossWith = (changed: ReadonlyMap<string, Tensor>) =>
    lossOf({
      model,
      backend,
      weights: new Map([...plain, ...changed]),
      rope,
      free: () => {
        for (const t of changed.values()) backend.free(t);
      },
    });
  const linears = model.tensors.filter(({ role }) => role === "linear");
  try {
    const whole = await lossWith(new Map());
    const found: Damage[] = [];
    for (const { name } of linears) {
      signal?.throwIfAborted();
      const rounded = roundedAlone(name, weights.get(name)!, by, backend);
      found.push({ name, damage: (await lossWith(new Map([[name, rounded]]))) - whole });
      onProgress?.({ task: "measure", done: found.length, total: linears.length, unit: "layers" });
    }
    return found.sort((a, b) => b.damage - a.damage); // stable
  } finally {
    for (const t of [...plain.values(), rope]) backend.free(t);
  }
}

function roundedAlone(
  name: string,
  { shape, data }: HostTensor,
  by: Measured["by"],
  backend: Backend,
): Tensor {
  const [rows, cols] = shape;
  const W = matrix(rows, cols, data as Float32Array);
  if (typeof by === "string") {
    const format = formatByName(by);
    return backend.upload(hostTensor(shape, decode(format, encode(format, W), rows, cols)));
  }
  const { rounding, at } = by;
  const started = rounding.start?.(W, name) ?? { W, parameters: {} };
  return backend.scope(() => {
    const upload = (t: HostTensor) => backend.upload(t);
    const parameters = Object.fromEntries(
      Object.entries(started.parameters).map(([parameter, t]) => [parameter, upload(t)]),
    );
    return rounding.forward(backend, upload(hostTensor(shape, started.W.data)), parameters, at);
  });
}

/** Before it is known which layers a recipe chooses: as many of the largest, for what that takes. */
export function largestChosen(recipe: Recipe, model: Model): Recipe {
  const { only } = recipe;
  if (only === undefined || Array.isArray(only)) return recipe;
  const linears = model.tensors.filter(({ role }) => role === "linear");
  const largest = linears.toSorted((a, b) => sizeOf(b.shape) - sizeOf(a.shape)).slice(0, only.sensitive);
  return { ...recipe, only: largest.map(({ name }) => name) };
}

/** What was measured before a run was interrupted, or else what is measured now, kept in a file for the next time. */
export async function rememberedDamages(path: string, measure: () => Promise<Damage[]>): Promise<Damage[]> {
  if ((await whatIs(path)) === "file")
    return JSON.parse(new TextDecoder().decode(await readSmall(path, LARGEST)));
  const found = await measure();
  await writeFileAtomic(path, new TextEncoder().encode(JSON.stringify(found)));
  return found;
}

const LARGEST = 2 ** 24;
