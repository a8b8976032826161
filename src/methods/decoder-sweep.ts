import type { Backend } from "../backends/backend.ts";
import { packCodes, unpackCodes } from "../formats/codebook.ts";
import { decoderSizes } from "../formats/decoder.ts";
import { decodeWeight } from "../formats/index.ts";
import { drawn } from "../kernels/compound.ts";
import { pauses } from "../record/pause.ts";
import { hostTensor, type Matrix } from "../tensor/tensor.ts";
import type { Weight } from "../tensor/weight.ts";
import { betterCodes, nearestTo } from "./decoder-search.ts";
import { spreadErrors, spreadFactor } from "./spread-errors.ts";
import { upperTriangularInverse } from "./upper-inverse.ts";

/** Entries near the present one that are tried, and passes of the search. */
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
  const open = openDrawn(backend, weight, signal);
  const { patch, scale, perPatch } = open;
  const codes = open.codes.slice();
  const { rows } = W;
  const down = rows / patch;
  try {
    const U = await spreadFactor(backend, H, { damping, signal });
    const block = Math.ceil(128 / patch) * patch;
    await spreadErrors(
      backend,
      W,
      U,
      { together: patch, block, signal },
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
        const own = await open.better(codes.slice(from, to), x, m);
        codes.set(own, from);
        const made = await open.draw(own);
        const Ŵ = new Float32Array(rows * patch);
        for (let r = 0; r < rows; r++) {
          for (let j = 0; j < patch; j++) Ŵ[j * rows + r] = scale(r, first + j) * made[r * patch + j];
        }
        return Ŵ;
      },
    );
    return open.stored(codes);
  } finally {
    open.free();
  }
}

/**
 * What `decoderCodes` made, times `scale`, moved toward a target: the patches farthest from it, which hold `share` of the
 * codes (one patch at the least), get codes with no more error. `changed` codes are others now.
 */
export async function moveDrawn(
  backend: Backend,
  weight: Weight,
  target: Matrix,
  { share, scale }: { readonly share: number; readonly scale: (r: number, c: number) => number },
): Promise<{ weight: Weight; changed: number; of: number }> {
  const open = openDrawn(backend, weight);
  const { patch, perPatch } = open;
  const area = patch ** 2;
  const down = target.rows / patch;
  try {
    const now = await open.draw(open.codes);
    const [x, m] = [new Float32Array(now.length), new Float32Array(now.length)];
    const away = new Float64Array(now.length / area);
    for (let at = 0; at < now.length; at++) {
      const [image, i, j] = [Math.floor(at / area), Math.floor((at % area) / patch), at % patch];
      const [r, c] = [(image % down) * patch + i, Math.floor(image / down) * patch + j];
      const s = scale(r, c) * open.scale(r, c);
      x[at] = s === 0 ? 0 : target.data[r * target.cols + c] / s;
      m[at] = s * s;
      away[image] += m[at] * (now[at] - x[at]) ** 2;
    }
    const count = Math.max(1, Math.floor(share * away.length));
    const moving = Uint32Array.from(away.keys())
      .sort((a, b) => away[b] - away[a] || a - b)
      .subarray(0, count);
    const some = <T extends Float32Array | Int32Array>(data: T, size: number) => {
      const picked = data.slice(0, count * size) as T;
      for (const [n, image] of moving.entries())
        picked.set(data.subarray(image * size, (image + 1) * size), n * size);
      return picked;
    };
    const better = await open.better(some(open.codes, perPatch), some(x, area), some(m, area));
    const codes = open.codes.slice();
    for (const [n, image] of moving.entries())
      codes.set(better.subarray(n * perPatch, (n + 1) * perPatch), image * perPatch);
    const changed = codes.reduce((sum, code, v) => sum + (code === open.codes[v] ? 0 : 1), 0);
    return { weight: open.stored(codes), changed, of: codes.length };
  } finally {
    open.free();
  }
}

/** What `decoderCodes` made, its decoder on a backend. */
function openDrawn(backend: Backend, weight: Weight, signal?: AbortSignal) {
  const { shape } = weight;
  const { scales, decoder, codebook } = partsOfDrawn(weight);
  const { patch, layers } = decoder;
  const [images, values] = decoder.latent.shape;
  const sizes = decoderSizes("decoder", shape, patch, decoder.latent, layers);
  const book = decodeWeight(codebook.book);
  const perPatch = values / book.cols;
  const perPlace = perPatch / sizes[0].side ** 2;
  const neighbours = nearestTo(book, NEAR);
  const S = decodeWeight(scales);
  const pause = pauses({ signal });
  const upload = (m: Matrix) => backend.keep(backend.upload(hostTensor([m.rows, m.cols], m.data)));
  const entries = upload(book);
  const ready = layers.map(({ weights, biases }, i) => {
    return { ...sizes[i], weights: upload(decodeWeight(weights)), biases: upload(decodeWeight(biases)) };
  });

  async function draw(codes: Int32Array): Promise<Float32Array> {
    const made = backend.scope(() =>
      drawn(backend, backend.embedding(entries, backend.upload(hostTensor([codes.length], codes))), ready),
    );
    const data = (await backend.read(made)) as Float32Array;
    backend.free(made);
    await pause();
    return data;
  }

  return {
    patch,
    /** Codes of a patch. */
    perPatch,
    codes: Int32Array.from(unpackCodes(codebook.codes, images, perPatch, codebook.codeBits)),
    scale: (r: number, c: number) => S.data[r * S.cols + Math.floor((c * S.cols) / shape[1])],
    draw,
    /** Codes of some patches with no more error Σ m·(D(codes) − x)². */
    async better(codes: Int32Array, x: Float32Array, m: Float32Array): Promise<Int32Array> {
      const options = { patch, layers: sizes, perPlace, neighbours, near: NEAR };
      let found = codes;
      for (let pass = 0; pass < PASSES; pass++)
        found = await betterCodes({ codes: found, x, m, draw }, options);
      return found;
    },
    stored(codes: Int32Array): Weight {
      const packed = packCodes(codes, images, perPatch, codebook.codeBits);
      const latent: Weight = { ...decoder.latent, expression: { ...codebook, codes: packed } };
      const of: Weight = { shape, expression: { ...decoder, latent } };
      return { shape, expression: { kind: "scaleGroups", scales, of } };
    },
    free() {
      for (const t of [entries, ...ready.flatMap(({ weights, biases }) => [weights, biases])])
        backend.free(t);
    },
  };
}

function partsOfDrawn({ expression: e }: Weight) {
  if (e.kind === "scaleGroups" && e.of.expression.kind === "decoder") {
    const decoder = e.of.expression;
    const codebook = decoder.latent.expression;
    if (codebook.kind === "codebook") return { scales: e.scales, decoder, codebook };
  }
  throw new Error("openDrawn: takes what decoderCodes makes");
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
