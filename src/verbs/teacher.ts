import { openCounting } from "../backends/counting.ts";
import type { Fingerprint, Job } from "../record/record.ts";
import type { CountedTeacher } from "../training/memory-plan.ts";
import type { Recipe } from "../training/recipe.ts";
import { placed } from "../training/recipe-file.ts";
import { loadWeights } from "./load.ts";

/** The teacher of a recipe whose paths start from `base`, as commands name models; undefined where it has none. */
export function teacherOf({ loss }: Recipe, base: string): string | undefined {
  return loss.teacher === undefined ? undefined : placed(loss.teacher, base);
}

/** What a teacher is and takes: its weights are read one after another, and none is kept. */
export async function countTeacher(
  spec: string,
  { signal, onWarning }: Job,
): Promise<{ readonly counted: CountedTeacher; readonly fingerprint: Fingerprint }> {
  const backend = openCounting();
  const loaded = await loadWeights(spec, backend, {}, { signal, onWarning });
  const { file, model, weights, rope } = loaded;
  try {
    return { counted: { backend, model, weights, rope }, fingerprint: await loaded.fingerprint() };
  } finally {
    await file.close();
  }
}
