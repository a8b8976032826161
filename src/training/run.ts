import type { Backend } from "../backends/backend.ts";
import { losses } from "../evaluation/loss.ts";
import { type Estimate, meanOfClusters } from "../evaluation/statistics.ts";
import { llama } from "../models/llama.ts";
import type { Model, ModelConfig } from "../models/model.ts";
import type { Running } from "../models/run.ts";
import { runStored } from "../models/stored.ts";
import { decayAt, rateAt } from "../optimization/schedules.ts";
import type { Job } from "../record/record.ts";
import type { Weight } from "../tensor/weight.ts";
import { BatchOrder, spread, windowCount } from "./batches.ts";
import { type Reached, readCheckpoint, writeCheckpoint } from "./checkpoint.ts";
import { modelFiles, storedWeights } from "./finish.ts";
import { Log, readLog } from "./log.ts";
import { checkTeacher, type Teacher } from "./loss.ts";
import { type Windows, windowsOf } from "./packing.ts";
import { type Recipe, roundingOf } from "./recipe.ts";
import type { RunFolder } from "./run-folder.ts";
import { cutSnapshots, type Snapshot, snapshotSteps, writeSnapshot } from "./snapshots.ts";
import { openText, type Sources, type TokenizedText } from "./text.ts";
import type { TokenFile } from "./token-file.ts";
import { type OptimizerReport, Trainer } from "./trainer.ts";
import type { Vocabulary } from "./vocabulary.ts";
import { WeightsWatch } from "./weights-watch.ts";

/** Windows of held-out text that are measured while training; at the end it is all of them. */
const VALIDATION_WINDOWS = 64;

/** A model that has been trained, as it will be stored. */
export interface Trained {
  readonly model: Model;
  readonly weights: ReadonlyMap<string, Weight>;
  readonly vocabulary: Vocabulary;
  readonly steps: number;
  /** Tokens predicted in training. */
  readonly tokens: number;
  readonly tokensPerSecond: number;
  /** Time of all steps, also those before the run was resumed. */
  readonly trainingSeconds: number;
  readonly optimizer: OptimizerReport;
  readonly validation: {
    /** Of the model as it is stored, on all windows of the held-out text; nats per token. */
    readonly loss: number;
    readonly lossStandardError: number | null;
    /** The same before its weights were rounded to their formats. */
    readonly trainedLoss: number;
    readonly tokens: number;
  };
}

/** What the parts of a run share. */
interface Run {
  readonly recipe: Recipe;
  readonly steps: number;
  readonly order: BatchOrder;
  readonly windows: Windows;
  readonly text: TokenizedText;
  readonly folder: RunFolder;
  readonly trainer: Trainer;
  /** The weights as they would be stored after so many steps. */
  readonly stored: (step: number) => Promise<Map<string, Weight>>;
  readonly model: Model;
  readonly recordOf: RecordOf;
  readonly job: Job;
  readonly reached: Reached;
}

/** A record of this run around what is known of a model that it keeps. */
export type RecordOf = (result: object) => object;

/**
 * Trains in a run's folder, from its newest checkpoint where there is one.
 *
 * Everything after initialization is a pure function of recipe, text and step,
 * so a run that was killed continues to the same bits. A signal that is
 * aborted is answered with a checkpoint and then the signal's reason.
 */
export async function runTraining(
  recipe: Recipe,
  sources: Sources,
  folder: RunFolder,
  backend: Backend,
  job: Job,
  recordOf: RecordOf,
  reached: Reached = () => {},
  { teacher }: { readonly teacher?: Teacher } = {},
): Promise<Trained> {
  const text = await openText(recipe, sources, folder.work, job);
  try {
    const { context } = recipe.model;
    const { vocabulary } = text.vocabulary.tokenizer;
    const windows = windowsOf(recipe.data.packing, text.training, context, recipe.seed);
    if (recipe.data.packing === "documents") {
      const note = `${(100 * windows.padding).toFixed(1)} % padding`;
      job.onProgress?.({ task: "pack", done: windows.count, total: windows.count, unit: "windows", note });
    }
    const order = new BatchOrder(recipe.seed, windows.count, recipe.batch);
    const steps = recipe.steps ?? order.stepsPerPass;
    const rounding = roundingOf(recipe);
    const config: ModelConfig = {
      architecture: "llama",
      ...recipe.model,
      vocabulary,
      headDim: recipe.model.dim / recipe.model.heads,
      ropePairing: "halves",
    };
    const model = llama(rounding?.modelChanges?.(config) ?? config);
    if (teacher) checkTeacher(teacher, { model, tokenizer: text.vocabulary.tokenizer }, recipe.loss);
    const trainer = new Trainer(backend, model, recipe, { steps, rounding, teacher: teacher?.running });
    const stored = async (step: number) =>
      storedWeights(
        model,
        await trainer.parameters(),
        recipe.formats,
        rounding && { rounding, at: { step, steps } },
        backend,
        job,
      );
    try {
      await learn({
        recipe,
        steps,
        order,
        windows,
        text,
        folder,
        trainer,
        stored,
        model,
        recordOf,
        job,
        reached,
      });
      const heldOut = spread(windowCount(text.heldOut.length, context), Number.POSITIVE_INFINITY);
      const measure = (running: Running) => validationLoss(running, text.heldOut, heldOut, job);
      const trained = await measured(trainer.running({ step: steps, steps }), measure);
      const weights = await stored(steps);
      const asStored = await measured(runStored(model, weights, backend), measure);
      const trainingSeconds = (await readLog(folder.log)).reduce(
        (sum, { timing }) => sum + timing.seconds,
        0,
      );
      const tokens = Math.round(steps * recipe.batch * context * (1 - windows.padding));
      return {
        model,
        weights,
        vocabulary: text.vocabulary,
        steps,
        tokens,
        tokensPerSecond: tokens / trainingSeconds,
        trainingSeconds,
        optimizer: await trainer.optimizer(),
        validation: {
          loss: asStored.mean,
          lossStandardError: asStored.standardError ?? null,
          trainedLoss: trained.mean,
          tokens: heldOut.length * context,
        },
      };
    } finally {
      trainer.dispose();
    }
  } finally {
    await text.close();
  }
}

