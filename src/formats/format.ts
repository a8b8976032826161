import { InputError, type Matrix } from "../tensor/tensor.ts";
import type { Part, Parts, PartType } from "../tensor/weight.ts";

/**
 * The weights that share a scale: a whole row; `size` neighbours of a row; a
 * superblock whose `subgroups` have scales of their own; a vector coded as
 * one; the whole tensor; or each weight for itself (the 16- and 32-bit floats).
 */
export type GroupShape =
  | { readonly kind: "element" }
  | { readonly kind: "row" }
  | { readonly kind: "group"; readonly size: number }
  | { readonly kind: "superblock"; readonly size: number; readonly subgroups: number }
  | { readonly kind: "vector"; readonly size: number }
  | { readonly kind: "tensor" };

/** One stored array of a packed matrix: its name and type, and its shape for a matrix of (rows, cols). */
export interface PartSpec {
  readonly name: string;
  readonly dtype: PartType;
  readonly shape: readonly number[];
}

/**
 * What a group stores beside its codes, as numbers that survive storage: a
 * scale that the file keeps as fp16 is already rounded to fp16 here.
 */
export interface Parameters {
  readonly scale: number;
  /** Added after scaling, in units of w; 0 in symmetric formats. */
  readonly offset: number;
  /** Scales and offsets of subgroups, in superblock formats. */
  readonly subgroups?: readonly Parameters[];
}

/** Codes of a matrix, row by row, and the parameters of its groups in the order in which they stand in the rows. */
export interface Coded {
  readonly codes: Uint8Array;
  readonly parameters: readonly Parameters[];
}

/** The codes of one group and its parameters. */
export interface CodedGroup {
  readonly codes: Uint8Array;
  readonly parameters: Parameters;
}

interface Layout {
  /** As it stands in files and on the command line: `int4-g64`. */
  readonly name: string;
  /** File of this format's definition and of its decoders: `int4` for `int4-g64`. */
  readonly stem: string;
  /** Where the layout is written down. */
  readonly spec: string;
  /** Bits of one code. */
  readonly codeBits: number;
  readonly groupShape: GroupShape;
  /** Arrays stored for a matrix of (rows, cols); throws an InputError naming the size that does not fit. */
  parts(rows: number, cols: number): readonly PartSpec[];
  /**
   * The first block whose scale or offset is NaN or infinite, −1 when there is none; absent where all floats stand in
   * parts of their own (`f16`, `f32`).
   */
  firstNotFinite?(parts: Parts): number;
}

/** A format of codes and group parameters: every method can write it. */
export interface GroupFormat extends Layout {
  readonly kind: "group";
  /** Number of codes; a code is 0 … codeCount−1. */
  readonly codeCount: number;
  /**
   * Parameters for one group w, as they will be stored: the format's plain rule (min-max, or least error
   * weighted by `importance` where that has a closed form). An InputError says when w is not finite or too large.
   */
  fitGroup(w: Float32Array, importance?: Float32Array): Parameters;
  /**
   * The format's own published rounding of one group: codes and parameters at once, as its makers write them, which
   * `roundToNearest` uses for files that agree byte for byte with theirs. `importance` is that of each weight of w,
   * `meanSquare` the mean of w² over the whole row (float32, added in order), given with importance only.
   * Methods that choose codes themselves go on using fitGroup, nearest and value.
   */
  quantizeGroup?(w: Float32Array, importance?: Float32Array, meanSquare?: number): CodedGroup;
  /** Other parameters worth trying for w, the plain ones first; absent where `fitGroup` has the least error already. */
  candidates?(w: Float32Array): Iterable<Parameters>;
  /** The code whose value is nearest to w (index is the place in the group, for superblocks). */
  nearest(w: number, parameters: Parameters, index?: number): number;
  /** The weight that a code stands for; a float32 number, as every decoder computes it. */
  value(code: number, parameters: Parameters, index?: number): number;
  pack(coded: Coded, rows: number, cols: number): Parts;
  unpack(parts: Parts, rows: number, cols: number): Coded;
}

/** A format with no groups to fit: plain floats, lattices and grids. */
export interface OpaqueFormat extends Layout {
  readonly kind: "opaque";
  encode(w: Float32Array, rows: number, cols: number): Parts;
  decode(parts: Parts, rows: number, cols: number): Float32Array;
}

export type Format = GroupFormat | OpaqueFormat;

/** Weights per group of a matrix (rows, cols): neighbours in row-major order, part of a row or whole rows. */
export function groupSize(format: Format, rows: number, cols: number): number {
  const shape = format.groupShape;
  switch (shape.kind) {
    case "element":
      return 1;
    case "row":
      return cols;
    case "tensor":
      return rows * cols;
    default:
      return shape.size;
  }
}

/** Whether whole groups of a format fill a row of a matrix. */
export function fillsRow(format: Format, cols: number): boolean {
  try {
    format.parts(1, cols);
    return true;
  } catch {
    return false;
  }
}

