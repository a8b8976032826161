import { z } from "zod";
import type { Backend } from "../backends/backend.ts";
import { packE8P } from "../formats/e8p.ts";
import { e81bPoints, packE81B } from "../formats/e81b.ts";
import { rowScales } from "../formats/format.ts";
import { decodeWeight } from "../formats/index.ts";
import { hostTensor, InputError, type Matrix } from "../tensor/tensor.ts";
import { packedWeight, type Weight } from "../tensor/weight.ts";
import type { Decomposition } from "./method.ts";
import { reRound, rowFactors } from "./re-round.ts";
import { rotated, rotatedHessian, rotationOf, unrotated } from "./rotation.ts";
import { prepare, spreadErrors, spreadFactor } from "./spread-errors.ts";

const options = z.strictObject({
  /** Of a weight: 2, 3 or 4. */
  bits: z.union([z.literal(2), z.literal(3), z.literal(4)]).default(2),
  /** Scale of a row as a share of its root mean square. Default: the one with the least error for Gaussian weights. */
  scale: z.number().positive().optional(),
  /** Rounds of coding every eight columns again with the others as they are. */
  sweeps: z.int().min(0).default(4),
  /** Share of its mean that is added to the diagonal of H. */
  damping: z.number().positive().default(0.01),
  /** Of the rotations' signs. */
  seed: z.int().default(0),
});

export type QuipSharpOptions = z.infer<typeof options>;

/** Columns of a vector. */
const VECTOR = 8;

/**
 * Books whose points are added up, and the scale of each as a share of the row's root mean square: where Gaussian
 * numbers lose the least, as measured.
 */
const BOOKS = {
  2: [["e8p", 1 / 1.03]],
  3: [
    ["e8p", 1 / 0.98],
    ["e81b", 1 / (0.98 * 2.04)],
  ],
  4: [
    ["e8p", 1 / 0.9],
    ["e8p", 1 / (0.9 * 3.85)],
  ],
} as const;

/**
 * QuIP#: the matrix is rotated until its numbers look Gaussian, and its rows
 * are coded eight columns at a time at points of the lattice E8, with errors
 * spread over the columns to come. For 3 and 4 bits what the first points leave
 * is coded once more. Then vectors are coded again with the others as they are,
 * and at last the scales of the rows are fitted to the codes.
 *
 * Tseng, Chee, Sun, Kuleshov and De Sa, 2024 (https://arxiv.org/abs/2402.04396),
 * without the tuning of its section 5. Scales are one a row, theirs one a matrix.
 */
export const quipSharp: Decomposition<QuipSharpOptions> = {
  kind: "decomposition",
  name: "quip#",
  paper: "Tseng et al., 2024 (https://arxiv.org/abs/2402.04396)",
  calibrated: false,
  options,

  check({ cols }) {
    if (cols % VECTOR !== 0) {
      throw new InputError(
        `quip#: rows of ${cols} are not whole vectors of ${VECTOR}; keep this matrix in another format`,
      );
    }
  },

  async decompose(source, { backend, H: hessian, signal }, options) {
    const { W, H } = hessian ? await prepare("quip#", source, hessian, backend) : { W: source, H: undefined };
    const rotation = rotationOf(W.rows, W.cols, options.seed);
    const turned = await rotated(backend, W, rotation);
    const turnedH = H && (await rotatedHessian(backend, H, rotation));
    return unrotated(await latticeWeight(backend, turned, turnedH, { ...options, signal }), rotation);
  },
};

/** Points of one book for all vectors, and the scales of its rows. */
interface Term {
  readonly book: "e8p" | "e81b";
  readonly codes: Uint16Array;
  readonly scales: Float32Array;
}

