import type { Backend } from "../backends/backend.ts";
import { codeBitsFor, MOST_CODE_BITS, packCodes } from "../formats/codebook.ts";
import { decodeWeight, encodeWeight, formatByName } from "../formats/index.ts";
import { hostTensor, InputError, type Matrix, matrix } from "../tensor/tensor.ts";
import type { Weight } from "../tensor/weight.ts";
import { inOrder, type Orders, orderHeight, putBack, rowsOf } from "./column-orders.ts";
import { kMeans } from "./k-means.ts";
import { diagonal, spreadErrors, spreadFactor } from "./spread-errors.ts";
import { upperTriangularInverse } from "./upper-inverse.ts";

/** A matrix in codes of vectors: their length, the size of the book, and which weights share a scale. */
export interface VectorOptions {
  /** d: weights of a vector, neighbours in a row. */
  readonly length: number;
  /** Entries of the book; bits of a code are its logarithm, rounded up. */
  readonly entries: number;
  /** Weights of a row that share a scale; a multiple of `length` that divides the row. */
  readonly group: number;
  readonly seed?: number;
  readonly signal?: AbortSignal;
}

/** Books that are put together from parts of their own. */
export interface BookForm {
  /** The book of this form that is nearest to the means (entries, length) of vectors of these masses (entries, length). */
  fit(means: Float32Array, masses: Float32Array): Float32Array;
  /** What it gave last. */
  stored(): Weight;
}

/** Throws an InputError unless vectors and groups fill the rows and the book is no larger than what it stands for. */
export function checkVectorOptions(
  method: string,
  { rows, cols }: { readonly rows: number; readonly cols: number },
  { length, entries, group }: VectorOptions,
): void {
  const fitting = (n: number) => Array.from({ length: n }, (_, i) => i + 1).filter((size) => n % size === 0);
  if (cols % length !== 0) {
    throw new InputError(
      `${method}: vectors of ${length} do not fill rows of ${cols}; take ${fitting(cols).slice(0, 6).join(", ")}`,
    );
  }
  if (group % length !== 0 || cols % group !== 0) {
    const sizes = fitting(cols).filter((size) => size % length === 0);
    throw new InputError(
      `${method}: groups of ${group} do not hold whole vectors of ${length} and divide rows of ${cols}; take ${sizes.slice(-6).join(", ")}`,
    );
  }
  if (entries < 2 || codeBitsFor(entries) > MOST_CODE_BITS) {
    throw new InputError(`${method}: a book has 2 to ${2 ** MOST_CODE_BITS} entries, got ${entries}`);
  }
  if (entries > (rows * cols) / length) {
    throw new InputError(
      `${method}: a book of ${entries} entries is larger than the ${(rows * cols) / length} vectors of ${rows}×${cols}; take fewer bits or shorter vectors`,
    );
  }
}

/**
 * The root mean square of every group, (rows, groups), as it will be stored:
 * bytes with a 16-bit scale for each row, or where a group is a whole row the
 * 16-bit number itself. Groups of zeros get 0.
 */
export function storedScales(W: Matrix, group: number): { readonly stored: Weight; readonly values: Matrix } {
  const groups = W.cols / group;
  const scales = new Float32Array(W.rows * groups);
  for (let g = 0; g < scales.length; g++) {
    let sum = 0;
    for (let i = g * group; i < (g + 1) * group; i++) sum += W.data[i] ** 2;
    scales[g] = Math.sqrt(sum / group);
  }
  const format = formatByName(groups === 1 ? "f16" : "int8");
  const stored = encodeWeight(format, [W.rows, groups], scales);
  return { stored, values: decodeWeight(stored) };
}

export interface CodesOptions extends VectorOptions {
  readonly H?: Float32Array;
  readonly damping?: number;
  /** Codes by `nearest` alone, though H says what an element counts. */
  readonly nearest?: boolean;
  /** Codes as this function made them of a matrix like W: k-means begins with their book. */
  readonly like?: Weight;
  /** A book that is given and stays as it is. */
  readonly book?: Weight;
  /** A form that the book is to have. Default: numbers in fp16. */
  readonly form?: BookForm;
  /** Orders of the columns for each block of rows; the vectors lie along them, and they are stored. */
  readonly orders?: Orders;
}

