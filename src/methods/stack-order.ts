import type { StackMeasure } from "./method.ts";

/** A matrix whose blocks may be read or not: how large each is, and the error with the first 1, 2, … of them. */
export interface Stack {
  readonly name: string;
  readonly blocks: readonly { readonly bytes: number; readonly error: number }[];
}

/**
 * The one order in which the blocks of all matrices are read: names, each once for every block. First come the first
 * blocks of all matrices, without which no model runs; a block stands never before those below it.
 *
 *   error   again and again the block that takes most error away for its bytes; errors are those of the layers'
 *           outputs, relative to these, which are at hand without a pass
 *   loss    level by level, in each the blocks that take most loss away for their bytes first: what a block gains was
 *           measured among the others of its level (verbs/stack-losses.ts), and the small differences are noise
 *
 * The second is that of Wang et al., 2024 (https://arxiv.org/abs/2410.23918), section 3.3.
 */
export function stackOrder(stacks: readonly Stack[], by: StackMeasure = "error"): string[] {
  const order = stacks.map(({ name }) => name);
  const waiting = stacks
    .map(({ name, blocks }) => ({ name, blocks, taken: 1 }))
    .filter(({ blocks }) => blocks.length > 1);
  const gain = ({ blocks, taken }: (typeof waiting)[number]) =>
    (blocks[taken - 1].error - blocks[taken].error) / blocks[taken].bytes;
  const isBetter = (a: (typeof waiting)[number], b: (typeof waiting)[number]) =>
    by === "loss" && a.taken !== b.taken ? a.taken < b.taken : gain(a) > gain(b);
  while (waiting.length > 0) {
    let best = 0;
    for (let i = 1; i < waiting.length; i++) if (isBetter(waiting[i], waiting[best])) best = i;
    order.push(waiting[best].name);
    if (++waiting[best].taken === waiting[best].blocks.length) waiting.splice(best, 1);
  }
  return order;
}
