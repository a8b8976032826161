import type { Backend } from "../backends/backend.ts";
import { packCodes, unpackCodes } from "../formats/codebook.ts";
import { decoderSizes } from "../formats/decoder.ts";
import { decodeWeight } from "../formats/index.ts";
import { drawn } from "../kernels/compound.ts";
import { pauses } from "../record/pause.ts";
import { hostTensor, type Matrix } from "../tensor/tensor.ts";
import type { Weight } from "../tensor/weight.ts";
import { betterCodes } from "./decoder-search.ts";
import { spreadErrors, spreadFactor } from "./spread-errors.ts";
import { upperTriangularInverse } from "./upper-inverse.ts";

/** Entries near the present one that are tried, and passes of the search for each strip. */
const NEAR = 12;
const PASSES = 2;

/**
 * What `decoderCodes` made of W, with codes chosen anew from the left to the right, a strip of patches at a time: the errors of a
 * strip are mended by the columns to come (`spreadErrors`), which the search of all patches at once cannot let them do.
 * Scales, book and decoder stay. An error e in column j of a strip counts e²·Σ_k (U_JJ⁻¹)_jk², which leaves out how
 * errors of one strip go together.
 */
export async function sweepDrawn(
  backend: Backend,
  W: Matrix,
  weight: Weight,
  H: Float32Array,
  { damping, signal }: { readonly damping: number; readonly signal?: AbortSignal },
): Promise<Weight> {
  const { scales, decoder, codebook } = partsOfDrawn(weight);
  const { patch, layers } = decoder;
  const { rows, cols } = W;
  const [images, values] = decoder.latent.shape;
  const sizes = decoderSizes("decoder", [rows, cols], patch, decoder.latent, layers);
  const book = decodeWeight(codebook.book);
  const perPatch = values / book.cols;
  const perPlace = perPatch / sizes[0].side ** 2;
  const codes = Int32Array.from(unpackCodes(codebook.codes, images, perPatch, codebook.codeBits));
  const down = rows / patch;
  const S = decodeWeight(scales);
  const scale = (r: number, c: number) => S.data[r * S.cols + Math.floor((c * S.cols) / cols)];
  const pause = pauses({ signal });

  const upload = (m: Matrix) => backend.keep(backend.upload(hostTensor([m.rows, m.cols], m.data)));
  const entries = upload(book);
  const ready = layers.map(({ weights, biases }, i) => {
    return { ...sizes[i], weights: upload(decodeWeight(weights)), biases: upload(decodeWeight(biases)) };
  });
  const draw = async (some: Int32Array) => {
    const made = backend.scope(() =>
      drawn(backend, backend.embedding(entries, backend.upload(hostTensor([some.length], some))), ready),
    );
    const data = (await backend.read(made)) as Float32Array;
    backend.free(made);
    await pause();
    return data;
  };

  try {
    const U = await spreadFactor(backend, H, { damping, signal });
    await spreadErrors(
      backend,
      W,
      U,
      { together: patch, block: Math.ceil(128 / patch) * patch, signal },
      async ({ first, column, factor }) => {
        const costs = columnCosts(patch, factor);
        // The patches of a strip, one below the other, are rows of the strip.
        const [x, m] = [new Float32Array(rows * patch), new Float32Array(rows * patch)];
        for (let j = 0; j < patch; j++) {
          const w = column(first + j);
          for (let r = 0; r < rows; r++) {
            const s = scale(r, first + j);
            x[r * patch + j] = s === 0 ? 0 : w[r] / s;
            m[r * patch + j] = s * s * costs[j];
          }
        }
        const [from, to] = [0, 1].map((end) => (first / patch + end) * down * perPatch);
        for (let pass = 0; pass < PASSES; pass++) {
          const present = { codes: codes.subarray(from, to), x, m, draw };
          codes.set(await betterCodes(present, { patch, layers: sizes, perPlace, book, near: NEAR }), from);
        }
        const made = await draw(codes.slice(from, to));
        const Ŵ = new Float32Array(rows * patch);
        for (let r = 0; r < rows; r++) {
          for (let j = 0; j < patch; j++) Ŵ[j * rows + r] = scale(r, first + j) * made[r * patch + j];
        }
        return Ŵ;
      },
    );
  } finally {
    for (const t of [entries, ...ready.flatMap(({ weights, biases }) => [weights, biases])]) backend.free(t);
  }

  const packed = packCodes(codes, images, perPatch, codebook.codeBits);
  const latent: Weight = { ...decoder.latent, expression: { ...codebook, codes: packed } };
  const of: Weight = { shape: weight.shape, expression: { ...decoder, latent } };
  return { shape: weight.shape, expression: { kind: "scaleGroups", scales, of } };
}

function partsOfDrawn({ expression: e }: Weight) {
  if (e.kind === "scaleGroups" && e.of.expression.kind === "decoder") {
    const decoder = e.of.expression;
    const codebook = decoder.latent.expression;
    if (codebook.kind === "codebook") return { scales: e.scales, decoder, codebook };
  }
  throw new Error("sweepDrawn: takes what decoderCodes makes");
}

/** Σ_k (U⁻¹)_jk² of each row j of U (n, n), upper triangular. */
function columnCosts(n: number, factor: (i: number, j: number) => number): Float64Array {
  const inverse = upperTriangularInverse(n, factor);
  return Float64Array.from({ length: n }, (_, j) => {
    let sum = 0;
    for (let k = j; k < n; k++) sum += inverse[j * n + k] ** 2;
    return sum;
  });
}
