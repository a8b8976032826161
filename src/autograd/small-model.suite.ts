import type { Operations } from "../kernels/index.ts";
import { generator, normals } from "../tensor/random.ts";
import { type HostTensor, hostTensor, sizeOf, type Tensor } from "../tensor/tensor.ts";

// Two blocks like llama's, small enough for tests that run them often.

export const [vocabulary, dim] = [11, 8];
const [heads, kvHeads, ffn, time, batch, epsilon] = [2, 1, 12, 5, 2, 1e-5];
const headDim = dim / heads;
const kvDim = kvHeads * headDim;
export const tokens = batch * time;

/** Shapes of the parameters, by name; the embedding is also the head. */
export const shapes: Record<string, readonly number[]> = { embedding: [vocabulary, dim], norm: [dim] };
for (const i of [0, 1]) {
  Object.assign(shapes, {
    [`${i}.attentionNorm`]: [dim],
    [`${i}.q`]: [dim, dim],
    [`${i}.k`]: [kvDim, dim],
    [`${i}.v`]: [kvDim, dim],
    [`${i}.o`]: [dim, dim],
    [`${i}.ffnNorm`]: [dim],
    [`${i}.gate`]: [ffn, dim],
    [`${i}.up`]: [ffn, dim],
    [`${i}.down`]: [dim, ffn],
  });
}

/** How a block is run: at once, or as a segment of a tape. */
export type Run = (body: () => Tensor) => Tensor;

/** Every parameter: norms around 1, the rest around 0. */
export function randomParameters(seed: number): Record<string, HostTensor> {
  const random = generator(seed);
  const entries = Object.entries(shapes).map(([name, shape]) => {
    const values = normals(random, sizeOf(shape), shape.length === 1 ? 0.3 : 0.5);
    return [name, hostTensor(shape, shape.length === 1 ? values.map((v) => 1 + v) : values)];
  });
  return Object.fromEntries(entries);
}

/** Block i of x (tokens, dim). */
export function block(
  ops: Operations,
  i: number,
  x: Tensor,
  w: Record<string, Tensor>,
  table: Tensor,
): Tensor {
  const normed = ops.rmsNorm(x, w[`${i}.attentionNorm`], epsilon);
  const q = ops.rope(ops.linear(normed, w[`${i}.q`]), table, headDim, time, 0, i);
  const k = ops.rope(ops.linear(normed, w[`${i}.k`]), table, headDim, time, 0, i);
  const v = ops.linear(normed, w[`${i}.v`]);
  const h = ops.add(x, ops.linear(ops.attention(q, k, v, heads, kvHeads, batch, 0), w[`${i}.o`]));
  const inner = ops.rmsNorm(h, w[`${i}.ffnNorm`], epsilon);
  const gated = ops.swiglu(ops.linear(inner, w[`${i}.gate`]), ops.linear(inner, w[`${i}.up`]));
  return ops.add(h, ops.linear(gated, w[`${i}.down`]));
}

/** The last norm's result (tokens, dim). */
export function hidden(
  ops: Operations,
  w: Record<string, Tensor>,
  data: Data,
  run: Run = (body) => body(),
): Tensor {
  let x = ops.embedding(w.embedding, data.ids);
  for (const i of [0, 1]) {
    const input = x;
    x = run(() => block(ops, i, input, w, data.table));
  }
  return ops.rmsNorm(x, w.norm, epsilon);
}

/** Loss of each token. */
export function losses(ops: Operations, w: Record<string, Tensor>, data: Data, run?: Run): Tensor {
  return ops.crossEntropy(hidden(ops, w, data, run), w.embedding, data.targets);
}

/** What the model reads beside its parameters. */
export interface Data {
  readonly ids: Tensor;
  readonly targets: Tensor;
  readonly table: Tensor;
}

const table = Float32Array.from({ length: time * headDim }, (_, at) => {
  const angle = Math.floor(at / headDim) / (at % 2 === 0 ? 1 : 10);
  return at % headDim < headDim / 2 ? Math.cos(angle) : Math.sin(angle);
});

/** Two sequences of five tokens; one target is ignored. */
export const hostData = {
  ids: hostTensor([tokens], Int32Array.of(1, 5, 5, 2, 10, 0, 3, 1, 1, 7)),
  targets: hostTensor([tokens], Int32Array.of(5, 5, 2, 10, -1, 3, 1, 1, 7, 0)),
  table: hostTensor([time, headDim], table),
};

/** Host tensors as those of a backend. */
export function mapTensors<Name extends string, From, To>(
  tensors: Record<Name, From>,
  map: (t: From) => To,
): Record<Name, To> {
  const mapped = Object.entries<From>(tensors).map(([name, t]) => [name, map(t)]);
  return Object.fromEntries(mapped);
}
