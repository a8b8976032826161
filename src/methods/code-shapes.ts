import { InputError, type Matrix } from "../tensor/tensor.ts";
import { orderHeight } from "./column-orders.ts";
import { defaultRank } from "./low-rank.ts";
import { scaledVectors } from "./vector-codes.ts";

export type Size = { readonly rows: number; readonly cols: number };

/** A book: so many entries of so many weights. */
export interface BookShape {
  readonly length: number;
  readonly entries: number;
}

/** What shapes are to fit, and what may vary. */
export interface ShapeOptions {
  /** All that is stored for a weight. */
  readonly bits: number;
  readonly factors: string;
  readonly share: boolean | string;
  /** The weights of all matrices that share a book; until they are known it takes nothing. */
  readonly sharing?: number;
  /** Those that are shared, by `bookName`, once they are learned. */
  readonly books?: ReadonlyMap<string, unknown>;
  /** Fixed where given: one group size, one rank. */
  readonly group?: number;
  readonly rank?: number;
  /** Orders are tried beside none. */
  readonly permute: boolean;
}

/** One way to put a matrix together. */
export interface CodeShape {
  readonly name: string;
  /** All that it stores for a weight. */
  readonly bits: number;
  readonly length: 1 | 2 | 4 | 8;
  readonly rank: number;
  readonly group: number;
  readonly permute: boolean;
}

const LENGTHS = [1, 2, 4, 8] as const;
/** A book that takes more than this share of its codes is not worth its bits: too few weights use it. */
export const MOST_BOOK = 0.05;
/** Bits of a code beyond which the search of its book takes too long. */
export const MOST_CODE_BITS = 12;
const MOST_SAMPLES = 2 ** 15;

/**
 * The shapes of a matrix that take no more than `bits`: for every length, rank
 * (none, the default, twice it), group and order the largest book that fits; a shared book counts as if all used it. What
 * is left out is said: a book of more than 5 % of its codes. An InputError names the nearest budget where none fits.
 */
export function shapesWithin(
  method: string,
  size: Size,
  options: ShapeOptions,
): {
  readonly shapes: readonly (CodeShape & { readonly codes: number })[];
  readonly left: string[];
} {
  const { rows, cols } = size;
  const own = defaultRank(size);
  const ranks =
    options.rank === undefined ? [0, own, 2 * own].filter((r) => r <= Math.min(rows, cols)) : [options.rank];
  const groups =
    options.group === undefined
      ? [cols, 128, 64].filter((g, i) => i === 0 || (g < cols && cols % g === 0))
      : [options.group];
  const shapes: (CodeShape & { codes: number })[] = [];
  const left: string[] = [];
  let nearest = Number.POSITIVE_INFINITY;
  for (const length of LENGTHS.filter((d) => cols % d === 0)) {
    for (const rank of ranks) {
      for (const group of groups.filter((g) => g % length === 0)) {
        for (const permute of options.permute ? [false, true] : [false]) {
          const shape = { length, rank, group, permute };
          let fits: (CodeShape & { codes: number }) | undefined;
          for (let codes = 1; codes <= MOST_CODE_BITS && 2 ** codes <= (rows * cols) / length; codes++) {
            const name = `d=${length}, ${2 ** codes} entries, rank ${rank}, groups of ${group}${permute ? ", permuted" : ""}`;
            const among = options.share ? (options.sharing ?? Infinity) : rows * cols;
            const one = { length, entries: 2 ** codes };
            const book = bitsOfBook(one, among);
            const bits = codes / length + book + besides(size, shape, options.factors);
            nearest = Math.min(nearest, bits);
            if (bits > options.bits) break;
            if (takesTooMuch(one, among)) {
              left.push(
                `${name}: its book takes ${((100 * book * length) / codes).toFixed(0)} % of its codes`,
              );
              break;
            }
            if (!options.books || options.books.has(bookName(one))) fits = { ...shape, name, bits, codes };
          }
          if (fits) shapes.push(fits);
        }
      }
    }
  }
  if (shapes.length === 0) {
    throw new InputError(
      `${method}: no shape of ${rows}×${cols} takes ${options.bits} bits a weight or fewer; the nearest takes ${nearest.toFixed(3)}`,
    );
  }
  return { shapes, left };
}

/** Bits per weight of all but codes and book. */
function besides(
  { rows, cols }: Size,
  { rank, group, permute }: Pick<CodeShape, "rank" | "group" | "permute">,
  factors: string,
): number {
  const scales = group === cols ? 16 / cols : 8 / group + 16 / cols;
  const wide = factors === "int8" || factors === "int4";
  const factor = wide ? Number(factors.slice(3)) : 16;
  // Integer factors have a 16-bit scale for each of their rows.
  const low =
    rank === 0 ? 0 : (rank * (rows + cols) * factor + (wide ? 16 * (rows + rank) : 0)) / (rows * cols);
  const orders = permute ? (cols <= 256 ? 8 : 16) / orderHeight(rows) : 0;
  return scales + low + orders;
}

/** Bits of a book for each of so many weights that use it. */
function bitsOfBook({ length, entries }: BookShape, weights: number): number {
  return (16 * length * entries) / weights;
}

/** Whether a book takes too much of the codes of so many weights, each for `each` weights. */
export function takesTooMuch(book: BookShape, weights: number, each = book.length): boolean {
  return bitsOfBook(book, weights) > (MOST_BOOK * Math.log2(book.entries)) / each;
}

/** Books that are learned when so many weights are to share them. */
export function booksOf(
  { shape, bits, length }: { shape: "given" | "auto"; bits: number; length: number },
  weights: number,
): BookShape[] {
  if (shape === "given") return [{ length, entries: Math.floor(2 ** (bits * length) + 0.5) }];
  return LENGTHS.flatMap((d) => {
    const most = Math.min(MOST_CODE_BITS, Math.floor(bits * d));
    return Array.from({ length: most }, (_, i) => ({ length: d, entries: 2 ** (i + 1) }));
  })
    .filter(({ length, entries }) => Math.log2(entries) / length > bits - 1)
    .filter((book) => !takesTooMuch(book, weights));
}

export function bookName({ length, entries }: BookShape): string {
  return `${entries} of ${length}`;
}

/** Scaled weights of a matrix, evenly chosen runs of eight, for books that it shares with others. */
export function sampleOf(W: Matrix, group: number): Float32Array {
  const x = scaledVectors(W, group);
  const runs = Math.floor(x.length / 8);
  const count = Math.min(runs, MOST_SAMPLES / 8);
  const sample = new Float32Array(count * 8);
  for (let i = 0; i < count; i++) {
    const at = Math.floor(((i + 0.5) * runs) / count) * 8;
    sample.set(x.subarray(at, at + 8), i * 8);
  }
  return sample;
}

/** The samples of all matrices, as vectors of a length that divides eight. */
export function vectorsOf(samples: readonly Float32Array[], length: number): Float32Array {
  const all = new Float32Array(samples.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const sample of samples) {
    all.set(sample, at);
    at += sample.length;
  }
  return all.subarray(0, Math.floor(all.length / length) * length);
}
