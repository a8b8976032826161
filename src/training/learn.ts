import type { Backend } from "../backends/backend.ts";
import type { Model } from "../models/model.ts";
import { decayAt, rateAt } from "../optimization/schedules.ts";
import type { Job } from "../record/record.ts";
import type { Weight } from "../tensor/weight.ts";
import { type Batch, type BatchOrder, spread, windowCount } from "./batches.ts";
import {
  type About,
  checkpointSteps,
  dueCheckpoint,
  type Reached,
  type Retention,
  readCheckpoint,
  removeLater,
  removeOld,
  writeCheckpoint,
} from "./checkpoint.ts";
import { modelFiles } from "./finish.ts";
import { type Chosen, Log, type Rollback, readLog } from "./log.ts";
import type { Windows } from "./packing.ts";
import { type Recipe, roundingOf } from "./recipe.ts";
import type { RunFolder } from "./run-folder.ts";
import { cutSnapshots, type Snapshot, snapshotSteps, writeSnapshot } from "./snapshots.ts";
import { batchOf, DIVERGED_STEPS, hasDiverged, spikeOf } from "./spikes.ts";
import type { TokenizedText } from "./text.ts";
import type { StepResult, Trainer } from "./trainer.ts";
import { validationLoss } from "./validation.ts";
import { WeightsWatch } from "./weights-watch.ts";

/** Windows of held-out text that are measured while training; at the end it is all of them. */
const VALIDATION_WINDOWS = 64;

/** A record of this run around what is known of a model that it keeps. */
export type RecordOf = (result: object) => object;

/** What the parts of a run share. */
export interface Run {
  readonly recipe: Recipe;
  readonly steps: number;
  readonly order: BatchOrder;
  readonly windows: Windows;
  readonly text: TokenizedText;
  readonly folder: RunFolder;
  readonly backend: Backend;
  readonly model: Model;
  readonly trainer: Trainer;
  /** The weights as they would be stored after so many steps. */
  readonly stored: (step: number) => Promise<Map<string, Weight>>;
  /** The layers that learn, where they were measured. */
  readonly chosen?: Chosen["layers"];
  readonly recordOf: RecordOf;
  readonly job: Job;
  readonly reached: Reached;
}

/** Where a run stands: what its checkpoint says, and the losses until there, to which each step adds its own. */
type Position = Pick<About, "step" | "skipped" | "rollbacks" | "spikeAt"> & {
  readonly losses: number[];
};

/** What a run writes down as it goes. */
interface Journal {
  readonly log: Log;
  /** Begins anew where the run goes back. */
  watch: WeightsWatch;
}

/** A step that was taken. */
interface Taken extends StepResult {
  readonly step: number;
  readonly batch: Batch;
  readonly rate: number;
  readonly weightDecay: number;
  readonly seconds: number;
}

/**
 * The steps that are left, with log, checkpoints and snapshots. All that is
 * decided on the way, a rollback too, is a function of recipe, text and
 * losses, so that a run that was interrupted anywhere repeats it.
 */
export async function learn(run: Run): Promise<void> {
  const { recipe, steps, folder, trainer, job, reached } = run;
  const kept = snapshotSteps(recipe.snapshots, steps);
  const checkpoint = await readCheckpoint(folder.work, job);
  if (checkpoint) {
    warnOfBackend(run, checkpoint);
    trainer.restore(checkpoint.tensors);
  }
  const { step: from, skipped, rollbacks, spikeAt, logBytes } = { ...AT_START, ...checkpoint };
  await removeOld(folder.work, retentionOf(recipe));
  await cutSnapshots(folder.out, from);
  const log = await Log.open(folder.log, logBytes, reached);
  try {
    const journal = { log, watch: await WeightsWatch.open(folder.out, trainer, recipe, steps, checkpoint) };
    let at: Position = { step: from, skipped, rollbacks, spikeAt, losses: await lossesIn(folder) };
    if (!checkpoint && run.chosen) await log.append({ event: "chosen", layers: run.chosen });
    if (!checkpoint && recipe.spikes) await save(run, at, journal); // a rollback may go there
    const began = performance.now();
    for (let taken = 0; at.step < steps; ) {
      const done = await takeStep(run, at);
      const { step, loss } = done;
      const trouble = troubleOf(run, at, done);
      if (trouble !== undefined) {
        at = await rollBack(run, at, done, trouble, journal);
        continue;
      }
      const over = at.rollbacks > 0 && step > at.spikeAt + (recipe.spikes?.window ?? 0);
      at.losses.push(loss);
      at = { ...at, step, ...(over ? { rollbacks: 0 } : {}) };
      const here = await writeDown(run, done, log);
      await journal.watch.after(step);
      const perStep = (performance.now() - began) / 1000 / ++taken;
      job.onProgress?.({
        task: "train",
        done: step,
        total: steps,
        unit: "steps",
        note: `loss ${loss.toFixed(4)}, ${Math.round(tokensPerStepOf(run) / perStep)} tokens/s`,
      });
      await new Promise((resolve) => setImmediate(resolve)); // lets Ctrl-C in
      if (kept.has(step)) await keep(run, here); // before a checkpoint from which it would be passed over
      if (step % recipe.checkpointEvery === 0 || step === steps || job.signal?.aborted)
        await save(run, at, journal);
      job.signal?.throwIfAborted();
    }
  } finally {
    await log.close();
  }
}

