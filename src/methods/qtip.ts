import { z } from "zod";
import type { Backend } from "../backends/backend.ts";
import { rowScales } from "../formats/format.ts";
import { bytesPerMatrix, decodeWeight } from "../formats/index.ts";
import { packTrellis, streamsOf, streamsOfColumn, trellis } from "../formats/trellis.ts";
import { hostTensor, type Matrix, transposed } from "../tensor/tensor.ts";
import { packedWeight, type Weight } from "../tensor/weight.ts";
import type { Decomposition } from "./method.ts";
import { reRound, rowFactors } from "./re-round.ts";
import { rotated, rotatedHessian, rotationOf, unrotated } from "./rotation.ts";
import { slices } from "./slices.ts";
import { prepare, spreadErrors, spreadFactor } from "./spread-errors.ts";

const options = z.strictObject({
  /** Of a weight: 2, 3 or 4. */
  bits: z.union([z.literal(2), z.literal(3), z.literal(4)]).default(2),
  /** Scale of a row as a share of its root mean square. Default: the one with the least error for Gaussian weights. */
  scale: z.number().positive().optional(),
  /** Rounds of coding every column again with the others as they are, each as long as the first pass. */
  sweeps: z.int().min(0).default(2),
  /** Share of its mean that is added to the diagonal of H. */
  damping: z.number().positive().default(0.01),
  /** Of the rotations' signs. */
  seed: z.int().default(0),
});

export type QtipOptions = z.infer<typeof options>;

/** Where Gaussian numbers lose the least to the trellis, as measured: its values end at ±3.2, beyond which numbers are cut off. */
const BEST_SCALE = { 2: 1.03, 3: 1.05, 4: 1.06 } as const;

/**
 * QTIP: the matrix is rotated until its numbers look Gaussian, and coded column
 * by column in the bit-shift trellis `trellis2` … `trellis4`, with errors spread
 * over the columns to come. Then columns are coded again with the others as
 * they are, and at last the scales of the rows are fitted to the codes.
 *
 * Tseng, Sun, Hou and De Sa, 2024 (https://arxiv.org/abs/2406.11235), without
 * the tuning of its section 4. Scales are one a row, theirs one a matrix;
 * streams run down a column, theirs through tiles of 16 × 16, inside of which
 * errors cannot be spread.
 */
export const qtip: Decomposition<QtipOptions> = {
  kind: "decomposition",
  name: "qtip",
  paper: "Tseng et al., 2024 (https://arxiv.org/abs/2406.11235)",
  calibrated: false,
  options,

  check() {},
  least: ({ rows, cols }, { bits }) => bytesPerMatrix(trellis(bits), rows, cols),

  async decompose(source, { backend, H: hessian, signal }, options) {
    const { W, H } = hessian ? await prepare("qtip", source, hessian, backend) : { W: source, H: undefined };
    const { bits, scale = BEST_SCALE[bits], seed } = options;
    const rotation = rotationOf(W.rows, W.cols, seed);
    const turned = await rotated(backend, W, rotation);
    const turnedH = H && (await rotatedHessian(backend, H, rotation));
    return unrotated(await trellisWeight(backend, turned, turnedH, { ...options, scale, signal }), rotation);
  },
};

/** Multiplications, about, that finding a code takes as long as. */
const SEARCH = 2 ** 16;

/** W in trellis codes, without H each weight for itself. */
async function trellisWeight(
  backend: Backend,
  W: Matrix,
  H: Float32Array | undefined,
  {
    bits,
    scale,
    sweeps,
    damping,
    signal,
  }: Omit<QtipOptions, "scale"> & { scale: number; signal?: AbortSignal },
): Promise<Weight> {
  const { rows, cols } = W;
  const format = trellis(bits);
  const { streams, length } = streamsOf(rows);
  const codes = new Uint8Array(streams * length * cols);
  const scales = rowScales("qtip", W.data, rows, cols, scale);
  const keep = (c: number, from: number, to: number, found: Int32Array) => {
    for (let t = from; t < to; t++) codes[t * cols + c] = found[t];
  };
  const coded = () => {
    const parts = packTrellis(format, codes, scales, rows, cols);
    return packedWeight([rows, cols], format.name, parts);
  };

  if (!H) {
    const { data } = transposed(W);
    for (const [from, to] of slices(0, cols, streams * length * SEARCH)) {
      const columns = Array.from({ length: to - from }, (_, i) =>
        streamsOfColumn(data.subarray((from + i) * rows, (from + i + 1) * rows), scales),
      );
      const x = new Float32Array(columns.length * streams * length);
      for (const [i, column] of columns.entries()) x.set(column, i * column.length);
      const found = await search(backend, x, length, bits);
      for (let c = from; c < to; c++)
        keep(c, 0, streams * length, found.codes.subarray((c - from) * streams * length));
    }
    return coded();
  }

  const column = async (w: Float32Array) => {
    const found = await search(backend, streamsOfColumn(w, scales), length, bits);
    return { codes: found.codes, Ŵ: scales.map((scale, r) => scale * found.values[r]) };
  };
  const U = await spreadFactor(backend, H, { damping, signal });
  await spreadErrors(backend, W, U, { signal }, async (turn) => {
    const found = await column(turn.column(turn.first));
    keep(turn.first, 0, streams * length, found.codes);
    return found.Ŵ;
  });
  for (let sweep = 0; sweep < sweeps; sweep++) {
    let found: Awaited<ReturnType<typeof column>>;
    await reRound(
      backend,
      W,
      decodeWeight(coded()),
      H,
      { rowsTogether: length, damping, signal },
      async (_, T) => {
        found = await column(T);
        return found.Ŵ;
      },
      (c, row) => keep(c, row, row + length, found.codes),
    );
  }
  const factors = await rowFactors(backend, W, decodeWeight(coded()), H, { signal });
  for (const [r, factor] of factors.entries()) scales[r] = Math.f16round(scales[r] * factor);
  return coded();
}

/** The codes of streams x (n·length) and what they stand for. */
async function search(
  backend: Backend,
  x: Float32Array,
  length: number,
  bits: number,
): Promise<{ codes: Int32Array; values: Float32Array }> {
  const shape = [x.length / length, length];
  const tensors = {
    codes: backend.upload(hostTensor(shape, new Int32Array(x.length))),
    values: backend.zeros(shape),
    x: backend.upload(hostTensor(shape, x)),
  };
  backend.viterbi(tensors.codes, tensors.values, tensors.x, bits);
  const codes = (await backend.read(tensors.codes)) as Int32Array;
  const values = (await backend.read(tensors.values)) as Float32Array;
  for (const t of Object.values(tensors)) backend.free(t);
  return { codes, values };
}
