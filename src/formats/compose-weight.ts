import { hadamardOf } from "../tensor/hadamard.ts";
import { bf16FromBits } from "../tensor/half.ts";
import { InputError, type Matrix, matrix, row, ShapeError, sizeOf, transposed } from "../tensor/tensor.ts";
import type { Part, Weight } from "../tensor/weight.ts";
import { lookUp, scaleGroups } from "./codebook.ts";
import { drawPatches } from "./decoder.ts";
import { elements, type Parts } from "./format.ts";

/** How the one packed part of a weight becomes floats. */
export type DecodePacked = (format: string, parts: Parts, rows: number, cols: number) => Float32Array;

/**
 * The matrix that a weight stands for, put together as `Expression` says
 * (tensor/weight.ts). Products are summed in 64 bits and rounded once. A
 * tensor of another rank is seen as rows of its last axis.
 */
export function composeWeight(weight: Weight, decodePacked: DecodePacked): Matrix {
  const { shape, expression: e } = weight;
  const cols = shape.length === 0 ? 1 : shape[shape.length - 1];
  const rows = cols === 0 ? 0 : sizeOf(shape) / cols;
  const compose = (part: Weight) => composeWeight(part, decodePacked);

  switch (e.kind) {
    case "packed":
      return matrix(rows, cols, decodePacked(e.format, e.parts, rows, cols));
    case "sum":
      return e.terms.map(compose).reduce(add);
    case "product":
      return productOf(e.factors, compose);
    case "lowRank":
      return multiply(compose(e.a), compose(e.b));
    case "codebook":
      return lookUp(e.codes, e.codeBits, compose(e.book), rows, cols, e.down);
    case "decoder": {
      const layers = e.layers.map((layer) => ({
        ...layer,
        weights: compose(layer.weights),
        biases: compose(layer.biases),
      }));
      return drawPatches(rows, cols, e.patch, compose(e.latent), layers);
    }
    case "scaleRows": {
      const scales = numbersOf(e.scales);
      const m = compose(e.of);
      return mapMatrix(m, (value, r) => scales[r] * value);
    }
    case "scaleColumns": {
      const scales = numbersOf(e.scales);
      const m = compose(e.of);
      return mapMatrix(m, (value, _, c) => value * scales[c]);
    }
    case "scaleGroups":
      return scaleGroups(compose(e.of), compose(e.scales));
    case "permuteColumns": {
      const order = numbersOf(e.order);
      const m = compose(e.of);
      const height = blockHeight(order.length, rows, cols);
      for (const [c, column] of order.entries()) {
        if (Number.isInteger(column) && column >= 0 && column < m.cols) continue;
        throw new InputError(`weight: column ${c} would be column ${column} of ${m.cols}`);
      }
      return mapMatrix(m, (_, r, c) => m.data[r * m.cols + order[Math.floor(r / height) * cols + c]]);
    }
    case "placeColumns":
      return placeColumns(compose(e.of), numbersOf(e.places), cols);
    case "hadamard": {
      const identity = mapMatrix(matrix(rows, cols), (_, r, c) => (r === c ? 1 : 0));
      return timesHadamard(identity, e.block);
    }
    case "sign": {
      const isPositive = signsOf(e.bits, cols);
      return mapMatrix(matrix(rows, cols), (_, r, c) => (isPositive(r, c) ? 1 : -1));
    }
    case "signed": {
      const isPositive = signsOf(e.bits, cols);
      return mapMatrix(compose(e.of), (value, r, c) => (isPositive(r, c) ? value : -value));
    }
  }
}

/** Whether the bit of a weight is set; a row of bits starts on a byte. */
function signsOf({ bytes }: Part, cols: number): (r: number, c: number) => boolean {
  const bytesPerRow = Math.ceil(cols / 8);
  return (r, c) => ((bytes[r * bytesPerRow + (c >> 3)] >> (c & 7)) & 1) === 1;
}

/** Rows that share one of the orders of columns, of which there are `count` numbers. */
export function blockHeight(count: number, rows: number, cols: number): number {
  const height = (rows * cols) / count;
  if (Number.isInteger(count / cols) && Number.isInteger(height)) return height;
  throw new InputError(`weight: ${count} numbers are no orders of the columns of ${rows}×${cols}`);
}

/** Columns of m at their places among `cols`, the others 0. */
function placeColumns(m: Matrix, places: ArrayLike<number>, cols: number): Matrix {
  checkPlaces(places, m.cols, cols);
  const result = matrix(m.rows, cols);
  for (let r = 0; r < m.rows; r++) {
    for (let k = 0; k < m.cols; k++) result.data[r * cols + places[k]] = m.data[r * m.cols + k];
  }
  return result;
}