/** The steps that are left, with log and checkpoints. */
async function learn(run: Run): Promise<void> {
  const { recipe, steps, order, windows, text, folder, trainer, job, reached } = run;
  const { schedule, optimizer, validateEvery, checkpointEvery, model } = recipe;
  const tokensPerStep = recipe.batch * model.context * (1 - windows.padding);
  const someWindows = spread(windowCount(text.heldOut.length, model.context), VALIDATION_WINDOWS);
  const validate = (running: Running) => validationLoss(running, text.heldOut, someWindows, {});

  const checkpoint = await readCheckpoint(folder.work);
  if (checkpoint) trainer.restore(checkpoint.tensors);
  const from = checkpoint?.step ?? 0;
  await cutSnapshots(folder.out, from);
  const kept = snapshotSteps(recipe.snapshots, steps);
  const log = await Log.open(folder.log, checkpoint?.logBytes ?? 0, reached);
  const watch = await WeightsWatch.open(folder.out, trainer, recipe, steps, checkpoint);
  const began = performance.now();
  try {
    for (let step = from + 1; step <= steps; step++) {
      const start = performance.now();
      const rate = rateAt(schedule, step - 1, steps);
      const weightDecay = decayAt(schedule, optimizer.weightDecay, step - 1, steps);
      const batch = await windows.batch(order.at(step - 1));
      const { loss, gradientNorm } = await trainer.step(batch, step, rate, weightDecay);
      for (const [what, value] of Object.entries({ loss, "gradient's norm": gradientNorm })) {
        if (!Number.isFinite(value))
          throw new Error(
            `train: the ${what} is ${value} at step ${step}; lower the learning rate or the clip`,
          );
      }
      const seconds = (performance.now() - start) / 1000;

      const isValidated = step % validateEvery === 0 && step < steps;
      const validation = isValidated ? await measured(trainer.running({ step, steps }), validate) : undefined;
      const here = {
        step,
        tokens: Math.round(step * tokensPerStep),
        loss,
        ...(validation ? { validationLoss: validation.mean } : {}),
      };
      await log.append({
        ...here,
        rate,
        weightDecay,
        gradientNorm,
        timing: { seconds, tokensPerSecond: tokensPerStep / seconds },
      });
      await watch.after(step);
      const perStep = (performance.now() - began) / 1000 / (step - from);
      job.onProgress?.({
        task: "train",
        done: step,
        total: steps,
        unit: "steps",
        note: `loss ${loss.toFixed(4)}, ${Math.round(tokensPerStep / perStep)} tokens/s`,
      });
      await new Promise((resolve) => setImmediate(resolve)); // lets Ctrl-C in
      if (kept.has(step)) await keep(run, here); // before a checkpoint from which it would be passed over
      if (step % checkpointEvery === 0 || step === steps || job.signal?.aborted) {
        const logBytes = await log.sync();
        const tensors = new Map([...(await trainer.state()), ...watch.state()]);
        await writeCheckpoint(folder.work, { step, logBytes, tensors }, reached);
      }
      job.signal?.throwIfAborted();
    }
  } finally {
    await log.close();
  }
}

/** Keeps the model as it is as a snapshot. */
async function keep(
  { recipe, folder, text, trainer, stored, model, recordOf, reached }: Run,
  at: Omit<Snapshot, "weights" | "files" | "record" | "state">,
): Promise<void> {
  await writeSnapshot(folder.out, {
    ...at,
    weights: await stored(at.step),
    files: modelFiles(model, text.vocabulary),
    record: recordOf(at),
    ...(recipe.snapshots?.state ? { state: await trainer.state() } : {}),
  });
  reached("snapshot written");
}

/** Measures a model and frees what it was made of. */
async function measured<R>(
  running: Running & { free(): void },
  measure: (running: Running) => Promise<R>,
): Promise<R> {
  try {
    return await measure(running);
  } finally {
    running.free();
  }
}

/** Mean over some windows of a text, nats per token; each window is one cluster of the standard error. */
async function validationLoss(
  running: Running,
  file: TokenFile,
  windows: readonly number[],
  job: Job,
): Promise<Estimate> {
  const { context } = running.model.config;
  const sequences = [];
  for (const window of windows) {
    sequences.push({ ids: await file.slice(window * context, (window + 1) * context + 1), first: 1 });
  }
  return meanOfClusters(await losses(running, sequences, job));
}
