import { InputError, type Matrix, matrix, ShapeError } from "../tensor/tensor.ts";
import type { Part } from "../tensor/weight.ts";
import { partOf } from "./format.ts";

/**
 * Codes of a codebook: a row of a matrix is cols/d vectors of d weights, each stored as the number of an entry of the
 * book (entries, d).
 *
 *   codes  u8 (rows, ⌈(cols/d)·bits/8⌉)  code v of a row is bits v·bits … of a little-endian stream that begins on a byte
 *
 * Vectors may run down the columns instead, d rows of one: then codes are u8 (rows/d, ⌈cols·bits/8⌉), one for each column.
 *
 * codebook.h reads the same.
 */

/** The widest code. */
export const MOST_CODE_BITS = 16;

/** Bits of a code of a book with so many entries. */
export function codeBitsFor(entries: number): number {
  return Math.max(1, Math.ceil(Math.log2(entries)));
}

/** Stored codes: `codes` (rows, perRow), each below 2^bits. */
export function packCodes(codes: ArrayLike<number>, rows: number, perRow: number, bits: number): Part {
  const width = Math.ceil((perRow * bits) / 8);
  const bytes = new Uint8Array(rows * width);
  for (let r = 0; r < rows; r++) {
    for (let v = 0; v < perRow; v++) {
      const first = v * bits;
      const at = r * width + (first >>> 3);
      const shifted = codes[r * perRow + v] << (first & 7);
      bytes[at] |= shifted;
      if ((first & 7) + bits > 8) bytes[at + 1] |= shifted >>> 8;
      if ((first & 7) + bits > 16) bytes[at + 2] |= shifted >>> 16;
    }
  }
  return partOf("u8", [rows, width], bytes);
}

/** Codes as they were packed. */
export function unpackCodes(codes: Part, rows: number, perRow: number, bits: number): Uint16Array {
  const unpacked = new Uint16Array(rows * perRow);
  for (let r = 0; r < rows; r++) {
    for (let v = 0; v < perRow; v++) unpacked[r * perRow + v] = codeAt(codes, r, v, bits);
  }
  return unpacked;
}

/** Rows of codes, and codes of each, of a matrix (rows, cols) in vectors of `length`. */
export function codesShape(
  rows: number,
  cols: number,
  length: number,
  down = false,
): readonly [rows: number, perRow: number] {
  return down ? [rows / length, cols] : [rows, cols / length];
}

/** The matrix (rows, cols) of stored codes; an InputError names a code that the book does not have. */
export function lookUp(
  codes: Part,
  bits: number,
  book: Matrix,
  rows: number,
  cols: number,
  down?: boolean,
): Matrix {
  checkCodes(codes, bits, book.rows, ...codesShape(rows, cols, book.cols, down));
  const { cols: length } = book;
  const data = new Float32Array(rows * cols);
  if (down) {
    for (let at = 0; at < data.length; at++) {
      const r = Math.floor(at / cols);
      const entry = codeAt(codes, Math.floor(r / length), at % cols, bits) * length;
      data[at] = book.data[entry + (r % length)];
    }
    return matrix(rows, cols, data);
  }
  for (let r = 0; r < rows; r++) {
    for (let v = 0; v < cols / length; v++) {
      const entry = codeAt(codes, r, v, bits) * length;
      const at = r * cols + v * length;
      for (let j = 0; j < length; j++) data[at + j] = book.data[entry + j];
    }
  }
  return matrix(rows, cols, data);
}

/** Throws an InputError unless every code is the number of an entry. */
export function checkCodes(codes: Part, bits: number, entries: number, rows: number, perRow: number): void {
  if (entries === 2 ** bits) return;
  for (let r = 0; r < rows; r++) {
    for (let v = 0; v < perRow; v++) {
      const code = codeAt(codes, r, v, bits);
      if (code < entries) continue;
      throw new InputError(`weight: code ${code} is outside its codebook of ${entries} entries`);
    }
  }
}

/** Every row's groups of columns times their scales (rows, groups); the matrix itself without scales. */
export function scaleGroups(m: Matrix, scales: Matrix | undefined): Matrix {
  if (!scales) return m;
  const width = groupWidth(scales, m.rows, m.cols);
  const scaled = matrix(m.rows, m.cols);
  for (let at = 0; at < scaled.data.length; at++)
    scaled.data[at] = m.data[at] * scales.data[Math.floor(at / width)];
  return scaled;
}

/** Columns that share a scale, where scales are (rows, groups) of a matrix (rows, cols). */
export function groupWidth(scales: Matrix, rows: number, cols: number): number {
  const width = cols / scales.cols;
  if (scales.rows === rows && Number.isInteger(width)) return width;
  throw new ShapeError(
    `weight: scales ${scales.rows}×${scales.cols} do not divide ${rows}×${cols} into groups`,
  );
}

function codeAt({ bytes, shape }: Part, r: number, v: number, bits: number): number {
  const first = v * bits;
  const at = r * shape[1] + (first >>> 3);
  const window = bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16); // beyond the end: undefined << n is 0
  return (window >>> (first & 7)) & ((1 << bits) - 1);
}
