import type { Backend } from "../backends/backend.ts";
import { losses } from "../evaluation/loss.ts";
import { type Estimate, meanOfClusters } from "../evaluation/statistics.ts";
import { trainedRoundings } from "../methods/index.ts";
import { llama } from "../models/llama.ts";
import type { Model } from "../models/model.ts";
import type { Running } from "../models/run.ts";
import { decayAt, rateAt } from "../optimization/schedules.ts";
import type { Fingerprint, Job } from "../record/record.ts";
import type { Weight } from "../tensor/weight.ts";
import { BatchOrder, readBatch, spread, windowCount } from "./batches.ts";
import { type Reached, readCheckpoint, writeCheckpoint } from "./checkpoint.ts";
import { type Corpus, findCorpus, fingerprints, texts } from "./corpus.ts";
import { runStored, storedWeights } from "./finish.ts";
import { Log, type LogLine, readLog } from "./log.ts";
import { paths } from "./node.ts";
import type { Recipe } from "./recipe.ts";
import type { RunFolder } from "./run-folder.ts";
import { openTokens, type TokenFile, writeTokens } from "./token-file.ts";
import { Trainer } from "./trainer.ts";
import { readVocabulary, trainVocabulary, type Vocabulary } from "./vocabulary.ts";

/** Windows of held-out text that are measured while training; at the end it is all of them. */
const VALIDATION_WINDOWS = 64;

/** The files that a recipe names. */
export interface Sources {
  readonly corpus: Corpus;
  readonly tokenizer: string | undefined;
  /** All of them by content: training files, held-out files, tokenizer. */
  readonly data: readonly Fingerprint[];
}

/** Finds and hashes what a recipe in folder `base` reads. */
export async function findSources(recipe: Recipe, base: string): Promise<Sources> {
  const { resolve } = paths();
  const corpus = await findCorpus(resolve(base, recipe.data.text), recipe.data.heldOut);
  const { file } = recipe.data.tokenizer;
  const tokenizer = file === undefined ? undefined : resolve(base, file);
  const data = await fingerprints([...corpus.training, ...corpus.heldOut, ...(tokenizer === undefined ? [] : [tokenizer])]);
  return { corpus, tokenizer, data };
}

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
  readonly validation: {
    /** Of the model as it is stored, on all windows of the held-out text; nats per token. */
    readonly loss: number;
    readonly lossStandardError: number | null;
    /** The same before its weights were rounded to their formats. */
    readonly trainedLoss: number;
    readonly tokens: number;
  };
}

/**
 * Trains in a run's folder, from its newest checkpoint where there is one.
 *
 * Everything after initialization is a pure function of recipe, text and step,
 * so a run that was killed continues to the same bits. A signal that is
 * aborted is answered with a checkpoint and then the signal's reason.
 */