/** Parameters of every group of W (rows, cols), row by row; `importance` (cols) is that of a column. */
export function fitGroups(format: GroupFormat, W: Matrix, importance?: Float32Array): Parameters[] {
  return Array.from(groupsOf(format, W, importance), ({ w, m }) => format.fitGroup(w, m));
}

/**
 * Each group of W (rows, cols) rounded for itself: by the format's own rounding where it has one, else fitted and
 * each weight put at the code nearest to it. `importance` (cols) is that of a column.
 */
export function roundToNearest(format: GroupFormat, W: Matrix, importance?: Float32Array): Coded {
  const codes = new Uint8Array(W.data.length);
  const parameters: Parameters[] = [];
  let row = -1;
  let square: number | undefined;
  for (const { w, m, at } of groupsOf(format, W, importance)) {
    if (format.quantizeGroup) {
      const r = Math.floor(at / W.cols);
      if (m && r !== row) square = meanSquare(W.data.subarray(r * W.cols, (r + 1) * W.cols));
      row = r;
      const coded = format.quantizeGroup(w, m, square);
      codes.set(coded.codes, at);
      parameters.push(coded.parameters);
    } else {
      const group = format.fitGroup(w, m);
      for (let i = 0; i < w.length; i++) codes[at + i] = format.nearest(w[i], group, i);
      parameters.push(group);
    }
  }
  return { codes, parameters };
}

/** The groups w of W in order, each with its place in the data and its importance. */
function* groupsOf(
  format: GroupFormat,
  W: Matrix,
  importance?: Float32Array,
): Generator<{ w: Float32Array; m: Float32Array | undefined; at: number }> {
  format.parts(W.rows, W.cols); // refuses a row that whole groups do not fill
  const { rows, cols, data } = W;
  const size = groupSize(format, rows, cols);
  const period = Math.max(size, cols); // a group of whole rows has every column more than once
  const weights = importance && Float32Array.from({ length: period }, (_, i) => importance[i % cols]);
  for (let at = 0; at < data.length; at += size) {
    const column = at % period;
    yield { w: data.subarray(at, at + size), m: weights?.subarray(column, column + size), at };
  }
}

/** mean(w²) in float32, added from the first on, product and sum rounded once. */
function meanSquare(w: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < w.length; i++) sum = Math.fround(w[i] * w[i] + sum);
  return Math.fround(sum / w.length);
}

/** The weights that codes and parameters stand for. */
export function valuesOf(format: GroupFormat, { codes, parameters }: Coded): Float32Array {
  const size = codes.length / parameters.length;
  const w = new Float32Array(codes.length);
  for (const [g, group] of parameters.entries()) {
    for (let i = 0; i < size; i++) w[g * size + i] = format.value(codes[g * size + i], group, i);
  }
  return w;
}

/** Throws the InputError of a row that whole groups of `size` do not fill. */
export function checkGroup(name: string, cols: number, size: number): void {
  if (cols % size !== 0) {
    throw new InputError(
      `${name}: rows must be whole groups of ${size} weights, got rows of ${cols}; choose a format whose groups divide ${cols}`,
    );
  }
}

/** Largest finite fp16 value; a scale or offset above it cannot be stored. */
const F16_MAX = 65504;

/** A scale or offset as fp16 keeps it; an InputError when that is not a finite number. */
export function storeF16(name: string, what: string, x: number): number {
  const stored = Math.f16round(x);
  if (!Number.isFinite(stored)) {
    throw new InputError(
      `${name}: weights must be finite with a ${what} of at most ${F16_MAX} (fp16), got ${x}; mend the weights or keep this matrix in bf16 or f32`,
    );
  }
  return stored;
}

/** `share` times the root mean square of every row of w (rows, cols), as fp16 keeps it. */
export function rowScales(
  name: string,
  w: Float32Array,
  rows: number,
  cols: number,
  share = 1,
): Float32Array {
  return Float32Array.from({ length: rows }, (_, r) => {
    let sum = 0;
    for (let c = 0; c < cols; c++) sum += w[r * cols + c] ** 2;
    return storeF16(name, "scale", share * Math.sqrt(sum / Math.max(1, cols)));
  });
}

/** A part's bytes as 16- or 32-bit elements: a view where they are aligned, else a copy. */
export function elements<T>(
  part: Part,
  type: { new (buffer: ArrayBufferLike, at: number, length: number): T; readonly BYTES_PER_ELEMENT: number },
): T {
  const size = type.BYTES_PER_ELEMENT;
  const bytes = part.bytes.byteOffset % size === 0 ? part.bytes : part.bytes.slice();
  return new type(bytes.buffer, bytes.byteOffset, bytes.byteLength / size);
}

/** The bytes of a typed array, as a part. */
export function partOf(dtype: PartType, shape: readonly number[], data: ArrayBufferView): Part {
  return { dtype, shape, bytes: new Uint8Array(data.buffer, data.byteOffset, data.byteLength) };
}

export type { Part, Parts };
