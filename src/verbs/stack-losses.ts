import type { Backend } from "../backends/backend.ts";
import { losses } from "../evaluation/loss.ts";
import { meanOfClusters } from "../evaluation/statistics.ts";
import type { Stack } from "../methods/stack-order.ts";
import type { Model } from "../models/model.ts";
import { runStored } from "../models/stored.ts";
import type { Job } from "../record/record.ts";
import type { Weight } from "../tensor/weight.ts";

/** Windows of the calibration text on which a block is tried. */
const WINDOWS = 8;

/**
 * What each block of a stacked model does to the loss, in place of its error: with the first b blocks of all matrices,
 * one matrix gets its next block, and the loss on calibration text falls by this block's gain. `error` of a matrix with
 * b + 1 blocks is that with b less the gain, nats per token.
 *
 * Wang et al., 2024 (https://arxiv.org/abs/2410.23918), section 3.3; theirs is the perplexity. A pass over 8
 * windows for every block.
 */
export async function stackLosses(
  { model, backend }: { readonly model: Model; readonly backend: Backend },
  weights: ReadonlyMap<string, Weight>,
  stacks: readonly Stack[],
  windows: readonly Int32Array[],
  job: Job = {},
): Promise<Stack[]> {
  const sequences = windows.slice(0, WINDOWS).map((ids) => ({ ids, first: 1 }));
  const most = Math.max(...stacks.map(({ blocks }) => blocks.length));
  const errors = new Map<string, number[]>(stacks.map(({ name }) => [name, [0]]));
  const quiet = { ...job, onProgress: undefined };
  const total = stacks.reduce((sum, { blocks }) => sum + blocks.length - 1, 0);
  let done = 0;
  for (let b = 1; b < most; b++) {
    const level = new Map(
      Array.from(weights, ([name, weight]) => [name, errors.has(name) ? first(weight, b) : weight]),
    );
    const running = runStored(model, level, backend);
    try {
      const before = meanOfClusters(await losses(running, sequences, quiet)).mean;
      for (const { name, blocks } of stacks) {
        if (blocks.length <= b) continue;
        job.onProgress?.({ task: "order", done: done++, total, unit: "blocks", note: name });
        const more = backend.upload(first(weights.get(name)!, b + 1));
        const tried = { ...running, weights: new Map([...running.weights, [name, more]]) };
        try {
          const gain = before - meanOfClusters(await losses(tried, sequences, quiet)).mean;
          errors.get(name)!.push(errors.get(name)![b - 1] - gain);
        } finally {
          backend.free(more);
        }
      }
    } finally {
      running.free();
    }
  }
  return stacks.map(({ name, blocks }) => ({
    name,
    blocks: blocks.map(({ bytes }, i) => ({ bytes, error: errors.get(name)![i] })),
  }));
}

/** A stack with its first blocks only. */
function first({ shape, expression: e }: Weight, count: number): Weight {
  return e.kind === "sum"
    ? { shape, expression: { ...e, terms: e.terms.slice(0, count) } }
    : { shape, expression: e };
}
