import type { Backend } from "../backends/backend.ts";
import type { Running } from "../models/run.ts";
import type { Job } from "../record/record.ts";
import { generator } from "../tensor/random.ts";
import { modelOf } from "./model.ts";
import { type Recipe, roundingOf } from "./recipe.ts";
import { largestChosen } from "./sensitive.ts";
import { Trainer } from "./trainer.ts";

/** Steps of a trial; the first, which pays for fresh memory, does not count. */
const TRIAL_STEPS = 3;

/** What a few steps with made-up ids took; no step depends on what the ids are. */
export interface Trial {
  readonly secondsPerStep: number;
  /** Most memory that tensors took, bytes, where the backend counts it. */
  readonly peak?: number;
}

export async function tryTraining(
  recipe: Recipe,
  vocabulary: number,
  backend: Backend,
  teacher: Running | undefined,
  { signal, onProgress }: Job,
): Promise<Trial> {
  const random = generator(recipe.seed);
  const ids = Int32Array.from({ length: recipe.batch * recipe.model.context }, () =>
    Math.floor(random() * vocabulary),
  );
  const batch = { sequences: recipe.batch, inputs: ids, targets: ids };
  backend.takePeakBytes?.();
  const model = modelOf(recipe, vocabulary);
  const trainer = new Trainer(backend, model, largestChosen(recipe, model), {
    steps: TRIAL_STEPS,
    rounding: roundingOf(recipe),
    teacher,
  });
  try {
    let seconds = Number.POSITIVE_INFINITY;
    for (let step = 1; step <= TRIAL_STEPS; step++) {
      signal?.throwIfAborted();
      const start = performance.now();
      await trainer.step(batch, step, 1e-6, 0);
      if (step > 1) seconds = Math.min(seconds, (performance.now() - start) / 1000);
      onProgress?.({ task: "trial", done: step, total: TRIAL_STEPS, unit: "steps" });
    }
    const peak = backend.takePeakBytes?.();
    return { secondsPerStep: seconds, ...(peak === undefined ? {} : { peak }) };
  } finally {
    trainer.dispose();
  }
}
