import { z } from "zod";
import type { Backend } from "../backends/backend.ts";
import { fillsRow } from "../formats/format.ts";
import { bytesPerMatrix, decodeWeight, encodeWeight, formatByName } from "../formats/index.ts";
import { generator, normals } from "../tensor/random.ts";
import { hostTensor, InputError, type Matrix, matrix, transposed } from "../tensor/tensor.ts";
import type { Weight } from "../tensor/weight.ts";
import { needsOf, weigh } from "./error-weights.ts";
import { checkRank, timesTransposed, weighted } from "./low-rank.ts";
import type { Decomposition } from "./method.ts";

const options = z.strictObject({
  /** Per weight, of both factors together: the rank is the largest that fits. */
  bits: z.number().positive().default(2),
  /** m: columns of the sketch. Default: by `bits`. */
  rank: z.int().min(1).optional(),
  /** Format of L, (rows, rank). */
  left: z.string().default("int4"),
  /** Format of R, (rank, cols). */
  right: z.string().default("int4"),
  /** By what errors count. Default: H with calibration, else none. */
  weighting: z.enum(["none", "diag", "H"]).optional(),
  /** Share of its mean that is added to the diagonal of H. */
  damping: z.number().positive().default(0.01),
  /** Of the sketch. */
  seed: z.int().default(0),
});

export type LplrOptions = z.infer<typeof options>;

/**
 * LPLR: A ≈ L·R, both factors in few bits, nothing beside them.
 *
 *   S (cols, m) Gaussian,  L = Q(A·S),  R = Q'(W*),  W* = argmin_W ‖L·W − A‖² = L⁺·A
 *
 * so that R mends what the rounding of L did. Algorithm 1 of Saha, Srivastava and Pilanci, 2023
 * (https://arxiv.org/abs/2310.11028). Where errors count by H = C·Cᵀ the sketch is that of A·C; W* is the same.
 * Bits per weight: those of both factors over rows·cols; for formats of b bits with a 16-bit scale a row
 * (m·b·(rows + cols) + 16·(rows + m))/(rows·cols), each row filled up to a byte. Cost of W*: O(rows·m²) ten times over.
 */
export const lplr: Decomposition<LplrOptions> = {
  kind: "decomposition",
  name: "lplr",
  paper: "Saha et al., 2023 (https://arxiv.org/abs/2310.11028)",
  calibrated: false,
  options,
  needs: ({ weighting }) => needsOf(weighting),

  check(size, chosen) {
    const m = rankOf(size, chosen);
    checkRank("lplr", size, m);
    bytesOf(size, m, chosen);
  },

  async decompose(source, context, chosen) {
    const { backend, signal } = context;
    const m = rankOf(source, chosen);
    const { W: A, weights, free } = await weigh("lplr", source, context, chosen);
    try {
      const S = matrix(m, A.cols, normals(generator(chosen.seed), m * A.cols)); // its transpose
      const sketch = await timesTransposed(backend, await weighted(backend, A, weights, { signal }), S, {
        signal,
      });
      const L = stored(sketch, chosen.left);
      const R = stored(await leastSquares(backend, decodeWeight(L), A, signal), chosen.right);
      return { shape: [A.rows, A.cols], expression: { kind: "lowRank", a: L, b: R } };
    } finally {
      free();
    }
  },
};

interface Size {
  readonly rows: number;
  readonly cols: number;
}

/** Stored bytes of both factors; an InputError where a format does not fit its factor. */
function bytesOf({ rows, cols }: Size, m: number, { left, right }: LplrOptions): number {
  return bytesPerMatrix(formatByName(left), rows, m) + bytesPerMatrix(formatByName(right), m, cols);
}

function rankOf(size: Size, chosen: LplrOptions): number {
  if (chosen.rank !== undefined) return chosen.rank;
  const { rows, cols } = size;
  const left = formatByName(chosen.left);
  for (let m = Math.min(rows, cols); m >= 1; m--) {
    if (fillsRow(left, m) && 8 * bytesOf(size, m, chosen) <= chosen.bits * rows * cols) return m;
  }
  throw new InputError(
    `lplr: ${chosen.bits} bits a weight of ${rows}×${cols} hold no factors of ${chosen.left} and ${chosen.right}; give more`,
  );
}

function stored({ rows, cols, data }: Matrix, format: string): Weight {
  return encodeWeight(formatByName(format), [rows, cols], data);
}

/** W (m, cols) with the least ‖L·W − A‖²: L = U·diag(s)·Vᵀ, W = V·diag(1/s)·Uᵀ·A, directions of no length left out. */
async function leastSquares(backend: Backend, L: Matrix, A: Matrix, signal?: AbortSignal): Promise<Matrix> {
  const m = L.cols;
  const tensors = {
    u: backend.upload(hostTensor([L.rows, m], L.data)),
    s: backend.zeros([m]),
    v: backend.zeros([m, m]),
  };
  backend.svd(tensors.u, tensors.s, tensors.v);
  const [u, s, v] = (await Promise.all(
    [tensors.u, tensors.s, tensors.v].map((t) => backend.read(t)),
  )) as Float32Array[];
  for (const t of Object.values(tensors)) backend.free(t);
  const least = NO_LENGTH * s[0];
  const scaled = v.map((value, i) => (s[i % m] > least ? value / s[i % m] : 0));
  // Uᵀ·A = (Aᵀ·U)ᵀ, and V·diag(1/s) times that.
  const UA = await timesTransposed(backend, transposed(A), transposed(matrix(L.rows, m, u)), { signal });
  return timesTransposed(backend, matrix(m, m, scaled), UA, { signal });
}

/** Shares of the longest direction that are no more than float32 noise. */
const NO_LENGTH = 1e-6;
