import { list, openDisk, remove, rename, whatIs, writeError } from "../files/disk.ts";
import type { ByteSource } from "../files/file.ts";
import { fingerprintOf } from "../files/fingerprint.ts";
import { fs, paths } from "../files/node.ts";
import { encodeSafetensors, readHeader } from "../files/safetensors.ts";
import type { Job } from "../record/record.ts";
import { type Elements, InputError } from "../tensor/tensor.ts";
import type { Part } from "../tensor/weight.ts";

/** What is known of a checkpoint beside its tensors. */
export interface About {
  /** Steps done. The data's position and the schedule follow from it. */
  readonly step: number;
  /** Bytes of the log at that time; what was written later is cut off. */
  readonly logBytes: number;
  /** How the parameters are trained; empty where that is not known. */
  readonly family: string;
  /** What computed them: another one gives other bits; empty where that is not known. */
  readonly backend: string;
  /** Steps that the optimizer's states have seen: those of this run, and of the one whose states it took over. */
  readonly optimizerSteps: number;
  /** Batches that are left out (spikes.ts), counted from 0. */
  readonly skipped: readonly number[];
  /** Rollbacks for the loss's last spike, and its step. */
  readonly rollbacks: number;
  readonly spikeAt: number;
}

/** Everything that a run needs to go on as if it had never stopped. */
export interface Checkpoint extends About {
  /** Parameters and optimizer states by name: `NAME`, `first/NAME`, `second/NAME`. */
  readonly tensors: ReadonlyMap<string, Elements>;
}

/** Called where a crash would be worst; tests kill the process there. */
export type Reached = (point: string) => void;

/** What a snapshot keeps to go on from, in the form of a checkpoint. */
export const STATE_FILE = "state.safetensors";

const NAME = /^checkpoint-(\d+)\.safetensors$/;
/** So many of the newest stay, and as many of those that were due; more of these where a recipe may roll back further. */
const KEPT = 2;

/** Which checkpoints stay. */
export interface Retention {
  /** Steps between those that are due. Those of an interrupted run come between them. */
  readonly every: number;
  /** How many that were due stay. */
  readonly due?: number;
}

/**
 * Writes a checkpoint: under a temporary name, forced to the disk, then
 * renamed. Whatever is interrupted, the newest file with a checkpoint's name
 * is whole. Old ones are removed.
 */
export async function writeCheckpoint(
  folder: string,
  checkpoint: Checkpoint,
  retention: Retention,
  reached: Reached,
): Promise<void> {
  const { join } = paths();
  const bytes = encodeCheckpoint(checkpoint);
  const name = nameOf(checkpoint.step);
  const temporary = join(folder, "checkpoint.tmp");
  try {
    const file = await fs().open(temporary, "w");
    try {
      const half = bytes.byteLength >> 1;
      await file.writeFile(bytes.subarray(0, half));
      reached("checkpoint half written");
      await file.writeFile(bytes.subarray(half));
      reached("checkpoint written");
      await file.sync();
    } finally {
      await file.close();
    }
    reached("checkpoint synced");
    await rename(temporary, join(folder, name));
  } catch (error) {
    await remove(temporary);
    throw writeError(name, error);
  }
  reached("checkpoint renamed");
  await removeOld(folder, retention);
  reached("old checkpoints removed");
}

/** Removes all but the newest. */
export async function removeOld(folder: string, { every, due = KEPT }: Retention): Promise<void> {
  const steps = await checkpointSteps(folder);
  const stay = new Set([...steps.slice(-KEPT), ...steps.filter((step) => step % every === 0).slice(-due)]);
  for (const step of steps) if (!stay.has(step)) await remove(paths().join(folder, nameOf(step)));
}

/** Removes the checkpoints of later steps: the run goes another way. */
export async function removeLater(folder: string, than: number): Promise<void> {
  for (const step of await checkpointSteps(folder)) {
    if (step > than) await remove(paths().join(folder, nameOf(step)));
  }
}

/** The bytes of a checkpoint's file. Its metadata hold a SHA-256 of all the rest (`contentHash`). */
export function encodeCheckpoint({ tensors, ...about }: Checkpoint): Uint8Array {
  const parts = new Map<string, Part>();
  for (const [name, data] of tensors) {
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    parts.set(name, { dtype: data instanceof Int32Array ? "i32" : "f32", shape: [data.length], bytes });
  }
  const metadata = { lowbit: "checkpoint", version: "2", about: JSON.stringify(about) };
  return encodeSafetensors(parts, { ...metadata, sha256: contentHash(metadata.about, parts) });
}

/** SHA-256 of what a checkpoint says of itself, and of names, types and bytes of its tensors in the order of their names. */
function contentHash(about: string, parts: ReadonlyMap<string, Part>): string {
  const hash = process.getBuiltinModule("node:crypto").createHash("sha256");
  hash.update(about);
  for (const name of [...parts.keys()].sort()) {
    const { dtype, bytes } = parts.get(name)!;
    hash.update(`\n${JSON.stringify([name, dtype, bytes.byteLength])}\n`).update(bytes);
  }
  return hash.digest("hex");
}

