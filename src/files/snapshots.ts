import { InputError } from "../tensor/tensor.ts";
import { readSmall, whatIs } from "./disk.ts";
import type { JsonObject } from "./file.ts";
import { isObject, parseJson } from "./json.ts";

/** Folder of a trained model's snapshots, one folder each, and the list of them in it. */
export const SNAPSHOTS = "steps";
export const SNAPSHOT_INDEX = "index.json";
const LARGEST_INDEX = 2 ** 24;

/** A model as it was in the middle of its training. */
export interface SnapshotEntry {
  readonly step: number;
  /** Tokens predicted until then. */
  readonly tokens: number;
  /** Mean loss of the step's batch, nats per token. */
  readonly loss: number;
  /** Mean loss over windows of the held-out text, nats per token, where it was measured. */
  readonly validationLoss?: number;
  /** The same at each width of a model that is trained at several. */
  readonly widthLosses?: readonly { readonly bits: number; readonly loss: number }[];
  /** Of the weights' files; the hash is the one that records give for the model. */
  readonly bytes: number;
  readonly sha256: string;
}

/** `MODEL@STEP` and `MODEL@last` in two; undefined for other names, and for those of the hub, where @ is a revision. */
export function splitSnapshot(spec: string): { model: string; step: string } | undefined {
  const [, model, step] = /^(.+)@(\d{1,15}|last)$/.exec(spec) ?? [];
  return model === undefined || spec.startsWith("hf:") ? undefined : { model, step };
}

/** The snapshots of a model's folder by step; none when it keeps none. Throws an InputError when the list is damaged. */
export async function readSnapshots(folder: string): Promise<SnapshotEntry[]> {
  const path = `${folder}/${SNAPSHOTS}/${SNAPSHOT_INDEX}`;
  if ((await whatIs(path)) !== "file") return [];
  const where = `${SNAPSHOTS}/${SNAPSHOT_INDEX}`;
  const { snapshots } = parseJson(await readSmall(path, LARGEST_INDEX), where);
  if (!Array.isArray(snapshots) || !snapshots.every(isEntry))
    throw new InputError(
      `${where}: needs a list of snapshots, each with step, tokens, loss, bytes and sha256`,
    );
  return snapshots.toSorted((a, b) => a.step - b.step);
}

/** Folder of one snapshot of the model in `folder`; an InputError names the nearest ones there are. */
export async function snapshotFolder(folder: string, model: string, step: string): Promise<string> {
  const steps = (await readSnapshots(folder)).map((entry) => entry.step);
  if (steps.length === 0) {
    throw new InputError(
      `${model}@${step}: the model keeps no snapshots; train it with snapshots in its recipe`,
    );
  }
  const wanted = step === "last" ? steps[steps.length - 1] : Number(step);
  if (steps.includes(wanted)) return `${folder}/${SNAPSHOTS}/${wanted}`;
  const near = [steps.findLast((other) => other < wanted), steps.find((other) => other > wanted)];
  const names = near.filter((other) => other !== undefined).map((other) => `@${other}`);
  throw new InputError(
    `${model}@${step}: no such snapshot among ${steps.length}; the nearest ${names.length > 1 ? "are" : "is"} ${names.join(" and ")}`,
  );
}

function isEntry(value: unknown): value is SnapshotEntry {
  const entry = value as JsonObject;
  return (
    isObject(entry) &&
    [entry.step, entry.tokens, entry.bytes].every(
      (count) => Number.isSafeInteger(count) && Number(count) >= 0,
    ) &&
    typeof entry.loss === "number" &&
    typeof entry.sha256 === "string"
  );
}
