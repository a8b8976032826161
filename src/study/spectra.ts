import { readSmall } from "../files/disk.ts";
import { paths } from "../files/node.ts";
import { baseName, startRecord } from "../record/make.ts";
import type { Job, Record } from "../record/record.ts";
import { parseYaml } from "../training/recipe.ts";
import { backendFor } from "../verbs/load.ts";
import {
  type GridOptions,
  type PlannedRun,
  planGrid,
  runGrid,
  shareTokenizer,
  withSharedTokenizer,
} from "./grid.ts";
import { readSuite, suiteRuns } from "./suite.ts";

export interface StudyOptions extends GridOptions {
  /** The study's YAML file. */
  readonly recipe: string;
  /** Says which runs there are, and does nothing. */
  readonly dryRun?: boolean;
}

export interface StudyResult {
  readonly runs: readonly Omit<PlannedRun, "full">[];
}

const LARGEST_RECIPE = 1 << 20;

/** Trains the suite of a study's recipe. */
export async function study(options: StudyOptions, job: Job = {}): Promise<Record<StudyResult>> {
  const { resolve, dirname } = paths();
  const where = baseName(options.recipe);
  const text = new TextDecoder().decode(await readSmall(options.recipe, LARGEST_RECIPE));
  const suite = readSuite(parseYaml(text, where), where);
  const finish = startRecord("study", { suite });
  const out = resolve(options.out);
  const own = suiteRuns(suite, dirname(options.recipe));
  const runs = withSharedTokenizer(own, out);
  const plan = { ...options, out };
  let planned = await planGrid(runs, plan); // finds what is wrong with the recipes before anything is made
  if (!options.dryRun) {
    await shareTokenizer(own, out, job);
    planned = await planGrid(runs, plan);
    await runGrid(planned, plan, job);
    planned = await planGrid(runs, plan);
  }
  const backend = await backendFor(options, job);
  backend.dispose();
  return finish(backend, { data: [] }, { runs: planned.map(({ full, ...run }) => run) });
}
