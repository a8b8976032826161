import type { Backend } from "../backends/backend.ts";
import { partOf } from "../formats/format.ts";
import { pauses } from "../record/pause.ts";
import type { Job } from "../record/record.ts";
import { hostTensor, type Matrix, matrix, row, transposed } from "../tensor/tensor.ts";
import type { Part, Weight } from "../tensor/weight.ts";

/** Most rows that share an order of their columns. */
const MOST_ROWS = 64;
/** Columns before the next one whose mean it should be like. */
const OVERLAP = 16;

/** order[j]: the column that comes j-th; one order for each block of rows. */
export type Orders = readonly Uint32Array[];

/** Rows that share an order: 64, or as many below it as divide the rows. */
export function orderHeight(rows: number): number {
  let height = Math.min(rows, MOST_ROWS);
  while (rows % height !== 0) height--;
  return height;
}

/**
 * An order of the columns for each 64 rows in which neighbours are alike: the
 * next column is the one nearest to the mean of the last 16, the first one the longest.
 *
 *   next = argmin_j ‖w_j − m‖² = argmin_j ‖w_j‖² − 2·⟨w_j, m⟩
 *
 * Leconte et al., 2024 (https://arxiv.org/abs/2405.13155), as in their code (models/quantization_utils_2.py,
 * "blockwise-permute"). O(cols²) numbers for each block, of products of columns that are made once.
 */
export async function likeNeighbours(backend: Backend, W: Matrix, job: Job = {}): Promise<Orders> {
  const pause = pauses(job);
  const orders: Uint32Array[] = [];
  const height = orderHeight(W.rows);
  for (let from = 0; from < W.rows; from += height) {
    orders.push(greedy(await gramOf(backend, rowsOf(W, from, from + height))));
    await pause();
  }
  return orders;
}

/** G_jk = ⟨w_j, w_k⟩ of the columns. */
async function gramOf(backend: Backend, block: Matrix): Promise<Matrix> {
  const columns = transposed(block);
  const G = backend.scope(() => {
    const w = backend.upload(hostTensor([columns.rows, columns.cols], columns.data));
    return backend.linear(w, w);
  });
  const data = (await backend.read(G)) as Float32Array;
  backend.free(G);
  return matrix(columns.rows, columns.rows, data);
}

function greedy(G: Matrix): Uint32Array {
  const n = G.cols;
  const order = new Uint32Array(n);
  const left = new Uint8Array(n).fill(1);
  const sums = new Float64Array(n); // Σ over the last columns of G_jk
  const square = (j: number) => G.data[j * n + j];
  let next = 0;
  for (let j = 1; j < n; j++) if (square(j) > square(next)) next = j;
  for (let i = 0; i < n; i++) {
    order[i] = next;
    left[next] = 0;
    const added = row(G, next);
    const gone = i >= OVERLAP ? row(G, order[i - OVERLAP]) : undefined;
    for (let j = 0; j < n; j++) sums[j] += added[j] - (gone ? gone[j] : 0);
    const share = 2 / Math.min(i + 1, OVERLAP);
    let least = Number.POSITIVE_INFINITY;
    for (let j = 0; j < n; j++) {
      const distance = left[j] ? square(j) - share * sums[j] : Number.POSITIVE_INFINITY;
      if (distance < least) [least, next] = [distance, j];
    }
  }
  return order;
}

/** W with the columns of each block of rows in their order. */
export function inOrder(W: Matrix, orders: Orders): Matrix {
  const result = matrix(W.rows, W.cols);
  const height = orderHeight(W.rows);
  for (let r = 0; r < W.rows; r++) {
    const order = orders[Math.floor(r / height)];
    const [from, to] = [row(W, r), row(result, r)];
    for (let j = 0; j < W.cols; j++) to[j] = from[order[j]];
  }
  return result;
}

/** The weight whose columns stand in these orders, put back. */
export function putBack(of: Weight, orders: Orders): Weight {
  const cols = of.shape[1];
  const back = new Uint16Array(orders.length * cols);
  for (const [b, order] of orders.entries()) for (let j = 0; j < cols; j++) back[b * cols + order[j]] = j;
  const shape = [orders.length, cols];
  const order: Part = cols <= 256 ? partOf("u8", shape, Uint8Array.from(back)) : partOf("u16", shape, back);
  return { shape: of.shape, expression: { kind: "permuteColumns", order, of } };
}

/** Rows `from … to−1`, as a view. */
export function rowsOf(W: Matrix, from: number, to: number): Matrix {
  return matrix(to - from, W.cols, W.data.subarray(from * W.cols, to * W.cols));
}