const AT_START = { step: 0, skipped: [], rollbacks: 0, spikeAt: 0, logBytes: 0 } as const;

async function takeStep({ recipe, steps, order, windows, trainer }: Run, at: Position): Promise<Taken> {
  const { schedule, optimizer } = recipe;
  const start = performance.now();
  const rate = rateAt(schedule, at.step, steps);
  const weightDecay = decayAt(schedule, optimizer.weightDecay, at.step, steps);
  const batch = await windows.batch(order.at(batchOf(at.step, at.skipped)));
  const step = at.step + 1;
  const result = await trainer.step(batch, step, rate, weightDecay);
  return { ...result, step, batch, rate, weightDecay, seconds: (performance.now() - start) / 1000 };
}

/** Tokens predicted in a step, padding left out; where windows hold padding it is what they do on average. */
function tokensPerStepOf({ recipe, windows }: Run): number {
  return recipe.batch * recipe.model.context * (1 - windows.padding);
}

/** Logs a step, with the loss on held-out text where that is due; gives what a snapshot says of it. */
async function writeDown(
  run: Run,
  { step, loss, rate, weightDecay, gradientNorm, seconds }: Taken,
  log: Log,
) {
  const { recipe, steps, text, trainer } = run;
  const { context } = recipe.model;
  const tokensPerStep = tokensPerStepOf(run);
  const isValidated = step % recipe.validateEvery === 0 && step < steps;
  const someWindows = spread(windowCount(text.heldOut.length, context), VALIDATION_WINDOWS);
  const lossAt = async (bits?: number) =>
    (await validationLoss(trainer.running({ step, steps, bits }), text.heldOut, someWindows, {})).mean;
  const validation = isValidated ? await lossAt() : undefined;
  const widthLosses = [];
  for (const { bits } of (isValidated && roundingOf(recipe)?.widths) || [])
    widthLosses.push({ bits, loss: await lossAt(bits) });
  const here = {
    step,
    tokens: Math.round(step * tokensPerStep),
    loss,
    ...(validation === undefined ? {} : { validationLoss: validation }),
    ...(widthLosses.length === 0 ? {} : { widthLosses }),
  };
  const timing = { seconds, tokensPerSecond: tokensPerStep / seconds };
  await log.append({ ...here, rate, weightDecay, gradientNorm, timing });
  return here;
}

/** What is wrong with a step, in words; undefined when nothing is. */
function troubleOf(
  { recipe, model }: Run,
  { losses }: Position,
  { loss, gradientNorm }: Taken,
): string | undefined {
  if (recipe.spikes) {
    const spike = spikeOf(losses, loss, recipe.spikes);
    if (spike !== undefined) return spike;
  }
  if (!Number.isFinite(loss)) return `the loss is ${loss}`;
  if (!Number.isFinite(gradientNorm)) return `the gradient's norm is ${gradientNorm}`;
  if (hasDiverged([...losses.slice(-DIVERGED_STEPS), loss], losses[0] ?? loss, model.config.vocabulary)) {
    return `the run has diverged: the loss went from ${losses[0].toFixed(4)} to ${loss.toFixed(4)}`;
  }
  return undefined;
}

/**
 * Goes back to the last good checkpoint that was due, the newest one from
 * before the batches that are left out; the one before it when that did not
 * help. Without `spikes`, or when none of its retries helped, an error that
 * says where it began; the checkpoints stay.
 */
