import type { LayerSizes } from "../formats/decoder.ts";
import { ShapeError, sizeOf, type Tensor, UnsupportedError } from "../tensor/tensor.ts";
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
  /** What stands before column c of W is multiplied by x at `places` (the columns of W) i32. */
  | { readonly kind: "pickColumns"; readonly places: Tensor; readonly matrix: Tensor }
  | { readonly kind: "hadamard"; readonly block: number }
  /** Matrices one below the other. */
  | { readonly kind: "stack"; readonly matrices: readonly Tensor[] }
  | Decoder;

/** A matrix that layers draw from images, some columns at a time: `decoder` of tensor/weight.ts. */
export interface Decoder {
  readonly kind: "decoder";
  /** (patches, side·side·channels), in any format that `embedding` reads. */
  readonly latent: Tensor;
  readonly layers: readonly (LayerSizes & { readonly weights: Tensor; readonly biases: Tensor })[];
  /** The columns of W from left to right, as many as a patch is wide each. */
  readonly strips: readonly Strip[];
}

interface Strip {
  /** Which columns these are, i32, and which rows of the latent are their patches, from the first row of W down, i32. */
  readonly places: Tensor;
  readonly images: Tensor;
  /** (rows) what the rows are multiplied by here. */
  readonly scales?: Tensor;
}

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
      need(of.matrix, rows, cols);
      break;
    case "pickColumns":
      need(of.matrix, rows, sizeOf(of.places.shape));
      break;
    case "hadamard":
      if (rows !== cols) throw new ShapeError(`compound: a hadamard is square, got ${rows}×${cols}`);
      break;
    case "decoder": {
      const width = of.strips.reduce((sum, { places }) => sum + lastOf(places), 0);
      if (width !== cols) throw new ShapeError(`compound: strips of ${cols} columns in all, got ${width}`);
      break;
    }
    case "stack": {
      for (const one of of.matrices) need(one, one.shape[0], cols);
      const all = of.matrices.reduce((sum, { shape }) => sum + shape[0], 0);
      if (all !== rows) throw new ShapeError(`compound: a stack of ${rows} rows, got ${all}`);
    }
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
    case "decoder":
      found.add(of.latent);
      for (const { weights, biases } of of.layers) found.add(weights).add(biases);
      for (const { places, images, scales } of of.strips) {
        found.add(places).add(images);
        if (scales) found.add(scales);
      }
      break;
    case "stack":
      for (const one of of.matrices) tensorsOf(one, found);
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
  join(a: Tensor, b: Tensor): Tensor;
  embedding(table: Tensor, ids: Tensor): Tensor;
  scaleRows(x: Tensor, v: Tensor): Tensor;
  addRow(x: Tensor, v: Tensor): Tensor;
  gelu(x: Tensor): Tensor;
  neighbourhoods(x: Tensor, height: number, width: number, channels: number, kernel: number): Tensor;
  neighbourSums(x: Tensor, height: number, width: number, channels: number, kernel: number): Tensor;
  pixelShuffle(
    x: Tensor,
    height: number,
    width: number,
    channels: number,
    stride: number,
    back: number,
  ): Tensor;
}

/** Runs something of which only the result is kept: a tape's `segment`, a backend's `scope`. */
export type Segment = (body: () => Tensor) => Tensor;

/**
 * What the layers of a decoder make of images (n, side·side·channels): their n patches one below the other, (n·p, p).
 *
 *   x ← shuffled(neighbourhoods(x)·Wᵀ + b), with a GELU between layers
 *
 * Where fewer numbers come out of a place than go in, its product with each part of the kernel comes first, and sums over the
 * places around follow: k² times as many numbers of the smaller count are written down, not of the larger.
 */
export function drawn(ops: Products, images: Tensor, layers: Decoder["layers"]): Tensor {
  let x = images;
  for (const [i, { side, channels, kernel, stride, out, weights, biases }] of layers.entries()) {
    const input = i === 0 ? x : ops.gelu(x);
    const made = ops.addRow(convolved(input, side, channels, kernel, stride ** 2 * out, weights), biases);
    x = ops.pixelShuffle(made, stride * side, stride * side, out, stride, 0);
  }
  return x;

  function convolved(
    x: Tensor,
    side: number,
    channels: number,
    kernel: number,
    made: number,
    weights: Tensor,
  ): Tensor {
    if (made >= channels || kernel === 1)
      return ops.linear(ops.neighbourhoods(x, side, side, channels, kernel), weights);
    const places = ops.pixelShuffle(x, side, side, channels, 1, 1);
    const parts = ops.pixelShuffle(weights, 1, kernel ** 2, channels, 1, 1);
    return ops.neighbourSums(ops.linear(places, parts), side, side, made, kernel);
  }
}

/** y = x·Wᵀ by operations on the parts of W: x (…, cols) -> y (…, rows). */
export function linearOf(
  ops: Products,
  x: Tensor,
  w: Tensor,
  precision: number | undefined,
  segment: Segment,
): Tensor {
  if (!isCompound(w)) return ops.linear(x, w, precision);
  if (lastOf(x) !== w.shape[1]) {
    throw new ShapeError(
      `linear: x needs rows of ${w.shape[1]} for w ${w.shape.join("×")}, got ${x.shape.join("×")}`,
    );
  }
  const { of } = w;
  const times = (y: Tensor, factor: Tensor) => linearOf(ops, y, factor, precision, segment);
  switch (of.kind) {
    case "sum":
      return of.terms.map((term) => times(x, term)).reduce((a, b) => ops.add(a, b));
    case "product":
      return of.factors.reduceRight(times, x);
    case "scaleRows":
      return ops.scaleColumns(times(x, of.matrix), of.scales);
    case "scaleColumns":
      return times(ops.scaleColumns(x, of.scales), of.matrix);
    case "pickColumns":
      return times(ops.pickColumns(x, of.places), of.matrix);
    case "hadamard":
      return ops.hadamard(x, of.block);
    case "decoder":
      return of.strips
        .map(({ places, images, scales }) =>
          segment(() => {
            const plain = drawn(ops, ops.embedding(of.latent, images), of.layers);
            return ops.linear(
              ops.pickColumns(x, places),
              scales ? ops.scaleRows(plain, scales) : plain,
              precision,
            );
          }),
        )
        .reduce((a, b) => ops.add(a, b));
    case "stack":
      return joined(of.matrices.map((one) => times(x, one)));
  }

  /** All side by side, neighbours first, so that each number is copied log₂ n times. */
  function joined(parts: readonly Tensor[]): Tensor {
    if (parts.length === 1) return parts[0];
    const half = Math.ceil(parts.length / 2);
    return ops.join(joined(parts.slice(0, half)), joined(parts.slice(half)));
  }
}

/** Throws an UnsupportedError where an argument of an operation other than `linear` is a compound. */
export function needWhole(operation: string, t: unknown): void {
  if (typeof t === "object" && t !== null && (t as Tensor).format === COMPOUND) {
    throw new UnsupportedError(`${operation}: takes no matrix of several parts; decode it first`);
  }
}