/**
 * W ≈ scale·book[code]: group scales, a book learned by k-means from the
 * scaled vectors of this matrix, and codes. Elements count by
 * scale²·H_cc, what their error costs at the output, or by scale²/U_cc² where
 * the errors of a column are mended by those after it (by the former where
 * blocks of rows have orders of their own, each of which has another U).
 *
 * With H the codes are chosen in the order of the columns, vectors of all rows
 * at a time, errors spread over the columns to come (`spreadErrors`). The
 * vector is then the one with the least ‖(w − ŵ)·(U_JJ)⁻¹‖², so that the
 * correlations inside a vector count as well.
 */
export async function vectorCodes(backend: Backend, source: Matrix, options: CodesOptions): Promise<Weight> {
  const { length, group, H, seed, signal, damping, orders } = options;
  const W = orders ? inOrder(source, orders) : source;
  const { rows, cols } = W;
  const { stored: scales, values: S } = storedScales(W, group);
  const x = scaled(W, S, group);
  const swept = H && !options.nearest;
  const factorOf = (order?: Uint32Array) => spreadFactor(backend, H!, { damping, order, signal });
  const U = swept && !orders ? await factorOf() : undefined;
  const costs = U ? [diagonal(U).map((u) => 1 / u ** 2)] : H && costsInOrder(diagonal(H), orders);
  const weights = importance(W, S, group, costs);
  const given = options.book && decodeWeight(options.book);
  const found = await kMeans(backend, x, {
    length,
    entries: given?.rows ?? options.entries,
    weights,
    start: given ?? (options.like && bookOf(options.like)),
    rounds: given ? 0 : undefined,
    form: options.form?.fit,
    seed,
    signal,
  });
  const { entries } = found;
  let { codes } = found;
  if (U) codes = await sweep(backend, W, U, S, entries, { group, signal });
  if (swept && orders) {
    const height = orderHeight(rows);
    codes = new Int32Array((rows * cols) / length);
    for (const [b, order] of orders.entries()) {
      const [from, to] = [b * height, (b + 1) * height];
      const own = { group, signal, order };
      const block = rowsOf(source, from, to);
      const chosen = await sweep(backend, block, await factorOf(order), rowsOf(S, from, to), entries, own);
      codes.set(chosen, (from * cols) / length);
    }
  }
  const codeBits = codeBitsFor(entries.rows);
  const shape = [rows, cols];
  const of: Weight = {
    shape,
    expression: {
      kind: "codebook",
      codes: packCodes(codes, rows, cols / length, codeBits),
      codeBits,
      book:
        options.book ??
        options.form?.stored() ??
        encodeWeight(formatByName("f16"), [entries.rows, length], entries.data),
    },
  };
  const coded: Weight = { shape, expression: { kind: "scaleGroups", scales, of } };
  return orders ? putBack(coded, orders) : coded;
}

/** What a column costs, in the order of each block of rows. */
function costsInOrder(costs: Float32Array, orders: Orders | undefined): Float32Array[] {
  return orders ? orders.map((order) => Float32Array.from(order, (column) => costs[column])) : [costs];
}

/** Vectors of W over their scales, as `vectorCodes` codes them: of these a book may be learned for several matrices. */
export function scaledVectors(W: Matrix, group: number): Float32Array {
  return scaled(W, storedScales(W, group).values, group);
}

/** The book of what `vectorCodes` made. */
function bookOf({ expression: e }: Weight): Matrix | undefined {
  if (e.kind === "scaleGroups" || e.kind === "permuteColumns") return bookOf(e.of);
  return e.kind === "codebook" ? decodeWeight(e.book) : undefined;
}

/** W over its scales; 0 where the scale is 0. */
export function scaled(W: Matrix, S: Matrix, group: number): Float32Array {
  const x = new Float32Array(W.data.length);
  for (const [g, s] of S.data.entries()) {
    if (s === 0) continue;
    for (let i = g * group; i < (g + 1) * group; i++) x[i] = W.data[i] / s;
  }
  return x;
}

