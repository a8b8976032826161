import type { Backend } from "../backends/backend.ts";
import {
  type Coded,
  type Format,
  fitGroups,
  type GroupFormat,
  groupSize,
  type Parameters,
} from "../formats/format.ts";
import { encode } from "../formats/index.ts";
import { InputError, type Matrix } from "../tensor/tensor.ts";
import { packedWeight, type Weight } from "../tensor/weight.ts";
import { ascending, descending, diagonal, spreadErrors, spreadFactor } from "./spread-errors.ts";

export interface SpreadCodesOptions {
  /** Added to the diagonal of H, as a share of its mean; 0.01 in the paper's code. */
  readonly damping?: number;
  /** Columns in descending order of diag(H) instead of their own. Asks for static groups. */
  readonly actOrder?: boolean;
  /** Groups fitted to the weights as they were, not to what errors have made of them. Default: as `actOrder`. */
  readonly staticGroups?: boolean;
  /** Columns whose errors are spread at once over all columns to come; changes speed, not the result. */
  readonly block?: number;
  readonly signal?: AbortSignal;
}

/**
 * Codes of a format for W (rows, cols), one column after another, errors spread over the columns to come. A group's
 * parameters are fitted when its first column is reached, from the weights as they are then (unless static). W and H
 * (cols, cols) are `prepare`d.
 */
export async function spreadCodes(
  backend: Backend,
  W: Matrix,
  H: Float32Array,
  format: GroupFormat,
  { damping, actOrder = false, staticGroups = actOrder, block = 128, signal }: SpreadCodesOptions,
): Promise<Coded> {
  const { rows, cols } = W;
  format.parts(rows, cols); // refuses a row that whole groups do not fill
  const size = groupSize(format, rows, cols);
  const groupOf = (r: number, column: number) => Math.floor((r * cols + column) / size);
  const importance = diagonal(H);
  const order = actOrder ? descending(importance) : ascending(cols);

  const codes = new Uint8Array(rows * cols);
  const fixed = staticGroups || size >= cols;
  const parameters = fixed ? fitGroups(format, W, importance) : new Array<Parameters>((rows * cols) / size);
  const width = fixed ? block : Math.ceil(block / size) * size; // a group is never cut

  const U = await spreadFactor(backend, H, { damping, order, signal });
  await spreadErrors(backend, W, U, { order, block: width, signal }, ({ first: j, column: now }) => {
    const column = order[j];
    if (!fixed && j % size === 0) {
      const group = new Float32Array(size);
      for (let r = 0; r < rows; r++) {
        for (let i = 0; i < size; i++) group[i] = now(j + i)[r];
        parameters[groupOf(r, column)] = format.fitGroup(group, importance.subarray(j, j + size));
      }
    }
    const w = now(j);
    const ŵ = new Float32Array(rows);
    for (let r = 0; r < rows; r++) {
      const p = parameters[groupOf(r, column)];
      const index = (r * cols + column) % size;
      const code = format.nearest(w[r], p, index);
      ŵ[r] = format.value(code, p, index);
      codes[r * cols + column] = code;
    }
    return ŵ;
  });
  return { codes, parameters };
}

/** W in a format: every weight at the code nearest to it (`importance` by column), or with H by `spreadCodes`. */
export async function formatWeight(
  backend: Backend,
  W: Matrix,
  format: Format,
  {
    importance,
    H,
    damping,
    signal,
  }: {
    readonly importance?: Float32Array;
    readonly H?: Float32Array;
    readonly damping?: number;
    readonly signal?: AbortSignal;
  },
): Promise<Weight> {
  const { rows, cols } = W;
  if (!H) return packedWeight([rows, cols], format.name, encode(format, W, importance));
  if (format.kind === "opaque") {
    throw new InputError(`${format.name}: has no codes over which errors can be spread; take nearest ones`);
  }
  const coded = await spreadCodes(backend, W, H, format, { damping, signal });
  return packedWeight([rows, cols], format.name, format.pack(coded, rows, cols));
}
