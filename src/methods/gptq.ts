import { fitGroups, groupSize, type Parameters } from "../formats/format.ts";
import { InputError } from "../tensor/tensor.ts";
import type { Rounding } from "./method.ts";
import { ascending, descending, diagonal, prepare, spreadErrors, spreadFactor } from "./spread-errors.ts";

export interface GptqOptions {
  /** Added to the diagonal of H, as a share of its mean; 0.01 in the paper's code. */
  readonly damping?: number;
  /** Columns in descending order of diag(H) instead of their own. Asks for static groups. */
  readonly actOrder?: boolean;
  /** Groups fitted to the weights as they were, not to what errors have made of them. Default: as `actOrder`. */
  readonly staticGroups?: boolean;
  /** Columns whose errors are spread at once over all columns to come; changes speed, not the result. */
  readonly block?: number;
}

/**
 * GPTQ: quantize one column at a time and spread each column's error over the
 * columns not yet quantized, weighted by the inverse Hessian.
 *
 * Algorithm 1 of Frantar et al., 2022 (https://arxiv.org/abs/2210.17323), whose
 * sweep is `spreadErrors`. A group's parameters are fitted when its first column
 * is reached, from the weights as they are then (unless static). Columns that no
 * input reaches (H_jj = 0) are set to 0 first. With H = I it is round to
 * nearest, bit for bit.
 */
export const gptq: Rounding<GptqOptions> = {
  kind: "rounding",
  name: "gptq",
  paper: "Frantar et al., 2022 (https://arxiv.org/abs/2210.17323)",
  calibrated: true,

  async quantize(source, format, { backend, H: hessian, signal }, options = {}) {
    const { damping, actOrder = false, staticGroups = actOrder, block = 128 } = options;
    if (actOrder && !staticGroups) {
      throw new InputError("gptq: actOrder needs staticGroups, as a group's columns no longer come together");
    }
    const { W, H } = await prepare("gptq", source, hessian, backend);
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
  },
};
