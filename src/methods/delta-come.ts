import { z } from "zod";
import { fillsRow } from "../formats/format.ts";
import { clipped, decodeWeight, formatByName } from "../formats/index.ts";
import { halfAway } from "../tensor/rounding.ts";
import { hostTensor, InputError, type Matrix, matrix, type Tensor, transposed } from "../tensor/tensor.ts";
import type { Weight } from "../tensor/weight.ts";
import { formatWeight } from "./format-codes.ts";
import { lowRankOf } from "./low-rank.ts";
import type { Context, Decomposition } from "./method.ts";
import { prepare } from "./spread-errors.ts";

const count = z.int().min(0);

const options = z.strictObject({
  /** Bits of codes per weight of the matrix: says how many singular vectors there are at 2 bits. */
  bits: z.number().positive().max(8).default(1),
  /** Singular vectors at 8 and at 3 bits. Default: 2 and 32 for every 4096 of the narrower side, at least 1. */
  eights: count.optional(),
  threes: count.optional(),
});

export type DeltaComeOptions = z.infer<typeof options>;

/** Neighbours that share a scale, the first that divides a row; else the row. */
const GROUPS = [128, 64, 32];

/**
 * Delta-CoMe: of what fine-tuning changed, singular vectors in fewer bits the less they count.
 *
 *   Δ = U·Σ·Vᵀ ≈ Σ_groups Û_g·B̂_g,  B = Σ·Vᵀ;  the first few vectors at 8 bits, some at 3, more at 2, the rest dropped
 *
 * With calibration each B̂ is rounded by GPTQ under H, each Û under B̂·H·B̂ᵀ, else to nearest. The paper's groups, 2, 32
 * and 968 of 4096, are one bit for each weight of a square matrix; `bits` is that number here, for any shape.
 * Singular values stand with Vᵀ, so that the columns of U are of one size and a row of them has one scale.
 *
 * Ping et al., 2024 (https://arxiv.org/abs/2406.08903), section 3; code https://github.com/thunlp/Delta-CoMe.
 */
export const deltaCome: Decomposition<DeltaComeOptions> = {
  kind: "decomposition",
  name: "delta-come",
  paper: "Ping et al., 2024 (https://arxiv.org/abs/2406.08903)",
  calibrated: false,
  options,

  check({ rows, cols }, chosen) {
    const vectors = groupsOf(rows, cols, chosen).reduce((sum, group) => sum + group.rank, 0);
    const most = Math.min(rows, cols);
    if (vectors === 0 || vectors > most) {
      throw new InputError(
        `delta-come: ${vectors} singular vectors of ${rows}×${cols}, which has 1 to ${most}; change bits, eights or threes`,
      );
    }
  },

  async decompose(Δ, context, chosen) {
    const { backend, H, signal } = context;
    const { rows, cols } = Δ;
    const groups = groupsOf(rows, cols, chosen);
    const rank = groups.reduce((sum, group) => sum + group.rank, 0);
    const { a, b } = await lowRankOf(backend, Δ, { rank, signal });
    // Both have √σ of each vector: that of a goes over to b.
    const U = transposed(a); // (rank, rows)
    const B = matrix(rank, cols, b.data.slice());
    for (let k = 0; k < rank; k++) {
      const u = U.data.subarray(k * rows, (k + 1) * rows);
      const root = Math.sqrt(u.reduce((sum, x) => sum + x * x, 0));
      for (let r = 0; r < rows; r++) u[r] /= root || 1;
      for (let c = 0; c < cols; c++) B.data[k * cols + c] *= root;
    }
    const terms: Weight[] = [];
    let from = 0;
    for (const { rank: count, bits } of groups) {
      const part = ({ cols: width, data }: Matrix) =>
        matrix(count, width, data.slice(from * width, (from + count) * width));
      const right = await rounded(part(B), bits, context, H);
      const inner = H && (await seenThrough(decodeWeight(right), context, H));
      const left = await rounded(transposed(part(U)), bits, context, inner);
      if (inner) backend.free(inner);
      terms.push({ shape: [rows, cols], expression: { kind: "lowRank", a: left, b: right } });
      from += count;
    }
    return { shape: [rows, cols], expression: { kind: "sum", terms } };
  },
};

/** How many singular vectors of a matrix there are at each width; no group without any. */
export function groupsOf(rows: number, cols: number, { bits, eights, threes }: DeltaComeOptions) {
  const narrow = Math.min(rows, cols);
  const share = (of4096: number) => Math.max(1, halfAway((of4096 * narrow) / 4096));
  const at8 = eights ?? share(2);
  const at3 = threes ?? share(32);
  const perVector = (bits * rows * cols) / (rows + cols);
  const at2 = Math.max(0, Math.floor((perVector - 8 * at8 - 3 * at3) / 2));
  const groups = [
    { bits: 8, rank: at8 },
    { bits: 3, rank: at3 },
    { bits: 2, rank: at2 },
  ];
  return groups.filter(({ rank }) => rank > 0);
}

/** W in codes of so many bits, with H by GPTQ. */
async function rounded(W: Matrix, bits: number, { backend, signal }: Context, H?: Tensor): Promise<Weight> {
  const group = GROUPS.find((size) => fillsRow(formatByName(`int${bits}-g${size}`), W.cols));
  const format = clipped(formatByName(group === undefined ? `int${bits}` : `int${bits}-g${group}`));
  const prepared = H ? await prepare("delta-come", W, H, backend) : { W };
  return formatWeight(backend, prepared.W, format, { ...prepared, signal });
}

/** B·H·Bᵀ (rank, rank): the H of what B makes of the inputs. */
async function seenThrough({ rows, cols, data }: Matrix, { backend }: Context, H: Tensor): Promise<Tensor> {
  const product = backend.scope(() => {
    const B = backend.upload(hostTensor([rows, cols], data));
    return backend.linear(backend.linear(B, H), B); // H is symmetric
  });
  return product;
}