/** scale²·h_c of every element, the mean being 1; h is that of each block of rows, or one for all. */
export function importance(
  W: Matrix,
  S: Matrix,
  group: number,
  h: readonly Float32Array[] = [new Float32Array(W.cols).fill(1)],
): Float32Array {
  const of = (r: number) => h[Math.floor((r * h.length) / W.rows)];
  const weights = new Float32Array(W.data.length);
  let sum = 0;
  for (let i = 0; i < weights.length; i++) {
    weights[i] = S.data[Math.floor(i / group)] ** 2 * of(Math.floor(i / W.cols))[i % W.cols];
    sum += weights[i];
  }
  const mean = sum / weights.length;
  if (!(mean > 0)) return weights.fill(1);
  for (let i = 0; i < weights.length; i++) weights[i] /= mean;
  return weights;
}

/** Codes of all rows, one column of vectors after another. */
async function sweep(
  backend: Backend,
  W: Matrix,
  U: Float32Array,
  S: Matrix,
  { rows: entries, cols: length, data: book }: Matrix,
  { group, signal, order }: { group: number; signal?: AbortSignal; order?: Uint32Array },
): Promise<Int32Array> {
  const { rows, cols } = W;
  const codes = new Int32Array((rows * cols) / length);
  const tensors = {
    codes: backend.upload(hostTensor([rows], new Int32Array(rows))),
    errors: backend.zeros([rows]),
    x: backend.zeros([rows, length]),
    book: backend.zeros([entries, length]),
    ones: backend.upload(hostTensor([1, length], new Float32Array(length).fill(1))),
  };
  const scale = (r: number, c: number) => S.data[r * S.cols + Math.floor(c / group)];
  try {
    await sweepVectors(backend, W, U, { length, scale, order, signal }, async (first, x, metric) => {
      backend.write(tensors.x, times(x, metric, length));
      backend.write(tensors.book, times(book, metric, length));
      backend.nearestEntries(tensors.codes, tensors.errors, tensors.x, tensors.book, tensors.ones);
      const chosen = (await backend.read(tensors.codes)) as Int32Array;
      const values = new Float32Array(rows * length);
      for (let r = 0; r < rows; r++) {
        codes[(r * cols + first) / length] = chosen[r];
        values.set(book.subarray(chosen[r] * length, (chosen[r] + 1) * length), r * length);
      }
      return values;
    });
  } finally {
    for (const t of Object.values(tensors)) backend.free(t);
  }
  return codes;
}

/**
 * `spreadErrors` for vectors of `length` weights of a row, over scales(r, c): `choose` is given the vectors x (rows,
 * length) at column `first` and says what they become; their errors e count ‖e·metric‖², metric (length, length).
 */
export async function sweepVectors(
  backend: Backend,
  W: Matrix,
  U: Float32Array,
  options: {
    readonly length: number;
    readonly scale: (r: number, c: number) => number;
    /** Of the columns; default: as they stand. */
    readonly order?: Uint32Array;
    readonly signal?: AbortSignal;
  },
  choose: (first: number, x: Float32Array, metric: Float64Array) => Promise<Float32Array>,
): Promise<void> {
  const { length, scale, order, signal } = options;
  const { rows } = W;
  const block = Math.ceil(128 / length) * length;
  await spreadErrors(
    backend,
    W,
    U,
    { together: length, block, order, signal },
    async ({ first, column, factor }) => {
      const x = new Float32Array(rows * length);
      for (let j = 0; j < length; j++) {
        const w = column(first + j);
        for (let r = 0; r < rows; r++) {
          const s = scale(r, first);
          x[r * length + j] = s === 0 ? 0 : w[r] / s;
        }
      }
      const values = await choose(first, x, upperTriangularInverse(length, factor));
      const Ŵ = new Float32Array(rows * length);
      for (let r = 0; r < rows; r++) {
        const s = scale(r, first);
        for (let j = 0; j < length; j++) Ŵ[j * rows + r] = s * values[r * length + j];
      }
      return Ŵ;
    },
  );
}

/** x (…, n) times m (n, n). */
export function times(x: Float32Array, m: Float64Array, n: number): Float32Array {
  const y = new Float32Array(x.length);
  for (let at = 0; at < x.length; at += n) {
    for (let j = 0; j < n; j++) {
      let sum = 0;
      for (let i = 0; i < n; i++) sum += x[at + i] * m[i * n + j];
      y[at + j] = sum;
    }
  }
  return y;
}

/** A − B */
export function difference(A: Matrix, B: Matrix): Matrix {
  const result = matrix(A.rows, A.cols);
  for (let i = 0; i < result.data.length; i++) result.data[i] = A.data[i] - B.data[i];
  return result;
}
