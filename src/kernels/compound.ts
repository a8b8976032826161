import { ShapeError, type Tensor, UnsupportedError } from "../tensor/tensor.ts";
import { lastOf, matrixShape } from "./kernel.ts";

/**
 * A matrix on a backend that is put together from others and never made whole: the expressions of `tensor/weight.ts`
 * over tensors. Only `linear` takes it, which becomes operations on its parts, so that each part that is a parameter
 * gets its gradient.
 */
export interface Compound extends Tensor {
  readonly format: typeof COMPOUND;
  readonly of: CompoundExpression;
}

export type CompoundExpression =
  | { readonly kind: "sum"; readonly terms: readonly Tensor[] }
  /** A·B·… */
  | { readonly kind: "product"; readonly factors: readonly Tensor[] }
  /** diag(s)·W; s (rows) */
  | { readonly kind: "scaleRows"; readonly scales: Tensor; readonly matrix: Tensor }
  /** W·diag(s); s (cols) */
  | { readonly kind: "scaleColumns"; readonly scales: Tensor; readonly matrix: Tensor }
  /** What stands before column c of W is multiplied by x at `places` (cols) i32. */
  | { readonly kind: "pickColumns"; readonly places: Tensor; readonly matrix: Tensor }
  | { readonly kind: "hadamard"; readonly block: number };

const COMPOUND = "compound";

/** A matrix (rows, cols) of parts; a ShapeError when they do not fit. The parts belong to it: freeing it frees them. */
export function compound(shape: readonly number[], of: CompoundExpression): Compound {
  const [rows, cols] = matrixShape("compound", { shape, format: COMPOUND });
  const need = (part: Tensor, r: number, c: number) => {
    const [partRows, partCols] = matrixShape("compound: a part", part);
    if (partRows === r && partCols === c) return;
    throw new ShapeError(`compound: a part of ${rows}×${cols} needs ${r}×${c}, got ${partRows}×${partCols}`);
  };
  switch (of.kind) {
    case "sum":
      for (const term of of.terms) need(term, rows, cols);
      break;
    case "product": {
      const inner = of.factors.slice(0, -1).map(lastOf);
      for (const [i, factor] of of.factors.entries())
        need(factor, i === 0 ? rows : inner[i - 1], inner[i] ?? cols);
      break;
    }
    case "scaleRows":
    case "scaleColumns":
    case "pickColumns":
      need(of.matrix, rows, cols);
      break;
    case "hadamard":
      if (rows !== cols) throw new ShapeError(`compound: a hadamard is square, got ${rows}×${cols}`);
  }
  return { shape, format: COMPOUND, of };
}

export function isCompound(t: Tensor): t is Compound {
  return t.format === COMPOUND;
}

/** The tensors that a compound is made of, each once, itself and the compounds inside it left out. */
export function tensorsOf(t: Tensor, found: Set<Tensor> = new Set()): Set<Tensor> {
  if (!isCompound(t)) return found.add(t);
  const { of } = t;
  switch (of.kind) {
    case "sum":
      for (const term of of.terms) tensorsOf(term, found);
      break;
    case "product":
      for (const factor of of.factors) tensorsOf(factor, found);
      break;
    case "scaleRows":
    case "scaleColumns":
      tensorsOf(of.matrix, found.add(of.scales));
      break;
    case "pickColumns":
      tensorsOf(of.matrix, found.add(of.places));
      break;
    case "hadamard":
  }
  return found;
}

/** The operations that a product with parts is made of; `Operations` has them. */
interface Products {
  linear(x: Tensor, w: Tensor, precision?: number): Tensor;
  add(a: Tensor, b: Tensor): Tensor;
  scaleColumns(x: Tensor, v: Tensor): Tensor;
  pickColumns(x: Tensor, places: Tensor): Tensor;
  hadamard(x: Tensor, block: number): Tensor;
}

/** y = x·Wᵀ by operations on the parts of W: x (…, cols) -> y (…, rows). */
export function linearOf(ops: Products, x: Tensor, w: Tensor, precision?: number): Tensor {
  if (!isCompound(w)) return ops.linear(x, w, precision);
  if (lastOf(x) !== w.shape[1]) {
    throw new ShapeError(
      `linear: x needs rows of ${w.shape[1]} for w ${w.shape.join("×")}, got ${x.shape.join("×")}`,
    );
  }
  const { of } = w;
  switch (of.kind) {
    case "sum":
      return of.terms.map((term) => linearOf(ops, x, term, precision)).reduce((a, b) => ops.add(a, b));
    case "product":
      return of.factors.reduceRight((y, factor) => linearOf(ops, y, factor, precision), x);
    case "scaleRows":
      return ops.scaleColumns(linearOf(ops, x, of.matrix, precision), of.scales);
    case "scaleColumns":
      return linearOf(ops, ops.scaleColumns(x, of.scales), of.matrix, precision);
    case "pickColumns":
      return linearOf(ops, ops.pickColumns(x, of.places), of.matrix, precision);
    case "hadamard":
      return ops.hadamard(x, of.block);
  }
}

/** Throws an UnsupportedError where an argument of an operation other than `linear` is a compound. */
export function needWhole(operation: string, t: unknown): void {
  if (typeof t === "object" && t !== null && (t as Tensor).format === COMPOUND) {
    throw new UnsupportedError(`${operation}: takes no matrix of several parts; decode it first`);
  }
}
