import type { Backend } from "../backends/backend.ts";
import { paths } from "../files/node.ts";
import type { IntegerBits } from "../formats/integer.ts";
import { narrowed } from "../formats/narrow.ts";
import type { Model } from "../models/model.ts";
import { runStored } from "../models/stored.ts";
import type { Job } from "../record/record.ts";
import type { Weight } from "../tensor/weight.ts";
import { BatchOrder, spread, windowCount } from "./batches.ts";
import type { Reached } from "./checkpoint.ts";
import { storedWeights, tunedWeights } from "./finish.ts";
import type { OpenWriter } from "./generated.ts";
import { learn, type RecordOf } from "./learn.ts";
import { type Rollback, readEvents, readLog } from "./log.ts";
import { checkTeacher, type Teacher } from "./loss.ts";
import { modelOf } from "./model.ts";
import { windowsOf } from "./packing.ts";
import { type Recipe, roundingOf } from "./recipe.ts";
import type { RunFolder } from "./run-folder.ts";
import { type Damage, damages, type LossOf, type Measured, rememberedDamages } from "./sensitive.ts";
import { checkTokenizer, type Start, startWeights, type TunedStart, takeOver } from "./start.ts";
import { openText, type Sources, type TokenizedText } from "./text.ts";
import type { TokenFile } from "./token-file.ts";
import { type OptimizerReport, Trainer } from "./trainer.ts";
import { validationLoss } from "./validation.ts";
import type { Vocabulary } from "./vocabulary.ts";

/** A model that has been trained, as it will be stored. */
export interface Trained {
  readonly model: Model;
  readonly weights: ReadonlyMap<string, Weight>;
  readonly vocabulary: Vocabulary;
  readonly steps: number;
  /** Tokens predicted in training. */
  readonly tokens: number;
  readonly tokensPerSecond: number;
  /** The layers that learned, where these are the most sensitive ones. */
  readonly chosen?: readonly Damage[];
  /** The text that a model wrote: its ids and their hash. */
  readonly generated?: TokenizedText["generated"];
  /** Time of all steps, also those before the run was resumed. */
  readonly trainingSeconds: number;
  readonly optimizer: OptimizerReport;
  /** The most that tensors took in training, bytes, where the backend counts it. */
  readonly peakBytes?: number;
  /** Where the run went back to a checkpoint. */
  readonly rollbacks: readonly Rollback[];
  readonly validation: {
    /** Of the model as it is stored, on all windows of the held-out text; nats per token. */
    readonly loss: number;
    readonly lossStandardError: number | null;
    /** The same before its weights were rounded to their formats. */
    readonly trainedLoss: number;
    readonly tokens: number;
    /** Of a model that is trained at several widths: as it is stored, read at each of them. */
    readonly widths?: readonly WidthLoss[];
  };
}

/** Loss of a stored model that is read at fewer bits, nats per token. */
export interface WidthLoss {
  readonly bits: number;
  readonly loss: number;
  readonly lossStandardError: number | null;
}

/** What a run reads and writes. */
export interface RunPlaces {
  readonly sources: Sources;
  readonly folder: RunFolder;
  readonly start?: Start;
  /** The same start, where it is tuned. */
  readonly base?: TunedStart;
  readonly teacher?: Teacher;
  /** The model that writes the text, where one does. */
  readonly openWriter?: OpenWriter;
  readonly recordOf: RecordOf;
}

/**
 * Trains in a run's folder, from its newest checkpoint where there is one.
 *
 * Everything after initialization is a pure function of recipe, text, start
 * and step, so a run that was killed continues to the same bits. A signal that
 * is aborted is answered with a checkpoint and then the signal's reason.
 */
