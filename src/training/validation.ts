import { losses } from "../evaluation/loss.ts";
import { type Estimate, meanOfClusters } from "../evaluation/statistics.ts";
import type { Running } from "../models/run.ts";
import type { Job } from "../record/record.ts";
import type { TokenFile } from "./token-file.ts";

/** Mean over some windows of a text, nats per token; each window is one cluster of the standard error. Frees the model. */
export async function validationLoss(
  running: Running & { free(): void },
  file: TokenFile,
  windows: readonly number[],
  job: Job,
): Promise<Estimate> {
  try {
    const { context } = running.model.config;
    const sequences = [];
    for (const window of windows) {
      sequences.push({ ids: await file.slice(window * context, (window + 1) * context + 1), first: 1 });
    }
    return meanOfClusters(await losses(running, sequences, job));
  } finally {
    running.free();
  }
}