/** Throws an InputError unless so many columns have a place of their own each. */
export function checkPlaces(places: ArrayLike<number>, columns: number, cols: number): void {
  if (places.length !== columns) {
    throw new InputError(`weight: ${columns} columns need as many places, got ${places.length}`);
  }
  const taken = new Uint8Array(cols);
  for (let k = 0; k < columns; k++) {
    const place = places[k];
    if (!(Number.isInteger(place) && place >= 0 && place < cols)) {
      throw new InputError(`weight: column ${k} would stand at place ${place} of ${cols}`);
    }
    if (taken[place]++) throw new InputError(`weight: two columns would stand at place ${place}`);
  }
}

function add(A: Matrix, B: Matrix): Matrix {
  if (A.rows !== B.rows || A.cols !== B.cols) {
    throw new ShapeError(`weight: a sum needs equal shapes, got ${A.rows}×${A.cols} and ${B.rows}×${B.cols}`);
  }
  return mapMatrix(A, (value, r, c) => value + B.data[r * B.cols + c]);
}

/** The product of factors; Hadamard matrices at either end of a dense one are applied by the fast transform. */
function productOf(factors: readonly Weight[], compose: (factor: Weight) => Matrix): Matrix {
  const blocks = factors.map(({ expression: e }) => (e.kind === "hadamard" ? e.block : undefined));
  const first = blocks.indexOf(undefined);
  if (first === -1) return factors.map(compose).reduce(multiply);
  let product = compose(factors[first]);
  for (let i = first + 1; i < factors.length; i++) {
    const block = blocks[i];
    product = block === undefined ? multiply(product, compose(factors[i])) : timesHadamard(product, block);
  }
  for (let i = first - 1; i >= 0; i--) {
    product = transposed(timesHadamard(transposed(product), blocks[i]!)); // it is symmetric
  }
  return product;
}

/** m·diag(H, …, H), H the orthonormal Hadamard matrix of `block`. */
function timesHadamard(m: Matrix, block: number): Matrix {
  if (m.cols % block !== 0)
    throw new ShapeError(`weight: a hadamard of ${block} does not fit rows of ${m.cols}`);
  return matrix(m.rows, m.cols, Float32Array.from(hadamardOf(m.data, block)));
}

/** A (rows, inner) · B (inner, cols) */
function multiply(A: Matrix, B: Matrix): Matrix {
  if (A.cols !== B.rows) {
    throw new ShapeError(
      `weight: a product needs equal inner sizes, got ${A.rows}×${A.cols} and ${B.rows}×${B.cols}`,
    );
  }
  const product = matrix(A.rows, B.cols);
  const sums = new Float64Array(B.cols);
  const { cols: inner, data: a } = A;
  const { cols, data: b } = B;
  for (let r = 0; r < A.rows; r++) {
    sums.fill(0);
    let i = 0;
    for (; i + 4 <= inner; i += 4) {
      // Four at a time, so that a sum is loaded and stored once for them.
      const at = r * inner + i;
      const from = i * cols;
      const a0 = a[at];
      const a1 = a[at + 1];
      const a2 = a[at + 2];
      const a3 = a[at + 3];
      for (let c = 0, k = from; c < cols; c++, k++) {
        sums[c] += a0 * b[k] + a1 * b[k + cols] + a2 * b[k + 2 * cols] + a3 * b[k + 3 * cols];
      }
    }
    for (; i < inner; i++) {
      for (let c = 0; c < cols; c++) sums[c] += a[r * inner + i] * b[i * cols + c];
    }
    row(product, r).set(sums);
  }
  return product;
}

function mapMatrix(m: Matrix, value: (value: number, r: number, c: number) => number): Matrix {
  const result = matrix(m.rows, m.cols);
  for (let r = 0; r < m.rows; r++) {
    for (let c = 0; c < m.cols; c++) result.data[r * m.cols + c] = value(m.data[r * m.cols + c], r, c);
  }
  return result;
}

/** The elements of a part as numbers. */
export function numbersOf(part: Part): ArrayLike<number> & { entries(): Iterable<[number, number]> } {
  switch (part.dtype) {
    case "u8":
      return part.bytes;
    case "i8":
      return elements(part, Int8Array);
    case "u16":
      return elements(part, Uint16Array);
    case "i16":
      return elements(part, Int16Array);
    case "i32":
      return elements(part, Int32Array);
    case "f16":
      return elements(part, Float16Array);
    case "f32":
      return elements(part, Float32Array);
    case "bf16":
      return Float32Array.from(elements(part, Uint16Array), bf16FromBits);
  }
}