async function rollBack(
  run: Run,
  at: Position,
  taken: Taken,
  trouble: string,
  journal: Journal,
): Promise<Position> {
  const { recipe, folder, trainer, job } = run;
  const { spikes } = recipe;
  const { step, batch } = taken;
  if (!spikes || at.rollbacks >= spikes.retries) {
    const where = await trainer.blame(batch, step);
    const tried = spikes ? ` after ${at.rollbacks} rollbacks` : "";
    const last = (await checkpointSteps(folder.work)).at(-1);
    const kept = last === undefined ? "there is no checkpoint yet" : `the checkpoint of step ${last} is kept`;
    throw new Error(
      `train: step ${step}: ${trouble}${tried} (${where}); lower the learning rate or the clip; ${kept}`,
    );
  }
  const retention = retentionOf(recipe);
  const target = await dueCheckpoint(folder.work, retention, step - spikes.skip, at.rollbacks > 0 ? 1 : 0);
  if (!target) throw new Error(`train: step ${step}: ${trouble}; no checkpoint to go back to is left`);
  trainer.restore(target.tensors);
  const offending: number[] = [];
  for (let s = Math.max(target.step, step - spikes.skip); s < step; s++)
    offending.push(batchOf(s, at.skipped));
  const skipped = [...at.skipped, ...offending].sort((a, b) => a - b);
  job.onWarning?.(
    `train: step ${step}: ${trouble}; going back to step ${target.step} and leaving out ${offending.length === 1 ? "a batch" : `${offending.length} batches`}`,
  );
  await removeLater(folder.work, target.step);
  const before = await journal.log.cut(target.logBytes);
  const event: Rollback = { event: "rollback", at: step, why: trouble, to: target.step, skipped: offending };
  for (const line of [...before, event]) await journal.log.append(line);
  journal.watch = await WeightsWatch.open(folder.out, trainer, recipe, run.steps, target);
  await cutSnapshots(folder.out, target.step);
  const rollbacks = at.rollbacks + 1;
  const back = { step: target.step, skipped, rollbacks, spikeAt: step, losses: await lossesIn(folder) };
  await save(run, back, journal);
  return back;
}

async function save(run: Run, { losses: _, ...at }: Position, { log, watch }: Journal): Promise<void> {
  const { recipe, folder, backend, trainer, reached } = run;
  const checkpoint = {
    ...at,
    logBytes: await log.sync(),
    family: recipe.family,
    backend: kernelsOf(backend),
    optimizerSteps: trainer.optimizerSteps(at.step),
    tensors: new Map([...(await trainer.state()), ...watch.state()]),
  };
  await writeCheckpoint(folder.work, checkpoint, retentionOf(recipe), reached);
}

/** A spike goes back beyond the batches that it leaves out, and once more by one checkpoint. */
function retentionOf({ checkpointEvery: every, spikes }: Recipe): Retention {
  return spikes ? { every, due: 2 + Math.ceil(spikes.skip / every) } : { every };
}

async function lossesIn(folder: RunFolder): Promise<number[]> {
  return (await readLog(folder.log)).map(({ loss }) => loss);
}

/** What makes the bits: the backend and its instructions, on any number of threads. */
function kernelsOf({ name, description }: Backend): string {
  return `${name}, ${description.replace(/,? \d+ threads?$/, "")}`;
}

function warnOfBackend({ backend, job }: Run, { step, backend: then }: About): void {
  const now = kernelsOf(backend);
  if (then === now || then === "") return;
  job.onWarning?.(
    `train: the first ${step} steps ran on another backend (${then}; now ${now}); the bits may differ from those of either alone`,
  );
}

/** Keeps the model as it is as a snapshot. */
async function keep(
  { recipe, folder, backend, text, trainer, stored, model, recordOf, reached }: Run,
  at: Omit<Snapshot, "weights" | "files" | "record" | "state">,
): Promise<void> {
  const state = async () => ({
    ...AT_START,
    step: at.step,
    family: recipe.family,
    backend: kernelsOf(backend),
    optimizerSteps: trainer.optimizerSteps(at.step),
    tensors: await trainer.state(),
  });
  await writeSnapshot(folder.out, {
    ...at,
    weights: await stored(at.step),
    files: modelFiles(model, text.vocabulary, roundingOf(recipe)?.widths),
    record: recordOf(at),
    ...(recipe.snapshots?.state ? { state: await state() } : {}),
  });
  reached("snapshot written");
}
