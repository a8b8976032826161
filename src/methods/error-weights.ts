import type { Matrix } from "../tensor/tensor.ts";
import { InputError } from "../tensor/tensor.ts";
import { choleskyOf } from "./cholesky.ts";
import { type ErrorWeights, weighted } from "./low-rank.ts";
import type { Context, Need } from "./method.ts";
import { damp, diagonal, prepare } from "./spread-errors.ts";

/**
 * By what the errors of a matrix count: all alike; by their column's mean
 * squared input, diag(H); by all of H; by the Fisher information of each weight.
 */
export const weightings = ["none", "diag", "H", "fisher"] as const;
export type Weighting = (typeof weightings)[number];

/** A matrix with what is known of its inputs, and the measure of its errors. */
export interface Weighed {
  /** Columns that no input reaches are 0. */
  readonly W: Matrix;
  /** As numbers; undefined without calibration. */
  readonly H?: Float32Array;
  /** For `lowRankOf`. */
  readonly weights: ErrorWeights;
  /** What the error of a column's weight counts on average; undefined where all count alike. */
  readonly importance?: Float32Array;
  errorOf(E: Matrix): Promise<number>;
  free(): void;
}

/** What a weighting cannot do without. */
export function needsOf(weighting: Weighting | undefined): readonly Need[] {
  if (weighting === "fisher") return ["fisher"];
  return weighting === "H" || weighting === "diag" ? ["H"] : [];
}

/**
 * Opens the measure of a matrix' errors E:
 *
 *   none     ‖E‖²
 *   diag     Σ_c H_cc·‖E_c‖²
 *   H        tr(E·H·Eᵀ), H with `damping` times its mean on the diagonal; the default with calibration
 *   fisher   Σ F⊙E⊙E. In the low-rank part √F is taken for r·cᵀ, the roots of its means over rows and over columns, so
 *            that the best factors are known: Guo et al., 2023 (https://arxiv.org/abs/2311.12023), section 3.3
 *
 * The caller frees it. Rows, columns and weights of no information count a millionth of the mean, not nothing.
 */
export async function weigh(
  method: string,
  source: Matrix,
  { backend, H: hessian, fisher, signal }: Context,
  { weighting, damping }: { readonly weighting?: Weighting; readonly damping: number },
): Promise<Weighed> {
  const { W, H } = hessian ? await prepare(method, source, hessian, backend) : { W: source, H: undefined };
  const { rows, cols } = W;
  const chosen = weighting ?? (H ? "H" : "none");
  const free = () => {};
  const errorBy = (weights: ErrorWeights) => async (E: Matrix) =>
    squares((await weighted(backend, E, weights, { signal })).data);

  if (chosen === "none") return { W, H, weights: {}, errorOf: errorBy({}), free };
  if (chosen === "fisher") {
    if (!fisher) throw new InputError(`${method}: weighting fisher needs calibration text; give some`);
    const importance = means(fisher, rows, cols, "columns");
    const weights = { rows: roots(means(fisher, rows, cols, "rows")), columns: roots(importance) };
    const errorOf = async (E: Matrix) => E.data.reduce((sum, e, i) => sum + fisher[i] * e * e, 0);
    return { W, H, weights, importance, errorOf, free };
  }
  if (!H) throw new InputError(`${method}: weighting ${chosen} needs calibration text; give some`);
  const importance = diagonal(H);
  if (chosen === "diag") {
    const weights = { columns: roots(importance) };
    return { W, H, weights, importance, errorOf: errorBy(weights), free };
  }
  const damped = H.slice();
  damp(damped, cols, damping);
  const L = await choleskyOf(backend, damped, { signal });
  return { W, H, weights: { L }, importance, errorOf: errorBy({ L }), free: () => backend.free(L) };
}

function squares(data: Float32Array): number {
  return data.reduce((sum, e) => sum + e * e, 0);
}

/** Means of F (rows, cols) of every row, or of every column. */
function means(F: Float32Array, rows: number, cols: number, of: "rows" | "columns"): Float32Array {
  const sums = new Float64Array(of === "rows" ? rows : cols);
  for (let i = 0; i < F.length; i++) sums[of === "rows" ? Math.floor(i / cols) : i % cols] += F[i];
  return Float32Array.from(sums, (sum) => (sum * sums.length) / F.length);
}

/** Square roots; numbers below a millionth of the mean are taken for that, and zeros alone for ones. */
function roots(values: Float32Array): Float32Array {
  const least = (1e-6 * values.reduce((sum, value) => sum + value, 0)) / values.length || 1;
  return values.map((value) => Math.sqrt(Math.max(value, least)));
}