/**
 * The newest checkpoint in a folder that is whole, if there is one. One that
 * is damaged is put aside as `NAME.damaged`, after a warning that names it and
 * the one that is used in its place; an InputError when none is whole.
 */
export async function readCheckpoint(
  folder: string,
  { onWarning }: Job = {},
): Promise<Checkpoint | undefined> {
  const damaged: { readonly name: string; readonly damage: string }[] = [];
  for (const step of (await checkpointSteps(folder)).reverse()) {
    const name = nameOf(step);
    const found = await openCheckpoint(paths().join(folder, name));
    if ("damage" in found) {
      damaged.push({ name, damage: found.damage });
      continue;
    }
    for (const { name: other, damage } of damaged) {
      onWarning?.(`${damage}; going on from ${name}, the one before it`);
      await rename(paths().join(folder, other), paths().join(folder, `${other}.damaged`));
    }
    return found;
  }
  if (damaged.length === 0) return undefined;
  throw new InputError(
    `${damaged[0].damage}; there is no whole one before it, begin again in another folder`,
  );
}

/** The newest whole checkpoints that were due, at `most` this step; the one `back` before the newest, or the oldest there is. */
export async function dueCheckpoint(
  folder: string,
  { every }: Retention,
  most: number,
  back: number,
): Promise<Checkpoint | undefined> {
  const steps = (await checkpointSteps(folder)).filter(
    (step) => step % every === 0 && step <= Math.max(0, most),
  );
  const step = steps[Math.max(0, steps.length - 1 - back)];
  if (step === undefined) return undefined;
  const found = await openCheckpoint(paths().join(folder, nameOf(step)));
  if ("damage" in found) throw new InputError(found.damage);
  return found;
}

/** Reads a file in the form of a checkpoint; an InputError says what is wrong with it. */
export async function readState(path: string): Promise<Checkpoint> {
  const found = await openCheckpoint(path);
  if ("damage" in found) throw new InputError(found.damage);
  return found;
}

async function openCheckpoint(path: string): Promise<Checkpoint | { readonly damage: string }> {
  const source = await openDisk(path);
  try {
    return await decodeCheckpoint(source);
  } catch (error) {
    if (!(error instanceof DamageError)) throw error;
    const { sha256 } = await fingerprintOf(undefined, [source]);
    return { damage: `${source.name}: damaged (its SHA-256 is ${sha256}): ${error.message}` };
  } finally {
    await source.close();
  }
}

class DamageError extends Error {}

async function decodeCheckpoint(source: ByteSource): Promise<Checkpoint> {
  const { tensors: stored, metadata } = await readHeader(source).catch((error: Error) => {
    throw new DamageError(error.message.replace(`${source.name}: `, ""));
  });
  if (metadata.lowbit !== "checkpoint" || !["1", "2"].includes(metadata.version)) {
    throw new InputError(
      `${source.name}: needs a lowbit checkpoint of version 1 or 2, met version ${metadata.version}; finish that run with the lowbit that began it`,
    );
  }
  const parts = new Map<string, Part>();
  const tensors = new Map<string, Elements>();
  for (const { name, dtype, shape, from, to } of stored.values()) {
    const isFloat = dtype === "F32";
    if (!isFloat && dtype !== "I32") throw new DamageError(`tensor ${name} is ${dtype}, not F32 or I32`);
    const bytes = Uint8Array.from(await source.slice(from, to)); // at the start of its buffer
    parts.set(name, { dtype: isFloat ? "f32" : "i32", shape, bytes });
    tensors.set(name, isFloat ? new Float32Array(bytes.buffer) : new Int32Array(bytes.buffer));
  }
  if (metadata.version === "1") return { ...aboutOfVersion1(metadata), tensors };
  const hash = contentHash(metadata.about ?? "", parts);
  if (hash !== metadata.sha256) {
    throw new DamageError(`its contents have the hash ${hash}, written were those of ${metadata.sha256}`);
  }
  return { ...(JSON.parse(metadata.about) as About), tensors };
}

/** Before version 2 a checkpoint had no hash and did not say what made it; runs that were begun then go on. */
function aboutOfVersion1({ step, logBytes }: Readonly<Record<string, string>>): About {
  const none = { family: "", backend: "", skipped: [], rollbacks: 0, spikeAt: 0 };
  return { ...none, step: Number(step), logBytes: Number(logBytes), optimizerSteps: Number(step) };
}

function nameOf(step: number): string {
  return `checkpoint-${String(step).padStart(8, "0")}.safetensors`;
}

/** Steps of the checkpoints in a folder, the newest last. */
export async function checkpointSteps(folder: string): Promise<number[]> {
  if ((await whatIs(folder)) !== "folder") return [];
  const names = (await list(folder)).flatMap((name) => NAME.exec(name)?.[1] ?? []);
  return names.map(Number).sort((a, b) => a - b);
}
