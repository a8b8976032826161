import { z } from "zod";
import type { Backend } from "../backends/backend.ts";
import { packTrellis, TILE, tilesOf, trellis, trellisScales } from "../formats/trellis.ts";
import { hostTensor, InputError, type Matrix } from "../tensor/tensor.ts";
import { packedWeight, type Weight } from "../tensor/weight.ts";
import type { Decomposition } from "./method.ts";
import { rotated, rotatedHessian, rotationOf, unrotated } from "./rotation.ts";
import { prepare, spreadErrors, spreadFactor } from "./spread-errors.ts";

const options = z.strictObject({
  /** Of a weight: 2, 3 or 4. */
  bits: z.union([z.literal(2), z.literal(3), z.literal(4)]).default(2),
  /** Scale of a row as a share of its root mean square. Default: the one with the least error for Gaussian weights. */
  scale: z.number().positive().optional(),
  /** Share of its mean that is added to the diagonal of H. */
  damping: z.number().positive().default(0.01),
  /** Of the rotations' signs. */
  seed: z.int().default(0),
});

export type QtipOptions = z.infer<typeof options>;

/** Where Gaussian numbers lose the least to the trellis, as measured: its values end at ±3.2, beyond which numbers are cut off. */
const BEST_SCALE = { 2: 1.03, 3: 1.05, 4: 1.06 } as const;

/**
 * QTIP: the matrix is rotated until its numbers look Gaussian, and coded tile by
 * tile in the bit-shift trellis `trellis2` … `trellis4`, sixteen columns at a
 * time, with errors spread over the columns to come.
 *
 * Tseng, Sun, Hou and De Sa, 2024 (https://arxiv.org/abs/2406.11235), without
 * the tuning of its section 4. Scales are one a row, theirs one a matrix; a
 * tile's columns weigh as 1/U_jj², the loss that later columns leave.
 */
export const qtip: Decomposition<QtipOptions> = {
  kind: "decomposition",
  name: "qtip",
  paper: "Tseng et al., 2024 (https://arxiv.org/abs/2406.11235)",
  calibrated: false,
  options,

  check({ cols }) {
    if (cols % TILE !== 0) {
      throw new InputError(
        `qtip: rows of ${cols} are not whole tiles of ${TILE}; keep this matrix in another format`,
      );
    }
  },

  async decompose(
    source,
    { backend, H: hessian, signal },
    { bits, scale = BEST_SCALE[bits], damping, seed },
  ) {
    const { W, H } = hessian ? await prepare("qtip", source, hessian, backend) : { W: source, H: undefined };
    const { rows, cols } = W;
    const rotation = rotationOf(rows, cols, seed);
    const turned = await rotated(backend, W, rotation);
    const U =
      H && (await spreadFactor(backend, await rotatedHessian(backend, H, rotation), { damping, signal }));
    const codes = await trellisWeight(backend, turned, { bits, scale, U, signal });
    return unrotated(codes, rotation);
  },
};

/** W in trellis codes: all tiles as they are, or with U sixteen columns after another, errors spread. */
async function trellisWeight(
  backend: Backend,
  W: Matrix,
  { bits, scale, U, signal }: { bits: 2 | 3 | 4; scale: number; U?: Float32Array; signal?: AbortSignal },
): Promise<Weight> {
  const { rows, cols, data } = W;
  const scales = trellisScales("qtip", data, rows, cols, scale);
  const down = Math.ceil(rows / TILE);
  const across = cols / TILE;
  const codes = new Uint8Array(down * across * TILE * TILE);
  const format = trellis(bits);
  const stored = () =>
    packedWeight([rows, cols], format.name, packTrellis(format, codes, scales, rows, cols));
  if (!U) {
    const found = await search(backend, tilesOf(data, scales, rows, cols), ones(TILE), bits);
    codes.set(found.codes);
    return stored();
  }
  await spreadErrors(
    backend,
    W,
    U,
    { together: TILE, block: 8 * TILE, signal },
    async ({ first, column, factor }) => {
      const strip = new Float32Array(rows * TILE);
      for (let j = 0; j < TILE; j++) {
        const w = column(first + j);
        for (let r = 0; r < rows; r++) strip[r * TILE + j] = w[r];
      }
      const weights = Float32Array.from({ length: TILE }, (_, j) => (factor(0, 0) / factor(j, j)) ** 2);
      const found = await search(backend, tilesOf(strip, scales, rows, TILE), weights, bits);
      const Ŵ = new Float32Array(rows * TILE);
      for (let r = 0; r < rows; r++) {
        const at = Math.floor(r / TILE) * TILE * TILE + (r % TILE) * TILE;
        for (let j = 0; j < TILE; j++) Ŵ[j * rows + r] = scales[r] * found.values[at + j];
      }
      for (let tile = 0; tile < down; tile++) {
        const own = found.codes.subarray(tile * TILE * TILE, (tile + 1) * TILE * TILE);
        codes.set(own, (tile * across + first / TILE) * TILE * TILE);
      }
      return Ŵ;
    },
  );
  return stored();
}

/** The codes of tiles (n, 256) and what they stand for; `weights` (16) are those of a tile's columns. */
async function search(
  backend: Backend,
  x: Float32Array,
  weights: Float32Array,
  bits: number,
): Promise<{ codes: Int32Array; values: Float32Array }> {
  const length = TILE * TILE;
  const shape = [x.length / length, length];
  const codes = backend.upload(hostTensor(shape, new Int32Array(x.length)));
  const values = backend.zeros(shape);
  const tiles = backend.upload(hostTensor(shape, x));
  const w = backend.upload(
    hostTensor(
      [length],
      Float32Array.from({ length }, (_, t) => weights[t % TILE]),
    ),
  );
  backend.viterbi(codes, values, tiles, w, bits);
  const found = {
    codes: (await backend.read(codes)) as Int32Array,
    values: (await backend.read(values)) as Float32Array,
  };
  for (const t of [codes, values, tiles, w]) backend.free(t);
  return found;
}

function ones(n: number): Float32Array {
  return new Float32Array(n).fill(1);
}
