import { generator, permutation } from "../tensor/random.ts";
import { type Batch, readBatch, windowCount } from "./batches.ts";
import type { DataRecipe } from "./data.ts";
import type { TokenFile } from "./token-file.ts";

/** A text in windows of `context` inputs and their targets. */
export interface Windows {
  readonly count: number;
  /** Share of all positions whose target is −1 because nothing is there. */
  readonly padding: number;
  /** The batch made of these windows, in this order. */
  batch(windows: readonly number[]): Promise<Batch>;
}

/** Windows in the way that a recipe asks for; `seed` decides which documents share one. */
export function windowsOf(
  packing: DataRecipe["packing"],
  file: TokenFile,
  context: number,
  seed: number,
): Windows {
  return packing === "documents" ? documentWindows(file, context, seed) : streamWindows(file, context);
}

/** The text as one stream, see batches.ts. */
function streamWindows(file: TokenFile, context: number): Windows {
  return {
    count: windowCount(file.length, context),
    padding: 0,
    batch: (windows) => readBatch(file, windows, context),
  };
}

/**
 * Windows of whole documents. A document of n ids has n − 1 pairs of an input
 * and its successor; its first id, the start token, is never a target, and its
 * last never an input. Documents of more than `context` pairs are pieces of
 * `context` pairs and a rest. In an order of the seed each goes to the first
 * window that has room for it (first fit: at most 1.7 times the fewest windows, and two;
 * Johnson et al., 1974, https://doi.org/10.1137/0203025), and what stays free
 * is padding: input 0, target −1.
 *
 * What attention sees is not changed: positions count through a window, and a
 * document that is not the first in its window sees those before it. O(n log n)
 * for n documents and pieces.
 */
function documentWindows(file: TokenFile, context: number, seed: number): Windows {
  const froms: number[] = [];
  const pairs: number[] = [];
  for (let d = 0; d < file.documents; d++) {
    const last = file.start(d + 1) - 1;
    for (let from = file.start(d); from < last; from += context) {
      froms.push(from);
      pairs.push(Math.min(context, last - from));
    }
  }
  const windows = firstFit(permutation(generator(seed), pairs.length), pairs, context);
  const used = pairs.reduce((sum, n) => sum + n, 0);
  return {
    count: windows.length,
    padding: windows.length === 0 ? 0 : 1 - used / (windows.length * context),
    async batch(chosen) {
      const inputs = new Int32Array(chosen.length * context);
      const targets = new Int32Array(chosen.length * context).fill(-1);
      for (const [i, window] of chosen.entries()) {
        let at = i * context;
        for (const piece of windows[window]) {
          const ids = await file.slice(froms[piece], froms[piece] + pairs[piece] + 1);
          inputs.set(ids.subarray(0, pairs[piece]), at);
          targets.set(ids.subarray(1), at);
          at += pairs[piece];
        }
      }
      return { sequences: chosen.length, inputs, targets };
    },
  };
}

/** Items, taken in an order, each in the first bin of so much room that it fits in: the items of each bin. */
function firstFit(order: Uint32Array, sizes: readonly number[], room: number): number[][] {
  // A tree of the most room in each half of the bins, of which there are at most as many as items.
  let leaves = 1;
  while (leaves < sizes.length) leaves *= 2;
  const most = new Float64Array(2 * leaves).fill(room);
  const bins: number[][] = [];
  for (const item of order) {
    let node = 1;
    while (node < leaves) node = most[2 * node] >= sizes[item] ? 2 * node : 2 * node + 1;
    const bin = node - leaves;
    if (bin === bins.length) bins.push([]);
    bins[bin].push(item);
    most[node] -= sizes[item];
    while (node > 1) {
      node >>= 1;
      most[node] = Math.max(most[2 * node], most[2 * node + 1]);
    }
  }
  return bins;
}