/** W at lattice points, without H each vector for itself. */
async function latticeWeight(
  backend: Backend,
  W: Matrix,
  H: Float32Array | undefined,
  { bits, scale, sweeps, damping, signal }: QuipSharpOptions & { signal?: AbortSignal },
): Promise<Weight> {
  const { rows, cols } = W;
  const across = cols / VECTOR;
  const books = BOOKS[bits];
  const terms = books.map(([book, share]): Term => {
    const own = scale === undefined ? share : (scale * share) / books[0][1];
    return {
      book,
      codes: new Uint16Array(rows * across),
      scales: rowScales("quip#", W.data, rows, cols, own),
    };
  });
  const shape = [rows, cols];
  const coded = (): Weight => {
    const parts = terms.map(({ book, codes, scales }) =>
      packedWeight(
        shape,
        book,
        book === "e8p" ? packE8P(codes, scales, cols) : packE81B(codes, scales, cols),
      ),
    );
    return parts.length === 1 ? parts[0] : { shape, expression: { kind: "sum", terms: parts } };
  };

  /** Codes of vectors w (rows, 8) in each book, and Ŵ as columns (8, rows), of columns w. */
  const round = async (column: (j: number) => Float32Array) => {
    const rest = new Float32Array(rows * VECTOR);
    for (let j = 0; j < VECTOR; j++) {
      const w = column(j);
      for (let r = 0; r < rows; r++) rest[r * VECTOR + j] = w[r];
    }
    const Ŵ = new Float32Array(rows * VECTOR);
    const codes: Int32Array[] = [];
    for (const { book, scales } of terms) {
      const x = rest.map((w, i) => {
        const s = scales[Math.floor(i / VECTOR)];
        return s === 0 ? 0 : w / s;
      });
      const found = await nearest(backend, book, x);
      codes.push(found.codes);
      for (let r = 0; r < rows; r++) {
        for (let j = 0; j < VECTOR; j++) {
          const value = scales[r] * found.points[r * VECTOR + j];
          rest[r * VECTOR + j] -= value;
          Ŵ[j * rows + r] += value;
        }
      }
    }
    return { codes, Ŵ };
  };
  const keep = (first: number, r: number, codes: readonly Int32Array[]) => {
    for (const [i, term] of terms.entries()) term.codes[r * across + first / VECTOR] = codes[i][r];
  };
  const keepAll = (first: number, codes: readonly Int32Array[]) => {
    for (let r = 0; r < rows; r++) keep(first, r, codes);
  };

  if (!H) {
    for (let first = 0; first < cols; first += VECTOR) {
      const found = await round((j) =>
        Float32Array.from({ length: rows }, (_, r) => W.data[r * cols + first + j]),
      );
      keepAll(first, found.codes);
    }
    return coded();
  }
  const U = await spreadFactor(backend, H, { damping, signal });
  await spreadErrors(backend, W, U, { together: VECTOR, signal }, async ({ first, column }) => {
    const found = await round((j) => column(first + j));
    keepAll(first, found.codes);
    return found.Ŵ;
  });
  for (let sweep = 0; sweep < sweeps; sweep++) {
    let found: Awaited<ReturnType<typeof round>>;
    await reRound(
      backend,
      W,
      decodeWeight(coded()),
      H,
      { together: VECTOR, damping, signal },
      async (_, T) => {
        found = await round((j) => T.subarray(j * rows, (j + 1) * rows));
        return found.Ŵ;
      },
      (first, r) => keep(first, r, found.codes),
    );
  }
  const factors = await rowFactors(backend, W, decodeWeight(coded()), H, { signal });
  for (const { scales } of terms) {
    for (const [r, factor] of factors.entries()) scales[r] = Math.f16round(scales[r] * factor);
  }
  return coded();
}

/** The nearest points to x (n·8) in a book, and their codes. */
async function nearest(
  backend: Backend,
  book: "e8p" | "e81b",
  data: Float32Array,
): Promise<{ codes: Int32Array; points: Float32Array }> {
  const n = data.length / VECTOR;
  const codes = backend.upload(hostTensor([n], new Int32Array(n)));
  const x = backend.upload(hostTensor([n, VECTOR], data));
  const made = [codes, x];
  try {
    if (book === "e8p") {
      const points = backend.zeros([n, VECTOR]);
      made.push(points);
      backend.nearestE8p(codes, points, x);
      return {
        codes: (await backend.read(codes)) as Int32Array,
        points: (await backend.read(points)) as Float32Array,
      };
    }
    const { rows: entries, data: all } = e81bPoints;
    const errors = backend.zeros([n]);
    const entriesOf = backend.upload(hostTensor([entries, VECTOR], all));
    const ones = backend.upload(hostTensor([1, VECTOR], new Float32Array(VECTOR).fill(1)));
    made.push(errors, entriesOf, ones);
    backend.nearestEntries(codes, errors, x, entriesOf, ones);
    const found = (await backend.read(codes)) as Int32Array;
    const points = Float32Array.from(data, (_, i) => all[found[i >> 3] * VECTOR + (i & 7)]);
    return { codes: found, points };
  } finally {
    for (const t of made) backend.free(t);
  }
}
