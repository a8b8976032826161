import { z } from "zod";
import { partOf } from "../formats/format.ts";
import { generator, normals } from "../tensor/random.ts";
import { halfAway } from "../tensor/rounding.ts";
import { InputError, matrix, transposed } from "../tensor/tensor.ts";
import { packedWeight, type Weight } from "../tensor/weight.ts";
import type { Decomposition } from "./method.ts";
import { prepare } from "./spread-errors.ts";
import { type BookForm, checkVectorOptions, vectorCodes } from "./vector-codes.ts";

const options = z.strictObject({
  /** Bits of a code for each weight. */
  bits: z.number().min(0.5).max(8).default(2),
  /** m: weights of a vector. */
  length: z.int().min(1).max(64).default(4),
  /** d̃: numbers of an entry, at most m. */
  latent: z.int().min(1).default(3),
  /** Weights of a row that share a scale. Default: the row. */
  group: z.int().min(1).optional(),
  /** Share of its mean that is added to the diagonal of H. */
  damping: z.number().positive().default(0.01),
  seed: z.int().default(0),
});

export type Lr2vqOptions = z.infer<typeof options>;

/**
 * LR²VQ: entries have fewer numbers than the vectors they stand for, and a basis
 * learned with them makes them longer:
 *
 *   w (m) ≈ scale·z_k·B,   z (K, d̃), B (d̃, m), d̃ ≤ m
 *
 * so that m alone decides what the codes take, log2(K)/m bits a weight, and d̃ what they lose; the book takes 16·d̃·(K + m)
 * bits instead of 16·m·K. It is stored as a codebook whose book is of low rank.
 *
 * Zhu, Zhou and Zhong, 2022 (https://arxiv.org/abs/2211.11397). Theirs learns z and B with the loss of the task;
 * here z and B take turns with the codes, each the best for the others as they are, and codes are chosen as in ReALLM.
 * A vector loses whatever of it lies outside the d̃ directions: where all m are alike, as in a matrix of Gaussian numbers,
 * that is (m − d̃)/m of its energy.
 */
export const lr2vq: Decomposition<Lr2vqOptions> = {
  kind: "decomposition",
  name: "lr2vq",
  paper: "Zhu et al., 2022 (https://arxiv.org/abs/2211.11397)",
  calibrated: false,
  options,

  check(size, chosen) {
    checkVectorOptions("lr2vq", size, settle(size, chosen));
    if (chosen.latent > chosen.length) {
      throw new InputError(
        `lr2vq: entries of ${chosen.latent} numbers are longer than their vectors of ${chosen.length}; take 1 to ${chosen.length}`,
      );
    }
  },

  async decompose(source, { backend, H: hessian, signal }, chosen) {
    const { W, H } = hessian ? await prepare("lr2vq", source, hessian, backend) : { W: source, H: undefined };
    const settings = settle(W, chosen);
    const form = latentBook(settings.entries, chosen.length, chosen.latent, chosen.seed);
    return vectorCodes(backend, W, { ...settings, H, form, signal });
  },
};

function settle({ cols }: { readonly cols: number }, chosen: Lr2vqOptions) {
  const { bits, length, group = cols } = chosen;
  return { ...chosen, group, entries: halfAway(2 ** (bits * length)) };
}

/** Turns of z and B at the start, and in each round after it. */
const TURNS = [30, 2] as const;

/** Books z·B, z (entries, latent), B (latent, length), both in fp16. */
function latentBook(entries: number, length: number, latent: number, seed: number): BookForm {
  const z = new Float64Array(entries * latent);
  const B = Float64Array.from(normals(generator(seed), latent * length));
  let turns: number = TURNS[0];
  return {
    fit(means, masses) {
      const turned = transposed(matrix(entries, length, means)).data;
      const weights = transposed(matrix(entries, length, masses)).data;
      const basis = new Float64Array(length * latent); // Bᵀ
      for (let turn = 0; turn < turns; turn++) {
        for (let j = 0; j < length; j++) {
          for (let a = 0; a < latent; a++) basis[j * latent + a] = B[a * length + j];
        }
        project(z, means, masses, basis, latent);
        project(basis, turned, weights, z, latent);
        for (let j = 0; j < length; j++) {
          for (let a = 0; a < latent; a++) B[a * length + j] = basis[j * latent + a];
        }
      }
      turns = TURNS[1];
      for (const x of [z, B]) for (let i = 0; i < x.length; i++) x[i] = Math.f16round(x[i]);
      const book = new Float32Array(entries * length);
      for (let k = 0; k < entries; k++) {
        for (let j = 0; j < length; j++) {
          let sum = 0;
          for (let a = 0; a < latent; a++) sum += z[k * latent + a] * B[a * length + j];
          book[k * length + j] = sum;
        }
      }
      return book;
    },
    stored() {
      const part = (rows: number, cols: number, data: Float64Array): Weight =>
        packedWeight([rows, cols], "f16", { data: partOf("f16", [rows, cols], Float16Array.from(data)) });
      return {
        shape: [entries, length],
        expression: { kind: "lowRank", a: part(entries, latent, z), b: part(latent, length, B) },
      };
    },
  };
}

/** Every row of `factors` (n, d) becomes the one with the least Σ_j weights_ij·(targets_ij − factor_i·directions_j)². */
function project(
  factors: Float64Array,
  targets: Float32Array,
  weights: Float32Array,
  directions: Float64Array,
  d: number,
): void {
  const n = factors.length / d;
  const m = directions.length / d;
  const A = new Float64Array(d * d);
  for (let i = 0; i < n; i++) {
    A.fill(0);
    const b = new Float64Array(d);
    for (let j = 0; j < m; j++) {
      const w = weights[i * m + j];
      for (let p = 0; p < d; p++) {
        b[p] += w * targets[i * m + j] * directions[j * d + p];
        for (let q = 0; q < d; q++) A[p * d + q] += w * directions[j * d + p] * directions[j * d + q];
      }
    }
    solve(A, b, d);
    if (b.every(Number.isFinite)) factors.set(b, i * d);
  }
}

/** b ← A⁻¹·b of a positive definite A (n, n), a little added to its diagonal. */
function solve(A: Float64Array, b: Float64Array, n: number): void {
  let trace = 0;
  for (let i = 0; i < n; i++) trace += A[i * n + i];
  for (let i = 0; i < n; i++) A[i * n + i] += 1e-9 * trace;
  for (let i = 0; i < n; i++) {
    for (let k = i + 1; k < n; k++) {
      const factor = A[k * n + i] / A[i * n + i];
      for (let j = i; j < n; j++) A[k * n + j] -= factor * A[i * n + j];
      b[k] -= factor * b[i];
    }
  }
  for (let i = n - 1; i >= 0; i--) {
    for (let j = i + 1; j < n; j++) b[i] -= A[i * n + j] * b[j];
    b[i] /= A[i * n + i];
  }
}
