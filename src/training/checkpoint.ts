import { list, openDisk, remove, rename, whatIs, writeError } from "../files/disk.ts";
import { fs, paths } from "../files/node.ts";
import { encodeSafetensors, formatOfDtype, readHeader } from "../files/safetensors.ts";
import { type Elements, InputError } from "../tensor/tensor.ts";
import type { Part } from "../tensor/weight.ts";

/** Everything that a run needs to go on as if it had never stopped. */
export interface Checkpoint {
  /** Steps done. The data's position and the schedule follow from it. */
  readonly step: number;
  /** Bytes of the log at that time; what was written later is cut off. */
  readonly logBytes: number;
  /** `NAME` of every parameter and `STATE/NAME` of every state that the optimizer keeps of it. */
  readonly tensors: ReadonlyMap<string, Elements>;
}

/** Called where a crash would be worst; tests kill the process there. */
export type Reached = (point: string) => void;

/** What a snapshot keeps to go on from, in the form of a checkpoint. */
export const STATE_FILE = "state.safetensors";

const NAME = /^checkpoint-(\d+)\.safetensors$/;
const KEPT = 2;

/**
 * Writes a checkpoint: under a temporary name, forced to the disk, then
 * renamed. Whatever is interrupted, the newest file with a checkpoint's name
 * is whole. All but the last two are removed.
 */
export async function writeCheckpoint(
  folder: string,
  checkpoint: Checkpoint,
  reached: Reached,
): Promise<void> {
  const { join } = paths();
  const bytes = encodeCheckpoint(checkpoint);
  const name = `checkpoint-${String(checkpoint.step).padStart(8, "0")}.safetensors`;
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
  for (const old of (await checkpointNames(folder)).slice(0, -KEPT)) await remove(join(folder, old));
  reached("old checkpoints removed");
}

/** The bytes of a checkpoint's file. */
export function encodeCheckpoint({ step, logBytes, tensors }: Checkpoint): Uint8Array {
  const parts = new Map<string, Part>();
  for (const [name, data] of tensors) {
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    const dtype = data instanceof Int32Array ? "i32" : "f32";
    parts.set(name, { dtype, shape: [data.length], bytes });
  }
  const metadata = { lowbit: "checkpoint", version: "1", step: String(step), logBytes: String(logBytes) };
  return encodeSafetensors(parts, metadata);
}

/** The newest checkpoint in a folder, if there is one. */
export async function readCheckpoint(folder: string): Promise<Checkpoint | undefined> {
  if ((await whatIs(folder)) !== "folder") return undefined;
  const name = (await checkpointNames(folder)).at(-1);
  if (name === undefined) return undefined;
  const source = await openDisk(paths().join(folder, name));
  try {
    const { tensors: stored, metadata } = await readHeader(source);
    if (metadata.lowbit !== "checkpoint" || metadata.version !== "1") {
      throw new InputError(
        `${name}: needs a lowbit checkpoint of version 1, met version ${metadata.version}`,
      );
    }
    const tensors = new Map<string, Elements>();
    for (const tensor of stored.values()) {
      const bytes = Uint8Array.from(await source.slice(tensor.from, tensor.to));
      const isWhole = formatOfDtype(tensor.dtype) === "i32";
      tensors.set(tensor.name, isWhole ? new Int32Array(bytes.buffer) : new Float32Array(bytes.buffer));
    }
    return { step: Number(metadata.step), logBytes: Number(metadata.logBytes), tensors };
  } finally {
    await source.close();
  }
}

async function checkpointNames(folder: string): Promise<string[]> {
  return (await list(folder)).filter((name) => NAME.test(name)).sort();
}