export async function runTraining(
  recipe: Recipe,
  { sources, folder, start, base, teacher, openWriter, recordOf }: RunPlaces,
  backend: Backend,
  job: Job,
  reached: Reached = () => {},
): Promise<Trained> {
  const text = await openText(recipe, sources, folder.work, job, openWriter);
  try {
    if (start) await checkTokenizer(start, text.vocabulary, job);
    const { context } = recipe.model;
    const windows = windowsOf(recipe.data.packing, text.training, context, recipe.seed);
    if (recipe.data.packing === "documents") {
      const note = `${(100 * windows.padding).toFixed(1)} % padding`;
      job.onProgress?.({ task: "pack", done: windows.count, total: windows.count, unit: "windows", note });
    }
    const order = new BatchOrder(recipe.seed, windows.count, recipe.batch);
    const steps = recipe.steps ?? order.stepsPerPass;
    const model = base?.model ?? modelOf(recipe, text.vocabulary.tokenizer.vocabulary);
    if (teacher) checkTeacher(teacher, { model, tokenizer: text.vocabulary.tokenizer }, recipe.loss);
    const rounding = roundingOf(recipe);
    const weightsAtStart = start && !base ? await startWeights(start, model) : undefined;
    const chosen =
      weightsAtStart &&
      (await chosenLayers(
        recipe,
        { model, weights: weightsAtStart, backend },
        text.training,
        steps,
        folder,
        job,
      ));
    backend.takePeakBytes?.();
    const learning = chosen ? { ...recipe, only: chosen.map(({ name }) => name) } : recipe;
    const trainer = new Trainer(backend, model, learning, {
      steps,
      rounding,
      start: weightsAtStart,
      optimizerSteps: recipe.keepOptimizer ? start?.state?.optimizerSteps : 0,
      teacher: teacher?.running,
      base,
    });
    const stored = async (step: number) => {
      if (base) return tunedWeights(model, await trainer.parameters(), base, recipe.formats.other, backend);
      return storedWeights(
        model,
        await trainer.parameters(),
        recipe.formats,
        rounding && { rounding, at: { step, steps } },
        backend,
        job,
      );
    };
    try {
      if (start && !base) takeOver(trainer, start, recipe);
      await learn({
        recipe,
        steps,
        order,
        windows,
        text,
        folder,
        backend,
        model: base?.stored ?? model,
        trainer,
        stored,
        chosen,
        recordOf,
        job,
        reached,
      });
      const peakBytes = backend.takePeakBytes?.();
      const heldOut = spread(windowCount(text.heldOut.length, context), Number.POSITIVE_INFINITY);
      const now = trainer.running({ step: steps, steps });
      const trained = await validationLoss(now, text.heldOut, heldOut, job);
      const weights = await stored(steps);
      const asStored = await validationLoss(runStored(model, weights, backend), text.heldOut, heldOut, job);
      const read = (bits: number) => runStored(model, atWidth(model, weights, bits), backend);
      const widths: WidthLoss[] = [];
      for (const { bits } of rounding?.widths ?? []) {
        const { mean, standardError } = await validationLoss(read(bits), text.heldOut, heldOut, job);
        widths.push({ bits, loss: mean, lossStandardError: standardError ?? null });
      }
      const trainingSeconds = (await readLog(folder.log)).reduce(
        (sum, { timing }) => sum + timing.seconds,
        0,
      );
      const tokens = Math.round(steps * recipe.batch * context * (1 - windows.padding));
      return {
        model: base?.stored ?? model,
        weights,
        vocabulary: text.vocabulary,
        steps,
        tokens,
        ...(chosen ? { chosen } : {}),
        ...(text.generated ? { generated: text.generated } : {}),
        tokensPerSecond: tokens / trainingSeconds,
        trainingSeconds,
        optimizer: await trainer.optimizer(),
        ...(peakBytes === undefined ? {} : { peakBytes }),
        rollbacks: (await readEvents(folder.log)).filter((line) => line.event === "rollback"),
        validation: {
          loss: asStored.mean,
          lossStandardError: asStored.standardError ?? null,
          trainedLoss: trained.mean,
          tokens: heldOut.length * context,
          ...(widths.length === 0 ? {} : { widths }),
        },
      };
    } finally {
      trainer.dispose();
    }
  } finally {
    await text.close();
  }
}

/** In the run's own folder: what was measured of each layer, so that a resumed run does not measure again. */
const DAMAGES = "damages.json";

/** The layers that learn, where a recipe wants the most sensitive ones, by what rounding them does at the run's end. */
async function chosenLayers(
  recipe: Recipe,
  start: Pick<Measured, "model" | "weights" | "backend">,
  file: TokenFile,
  steps: number,
  { work }: RunFolder,
  job: Job,
): Promise<Damage[] | undefined> {
  const { only } = recipe;
  if (only === undefined || Array.isArray(only)) return undefined;
  const measure = () => {
    const rounding = roundingOf(recipe);
    // Where a model of several widths is hurt most.
    const bits = rounding?.widths && Math.min(...rounding.widths.map((width) => width.bits));
    const by =
      only.format === undefined ? { rounding: rounding!, at: { step: steps, steps, bits } } : only.format;
    const windows = spread(windowCount(file.length, recipe.model.context), only.windows);
    const lossOf: LossOf = async (running) => (await validationLoss(running, file, windows, {})).mean;
    return damages({ ...start, by }, lossOf, job);
  };
  return (await rememberedDamages(paths().join(work, DAMAGES), measure)).slice(0, only.sensitive);
}

/** A stored model of several widths as it is read at one of them. */
function atWidth(model: Model, weights: ReadonlyMap<string, Weight>, bits: number): Map<string, Weight> {
  return new Map(
    model.tensors.map(({ name, role }) => {
      const weight = weights.get(name)!;
      return [name, role === "linear" ? narrowed(weight, bits as IntegerBits) : weight];
    }),
  );
}
