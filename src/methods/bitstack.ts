import { z } from "zod";
import { decodeWeight } from "../formats/index.ts";
import { InputError, type Matrix, matrix } from "../tensor/tensor.ts";
import type { Weight } from "../tensor/weight.ts";
import { lowRankOf } from "./low-rank.ts";
import type { Decomposition } from "./method.ts";
import { signedLowRank } from "./signed.ts";
import { difference } from "./vector-codes.ts";

const options = z.strictObject({
  /** n: blocks of a matrix, each somewhat more than a bit per weight. */
  blocks: z.int().min(1).max(32).default(8),
  /** k: of a block's magnitudes. Default: as much as adds an eighth of a bit, 1 to 4: each is a product with the signs. */
  rank: z.int().min(1).optional(),
  /** Blocks are put into one order by the error of their layers, or by the loss on calibration text, a pass for each. */
  order: z.enum(["error", "loss"]).default("error"),
});

export type BitstackOptions = z.infer<typeof options>;

/** Added to the norms of the activations, as a share of their mean: no column counts nothing. */
const LEAST = 1e-3;

/**
 * BitStack: a matrix as a stack of blocks, of which as many are read as there is memory for.
 *
 *   R = W·diag(s), s_j = √(mean x_j²) of the calibration's inputs x (1 without)
 *   n times:  block = sign(R) ⊙ (a·b), a·b = SVD_k(|R|);  R = R − block
 *   Ŵ = (sum of the first blocks)·diag(s)⁻¹
 *
 * A block has 1 + 16·k·(1/rows + 1/cols) bits per weight; diag(s)⁻¹ is a part of b, so that nothing more is stored.
 * Which matrix gets its next block first is said by `stack-order.ts`.
 *
 * Wang et al., 2024 (https://arxiv.org/abs/2410.23918), algorithms 1 and 2; code https://github.com/xinghaow99/BitStack.
 */
export const bitstack: Decomposition<BitstackOptions> = {
  kind: "decomposition",
  name: "bitstack",
  paper: "Wang et al., 2024 (https://arxiv.org/abs/2410.23918)",
  calibrated: false,
  stacked: ({ order }) => order,
  needs: ({ order }) => (order === "loss" ? ["H"] : []),
  options,

  check({ rows, cols }, { rank = rankFor(rows, cols) }) {
    if (rank > Math.min(rows, cols)) {
      throw new InputError(
        `bitstack: a rank of ${rank} is more than ${Math.min(rows, cols)}, the most of ${rows}×${cols}`,
      );
    }
  },

  async decompose(W, { backend, H, signal }, { blocks, rank = rankFor(W.rows, W.cols) }) {
    const s = H ? columnNorms((await backend.read(H)) as Float32Array) : new Float32Array(W.cols).fill(1);
    const inverse = s.map((norm) => 1 / norm);
    const terms: Weight[] = [];
    let rest = W;
    for (let i = 0; i < blocks; i++) {
      const R = timesColumns(rest, s);
      if (i > 0 && R.data.every((r) => r === 0)) break; // nothing is left
      const { a, b } = await lowRankOf(backend, matrix(R.rows, R.cols, R.data.map(Math.abs)), {
        rank,
        signal,
      });
      const block = signedLowRank(R, { a, b: timesColumns(b, inverse) });
      terms.push(block);
      rest = difference(rest, decodeWeight(block)); // of what is stored
    }
    return { shape: [W.rows, W.cols], expression: { kind: "sum", terms } };
  },
};

/** k·16·(1/rows + 1/cols) is at most 1/8, but k at least 1. The paper has 16, an eighth of a bit for 4096×4096. */
function rankFor(rows: number, cols: number): number {
  return Math.min(4, Math.max(1, Math.floor((rows * cols) / (128 * (rows + cols)))));
}

/** √(mean x_j²) of each input j, from the diagonal of H = (2/n)·Σ x·xᵀ. */
function columnNorms(H: Float32Array): Float32Array {
  const n = Math.sqrt(H.length);
  const norms = Float32Array.from({ length: n }, (_, j) => Math.sqrt(H[j * n + j] / 2));
  const mean = norms.reduce((sum, norm) => sum + norm, 0) / n;
  return mean > 0 ? norms.map((norm) => norm + LEAST * mean) : norms.fill(1);
}

function timesColumns({ rows, cols, data }: Matrix, s: Float32Array): Matrix {
  return matrix(
    rows,
    cols,
    data.map((w, i) => w * s[i % cols]),
  );
}
