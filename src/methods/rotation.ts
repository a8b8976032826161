import type { Backend } from "../backends/backend.ts";
import { partOf } from "../formats/format.ts";
import { generator } from "../tensor/random.ts";
import { hostTensor, type Matrix, matrix, transposed } from "../tensor/tensor.ts";
import type { Weight } from "../tensor/weight.ts";

/**
 * Incoherence by random Hadamard rotations on both sides: with signs σ and
 * orthonormal Hadamard matrices R,
 *
 *   W̃ = R_out·σ_out·W·σ_in·R_in,  H̃ = R_in·σ_in·H·σ_in·R_in
 *
 * whose numbers look Gaussian, so that one codebook fits all matrices; errors
 * weigh the same, tr(E·H·Eᵀ) = tr(Ẽ·H̃·Ẽᵀ). Tseng et al., 2024
 * (https://arxiv.org/abs/2402.04396, section 3).
 *
 * A size that is no power of two is cut into blocks of the largest power of two that divides it, each rotated for itself.
 */
export interface Rotation {
  /** Signs of the outputs and of the inputs. */
  readonly out: Int8Array;
  readonly in: Int8Array;
}

/** The largest power of two that divides n. */
export function rotationBlock(n: number): number {
  return n & -n;
}

/** Signs for a matrix (rows, cols). Sizes and seed alone decide them, so that matrices of one size share theirs. */
export function rotationOf(rows: number, cols: number, seed: number): Rotation {
  return { out: signs(rows, seed), in: signs(cols, seed) };
}

function signs(n: number, seed: number): Int8Array {
  const random = generator(seed);
  return Int8Array.from({ length: n }, () => (random() < 0.5 ? -1 : 1));
}

/** W̃ */
export async function rotated(backend: Backend, W: Matrix, by: Rotation): Promise<Matrix> {
  const right = await turnRows(backend, W, by.in);
  return transposed(await turnRows(backend, transposed(right), by.out));
}

/** H̃ (cols, cols) */
export async function rotatedHessian(backend: Backend, H: Float32Array, by: Rotation): Promise<Float32Array> {
  const n = by.in.length;
  const half = await turnRows(backend, matrix(n, n, H), by.in);
  return (await turnRows(backend, transposed(half), by.in)).data;
}

/** The weight W whose W̃ is given. */
export function unrotated(of: Weight, by: Rotation): Weight {
  const { shape } = of;
  const side = (n: number): Weight => ({
    shape: [n, n],
    expression: { kind: "hadamard", block: rotationBlock(n) },
  });
  const [rows, cols] = shape;
  const product: Weight = {
    shape,
    expression: { kind: "product", factors: [side(rows), of, side(cols)] },
  };
  const scales = (values: Int8Array) => partOf("i8", [values.length], values);
  const columns: Weight = { shape, expression: { kind: "scaleColumns", scales: scales(by.in), of: product } };
  return { shape, expression: { kind: "scaleRows", scales: scales(by.out), of: columns } };
}

/** Every row times σ·R. */
async function turnRows(backend: Backend, m: Matrix, σ: Int8Array): Promise<Matrix> {
  const turned = backend.scope(() => {
    const x = backend.upload(hostTensor([m.rows, m.cols], m.data));
    const signed = backend.scaleColumns(x, backend.upload(hostTensor([σ.length], Float32Array.from(σ))));
    return backend.hadamard(signed, rotationBlock(m.cols));
  });
  const data = (await backend.read(turned)) as Float32Array;
  backend.free(turned);
  return matrix(m.rows, m.cols, data);
}