export async function runTraining(
  recipe: Recipe,
  { corpus, tokenizer: tokenizerFile }: Sources,
  folder: RunFolder,
  backend: Backend,
  job: Job,
  reached: Reached = () => {},
): Promise<Trained> {
  const { join } = paths();
  const { signal } = job;
  const vocabulary =
    tokenizerFile === undefined
      ? await trainVocabulary(corpus.training, recipe.data.tokenizer.train!, folder.work)
      : await readVocabulary(tokenizerFile);
  const tokenize = async (name: string, files: readonly string[]): Promise<TokenFile> => {
    const path = join(folder.work, `${name}.ids`);
    await writeTokens(path, reporting(texts(files), files.length, job), vocabulary.tokenizer, vocabulary.encode);
    return openTokens(path, vocabulary.tokenizer.vocabulary);
  };
  const training = await tokenize("training", corpus.training);
  const heldOut = await tokenize("held-out", corpus.heldOut);

  const { context } = recipe.model;
  const model = modelOf(recipe, vocabulary.tokenizer.vocabulary);
  const rounding = recipe.family === "float" ? undefined : trainedRoundings[recipe.family];
  const order = new BatchOrder(recipe.seed, windowCount(training.length, context), recipe.batch);
  const heldOutWindows = windowCount(heldOut.length, context);
  const steps = recipe.steps ?? order.stepsPerPass;
  const tokensPerStep = recipe.batch * context;
  const validate = (running: Running, windows: readonly number[], job: Job) =>
    validationLoss(running, heldOut, windows, context, job);

  const checkpoint = await readCheckpoint(folder.work);
  const log = await Log.open(folder.log, checkpoint?.logBytes ?? 0, reached);
  const trainer = new Trainer(backend, model, recipe, rounding);
  try {
    if (checkpoint) trainer.restore(checkpoint.tensors);
    const from = checkpoint?.step ?? 0;
    const began = performance.now();
    for (let step = from + 1; step <= steps; step++) {
      const start = performance.now();
      const rate = rateAt(recipe.schedule, step - 1, steps);
      const weightDecay = decayAt(recipe.schedule, recipe.optimizer.weightDecay, step - 1, steps);
      const batch = await readBatch(training, order.at(step - 1), context);
      const { loss, gradientNorm } = await trainer.step(batch, step, rate, weightDecay);
      if (!Number.isFinite(loss)) {
        throw new Error(`train: the loss is ${loss} at step ${step}; lower the learning rate or the clip`);
      }
      const seconds = (performance.now() - start) / 1000;
      let line: LogLine = { step, tokens: step * tokensPerStep, loss, rate, weightDecay, gradientNorm };
      if (step % recipe.validateEvery === 0 && step < steps) {
        const running = trainer.running(step);
        line = { ...line, validationLoss: (await validate(running, spread(heldOutWindows, VALIDATION_WINDOWS), {})).mean };
        running.free();
      }
      await log.append({ ...line, timing: { seconds, tokensPerSecond: tokensPerStep / seconds } });
      const perStep = (performance.now() - began) / 1000 / (step - from);
      job.onProgress?.({
        task: "train",
        done: step,
        total: steps,
        unit: "steps",
        note: `loss ${loss.toFixed(4)}, ${Math.round(tokensPerStep / perStep)} tokens/s, ${duration(perStep * (steps - step))} left`,
      });
      await new Promise((resolve) => setImmediate(resolve)); // lets Ctrl-C in
      if (step % recipe.checkpointEvery === 0 || step === steps || signal?.aborted) {
        const logBytes = await log.sync();
        await writeCheckpoint(folder.work, { step, logBytes, tensors: await trainer.state() }, reached);
      }
      signal?.throwIfAborted();
    }

    const all = spread(heldOutWindows, heldOutWindows);
    const running = trainer.running(steps);
    const trained = await validate(running, all, job);
    running.free();
    const weights = await storedWeights(model, await trainer.parameters(), recipe.formats, rounding, backend, job);
    const stored = runStored(model, weights, backend);
    const final = await validate(stored, all, job);
    stored.free();
    const trainingSeconds = (await readLog(folder.log)).reduce((sum, { timing }) => sum + timing.seconds, 0);
    return {
      model,
      weights,
      vocabulary,
      steps,
      tokens: steps * tokensPerStep,
      tokensPerSecond: (steps * tokensPerStep) / trainingSeconds,
      trainingSeconds,
      validation: {
        loss: final.mean,
        lossStandardError: final.standardError ?? null,
        trainedLoss: trained.mean,
        tokens: all.length * context,
      },
    };
  } finally {
    trainer.dispose();
    await log.close();
    await training.close();
    await heldOut.close();
  }
}

function modelOf({ model }: Recipe, vocabulary: number): Model {
  return llama({
    architecture: "llama",
    ...model,
    vocabulary,
    headDim: model.dim / model.heads,
    ropePairing: "halves",
  });
}

async function validationLoss(
  running: Running,
  tokens: TokenFile,
  windows: readonly number[],
  context: number,
  job: Job,
): Promise<Estimate> {
  const sequences = [];
  for (const window of windows) {
    sequences.push({ ids: await tokens.slice(window * context, (window + 1) * context + 1), first: 1 });
  }
  return meanOfClusters(await losses(running, sequences, job));
}

/** Passes documents on, says how far it is, and stops when the job is aborted. */
async function* reporting(documents: AsyncIterable<string>, total: number, { onProgress, signal }: Job) {
  let done = 0;
  for await (const document of documents) {
    signal?.throwIfAborted();
    yield document;
    onProgress?.({ task: "tokenize", done: ++done, total, unit: "files" });
  }
}

/** 75 -> `1 min 15 s` */
function duration(seconds: number): string {
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}
