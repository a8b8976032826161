import { ShapeError, type Tensor } from "../tensor/tensor.ts";
import { matrixShape } from "./kernel.ts";

/** Throws a ShapeError unless x is (n, d) and w (m, d), at least one of each; gives n and d. */
export function checkVectors(
  where: string,
  x: Tensor,
  w: Tensor,
  length?: number,
): readonly [n: number, d: number] {
  const [n, d] = matrixShape(`${where}: vectors`, x);
  const [m, width] = matrixShape(`${where}: w`, w);
  if (
    d < 1 ||
    (length !== undefined && d !== length) ||
    width !== d ||
    m < 1 ||
    (length !== undefined && n < 1)
  ) {
    throw new ShapeError(
      `${where}: vectors ${n}×${d} do not go with weights ${m}×${width}${length === undefined ? "" : ` and vectors of ${length}`}`,
    );
  }
  return [n, d];
}
