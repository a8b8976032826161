import { z } from "zod";
import { remove } from "../files/disk.ts";
import { openHfFolder } from "../files/hf-folder.ts";
import { writeFileAtomic, writeModel } from "../files/index.ts";
import { fs, paths } from "../files/node.ts";
import { readSnapshots, SNAPSHOT_INDEX, SNAPSHOTS, type SnapshotEntry } from "../files/snapshots.ts";
import type { Weight } from "../tensor/weight.ts";
import { type Checkpoint, encodeCheckpoint, STATE_FILE } from "./checkpoint.ts";
import type { ModelFiles } from "./finish.ts";

const count = z.int().min(1);

/** When the model is kept as it is in the middle of the run; each time it is a model of its own, `OUT@STEP`. */
export const snapshotsSchema = z
  .strictObject({
    /** After each so many steps, */
    every: count.optional(),
    /** or after these, */
    steps: z.array(count).min(1).optional(),
    /** or so many times, at steps whose logarithms are evenly spaced: the first step, …, the last. */
    logarithmic: z.int().min(2).optional(),
    /** Keep parameters and optimizer states too, so that another run can go on from there. */
    state: z.boolean().default(false),
  })
  .refine(
    ({ every, steps, logarithmic }) =>
      [every, steps, logarithmic].filter((choice) => choice !== undefined).length === 1,
    "needs one of every, steps and logarithmic",
  );

export type Snapshots = z.output<typeof snapshotsSchema>;

/** Steps of a run of `total` steps after which the model is kept. */
export function snapshotSteps(snapshots: Snapshots | undefined, total: number): ReadonlySet<number> {
  const { every, steps = [], logarithmic } = snapshots ?? {};
  const chosen = new Set(steps.filter((step) => step <= total));
  if (every !== undefined) for (let step = every; step <= total; step += every) chosen.add(step);
  for (let i = 0; i < (logarithmic ?? 0); i++) {
    chosen.add(Math.round(total ** (i / (logarithmic! - 1))));
  }
  return chosen;
}

/** A model in the middle of its training. */
export interface Snapshot extends Omit<SnapshotEntry, "bytes" | "sha256"> {
  readonly weights: ReadonlyMap<string, Weight>;
  readonly files: ModelFiles;
  readonly record: object;
  /** What training goes on from, as a checkpoint keeps it. */
  readonly state?: Checkpoint;
}

/** Writes a snapshot as a model folder and then lists it in the index; an older one of the same step is replaced. */
export async function writeSnapshot(out: string, snapshot: Snapshot): Promise<void> {
  const { join } = paths();
  const { weights, files, record, state, ...entry } = snapshot;
  const { step } = entry;
  const steps = join(out, SNAPSHOTS);
  await fs().mkdir(steps, { recursive: true });
  const folder = join(steps, String(step));
  const { config, generation, tokenizerFiles } = files;
  // The state comes with the others at once: a snapshot is whole or absent.
  const beside = state ? [{ name: STATE_FILE, bytes: encodeCheckpoint(state) }] : [];
  await writeModel(folder, { config }, [...weights], {
    tokenizerFiles: [...tokenizerFiles, ...beside],
    generation,
    record,
  });
  const written = await openHfFolder(folder, String(step));
  try {
    const print = await written.fingerprint();
    await writeIndex(out, [
      ...(await readSnapshots(out)).filter((other) => other.step !== step),
      { ...entry, ...print },
    ]);
  } finally {
    await written.close();
  }
}

/** Forgets snapshots of later steps: a run that goes on from `step` makes its own. */
export async function cutSnapshots(out: string, step: number): Promise<void> {
  const all = await readSnapshots(out);
  const later = all.filter((entry) => entry.step > step);
  if (later.length === 0) return;
  await writeIndex(
    out,
    all.filter((entry) => entry.step <= step),
  );
  for (const entry of later) await remove(paths().join(out, SNAPSHOTS, String(entry.step)));
}

async function writeIndex(out: string, entries: readonly SnapshotEntry[]): Promise<void> {
  const lines = entries.toSorted((a, b) => a.step - b.step).map((entry) => `  ${JSON.stringify(entry)}`);
  const text = `{ "lowbit": "snapshots", "version": 1, "snapshots": [\n${lines.join(",\n")}\n] }\n`;
  await writeFileAtomic(paths().join(out, SNAPSHOTS, SNAPSHOT_INDEX), new TextEncoder().encode(text));
}
