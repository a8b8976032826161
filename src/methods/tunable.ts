import { z } from "zod";
import type { Backend } from "../backends/backend.ts";
import { unpackCodes } from "../formats/codebook.ts";
import { numbersOf } from "../formats/compose-weight.ts";
import { type GroupFormat, partOf } from "../formats/format.ts";
import { decodeWeight, formatByName } from "../formats/index.ts";
import { compound, tensorsOf } from "../kernels/compound.ts";
import type { Operations } from "../kernels/index.ts";
import { roundingRules, storedScale } from "../kernels/round-rows.ts";
import { halfEven } from "../tensor/rounding.ts";
import { type HostTensor, hostTensor, type Matrix, matrix, type Tensor } from "../tensor/tensor.ts";
import { type Expression, type Part, packedWeight, type Weight } from "../tensor/weight.ts";
import { drawnOnce } from "./drawn-once.ts";
import { lowRankOfZeros } from "./low-rank.ts";

/** The parts of a weight that tuning may move; codes, orders and rotations stay. */
export const tunedParts = ["lowRank", "magnitudes", "scales", "codebooks"] as const;
export type TunedPart = (typeof tunedParts)[number];

/**
 * A stored weight some of whose parts are trained. The layer sees every part
 * as storage will keep it: numbers are rounded to their 16 bits, and factors and scales
 * in integers to these, in each pass, straight through. So what `stored` gives is
 * the function that was trained, and before the first step that of the weight itself.
 */
export interface Tunable {
  /** What is trained, by the path of its part. */
  readonly parameters: ReadonlyMap<string, HostTensor>;
  /** The paths of those that are books, which matrices may share. */
  readonly books: ReadonlySet<string>;
  /** Puts the parts that stay on a backend. */
  open(backend: Backend): OpenTunable;
  /** The weight with parts of these values. */
  stored(values: ReadonlyMap<string, Float32Array>): Weight;
}

export interface OpenTunable {
  /** What stays, on the backend. */
  readonly kept: ReadonlySet<Tensor>;
  /** The matrix for one forward pass, of parameters that are on the backend. */
  tensor(ops: Operations, values: ReadonlyMap<string, Tensor>): Tensor;
  free(): void;
}

/** A part of the expression: what it trains is in `parameters` by then. */
interface Node {
  open(upload: (value: HostTensor | Weight) => Tensor): Build;
  stored(values: ReadonlyMap<string, Float32Array>): Weight;
}

type Build = (ops: Operations, values: ReadonlyMap<string, Tensor>) => Tensor;

/**
 * A weight seen as parameters and what stays. `lowRank` are factors,
 * `magnitudes` numbers of rows and columns (signs too, which become 16-bit numbers),
 * `scales` those of groups, with offsets, `codebooks` the entries of books.
 * Magnitudes are trained as the numbers that multiply a row: DoRA's m/‖V‖ (Liu et al., 2024,
 * https://arxiv.org/abs/2402.09353, section 4.3, the norm without gradient) as one number.
 */
export function tunable(weight: Weight, moves: ReadonlySet<TunedPart>): Tunable {
  const parameters = new Map<string, HostTensor>();
  const books = new Set<string>();
  const root = node(weight, "", { moves, parameters, books });
  return {
    parameters,
    books,
    open(backend) {
      const kept = new Set<Tensor>();
      const build = root.open((value) => {
        const t = backend.keep(backend.upload(value));
        tensorsOf(t, kept);
        return t;
      });
      return {
        kept,
        tensor: build,
        free() {
          for (const t of kept) backend.free(t);
        },
      };
    },
    stored: (values) => root.stored(values),
  };
}

interface Made {
  readonly moves: ReadonlySet<TunedPart>;
  readonly parameters: Map<string, HostTensor>;
  readonly books: Set<string>;
}

function node(weight: Weight, path: string, made: Made): Node {
  const { shape, expression: e } = weight;
  const { moves } = made;
  const inner = (of: Weight, name: string) => node(of, `${path}${name}.`, made);
  const stays: Node = {
    open(upload) {
      const t = upload(drawnOnce(weight));
      return () => t;
    },
    stored: () => weight,
  };
  switch (e.kind) {
    case "packed":
      return (moves.has("scales") && packedScales(weight, path, made)) || stays;
    case "sum":
    case "product": {
      const parts = e.kind === "sum" ? e.terms : e.factors;
      const name = e.kind === "sum" ? "terms" : "factors";
      const nodes = parts.map((part, i) => inner(part, `${name}.${i}`));
      const put = <T>(all: T[]) =>
        e.kind === "sum" ? { kind: e.kind, terms: all } : { kind: e.kind, factors: all };
      return {
        open(upload) {
          const builds = nodes.map((one) => one.open(upload));
          return (ops, values) => compound(shape, put(builds.map((build) => build(ops, values))));
        },
        stored: (values) => ({ shape, expression: put(nodes.map((one) => one.stored(values))) }),
      };
    }
    case "lowRank": {
      if (!moves.has("lowRank")) return stays;
      const a = floats(e.a, `${path}a`, made);
      const b = floats(e.b, `${path}b`, made);
      return {
        open: () => (ops, values) =>
          compound(shape, { kind: "product", factors: [a.rounded(ops, values), b.rounded(ops, values)] }),
        stored: (values) => ({
          shape,
          expression: { kind: "lowRank", a: a.stored(values), b: b.stored(values) },
        }),
      };
    }
    case "scaleRows":
    case "scaleColumns": {
      const of = inner(e.of, "of");
      const moved = moves.has("magnitudes") && vector(e.scales, `${path}scales`, made);
      return {
        open(upload) {
          const matrixOf = of.open(upload);
          const constant = moved ? undefined : upload(numbers(e.scales));
          return (ops, values) =>
            compound(shape, {
              kind: e.kind,
              scales: constant ?? (moved as Values).rounded(ops, values),
              matrix: matrixOf(ops, values),
            });
        },
        stored: (values) => ({
          shape,
          expression: { kind: e.kind, scales: moved ? moved.part(values) : e.scales, of: of.stored(values) },
        }),
      };
    }
    case "codebook":
      return book(weight, undefined, path, made) ?? stays;
    case "scaleGroups":
      return book(e.of, e.scales, path, made) ?? rowScales(weight, path, made) ?? stays;
    case "permuteColumns":
    case "placeColumns": {
      const of = inner(e.of, "of");
      const places = placesOf(e);
      if (!places) return stays;
      return {
        open(upload) {
          const matrixOf = of.open(upload);
          const at = upload(hostTensor([places.length], places));
          return (ops, values) =>
            compound(shape, { kind: "pickColumns", places: at, matrix: matrixOf(ops, values) });
        },
        stored: (values) => ({ shape, expression: { ...e, of: of.stored(values) } }),
      };
    }
    case "hadamard":
      return {
        open: () => () => compound(shape, { kind: "hadamard", block: e.block }),
        stored: () => weight,
      };
    case "sign":
    case "signed":
    case "decoder":
      return stays;
  }
}

/** Where the columns inside stand; undefined where every block of rows has an order of its own. */
function placesOf(e: Expression & { kind: "permuteColumns" | "placeColumns" }): Int32Array | undefined {
  if (e.kind === "placeColumns") return Int32Array.from(numbersOf(e.places));
  if (e.order.shape.length !== 1) return undefined;
  const order = numbersOf(e.order);
  const places = new Int32Array(order.length);
  for (let c = 0; c < order.length; c++) places[order[c]] = c;
  return places;
}

/** Scales (and offsets) of a format's groups: the matrix is looked up in the format's levels. */
function packedScales(weight: Weight, path: string, made: Made): Node | undefined {
  if (weight.expression.kind !== "packed") return undefined;
  const { format: name, parts } = weight.expression;
  const format = formatByName(name);
  const [rows, cols] = weight.shape;
  if (parts.scales?.dtype !== "f16" || parts.scales.shape[0] !== rows) return undefined;
  const groups = parts.scales.shape[1];
  if (format.kind === "opaque") {
    if (groups !== 1) return undefined;
    const scales = vector(parts.scales, `${path}scales`, made);
    const ones = partOf("f16", parts.scales.shape, new Float16Array(rows).fill(1));
    const unit = packedWeight(weight.shape, name, { ...parts, scales: ones });
    return {
      open(upload) {
        const matrixOf = upload(unit);
        return (ops, values) =>
          compound(weight.shape, {
            kind: "scaleRows",
            scales: scales.rounded(ops, values),
            matrix: matrixOf,
          });
      },
      stored: (values) =>
        packedWeight(weight.shape, name, { ...parts, scales: reshaped(scales.part(values), [rows, 1]) }),
    };
  }
  const others = Object.keys(parts).filter((part) => !["codes", "scales", "offsets"].includes(part));
  if (others.length > 0 || (parts.offsets && parts.offsets.dtype !== "f16")) return undefined;
  const scales = floats(packedWeight([rows, groups], "f16", { data: parts.scales }), `${path}scales`, made);
  const offsets = parts.offsets
    ? floats(packedWeight([rows, groups], "f16", { data: parts.offsets }), `${path}offsets`, made)
    : undefined;
  const { codes } = format.unpack(parts, rows, cols);
  return {
    open(upload) {
      const levels = upload(levelsOf(format));
      const places = upload(hostTensor([rows, cols], Int32Array.from(codes)));
      const none = offsets ? undefined : upload(hostTensor([rows, groups], new Float32Array(rows * groups)));
      return (ops, values) =>
        ops.lookUp(levels, places, scales.rounded(ops, values), none ?? offsets!.rounded(ops, values));
    },
    stored(values) {
      const part = (of: Values) => reshaped(of.part(values), [rows, groups]);
      return packedWeight(weight.shape, name, {
        ...parts,
        scales: part(scales),
        ...(offsets ? { offsets: part(offsets) } : {}),
      });
    },
  };
}

/** One scale for each row of a part that stays (what a decoder draws); undefined where there are others, or they do not move. */
function rowScales({ shape, expression: e }: Weight, path: string, made: Made): Node | undefined {
  if (e.kind !== "scaleGroups" || e.scales.expression.kind !== "packed" || !made.moves.has("scales"))
    return undefined;
  const { format, parts } = e.scales.expression;
  if (format !== "f16" || e.scales.shape[1] !== 1) return undefined;
  const scales = vector(parts.data, `${path}scales`, made);
  return {
    open(upload) {
      const matrix = upload(drawnOnce(e.of));
      return (ops, values) =>
        compound(shape, { kind: "scaleRows", scales: scales.rounded(ops, values), matrix });
    },
    stored(values) {
      const own = packedWeight(e.scales.shape, format, {
        data: reshaped(scales.part(values), e.scales.shape),
      });
      return { shape, expression: { ...e, scales: own } };
    },
  };
}

/** What the codes of a format stand for where the scale is 1, (codes, 1). */
function levelsOf(format: GroupFormat): HostTensor {
  const values = Float32Array.from({ length: format.codeCount }, (_, code) =>
    format.value(code, { scale: 1, offset: 0 }),
  );
  return hostTensor([values.length, 1], values);
}

/** Codes with a book, and scales of groups where there are any; undefined where neither moves, or vectors run down. */
function book(of: Weight, scales: Weight | undefined, path: string, made: Made): Node | undefined {
  const { expression: e } = of;
  if (e.kind !== "codebook" || e.down) return undefined;
  const { moves } = made;
  if (!moves.has("codebooks") && !(scales && moves.has("scales"))) return undefined;
  const [rows, cols] = of.shape;
  const at = scales ? `${path}of.` : path;
  const entries = moves.has("codebooks") ? floats(e.book, `${at}book`, made) : undefined;
  if (entries) made.books.add(`${at}book`);
  const factors = scales && moves.has("scales") ? floats(scales, `${path}scales`, made) : undefined;
  const groups = scales ? scales.shape[1] : 1;
  const vectors = cols / e.book.shape[1];
  const codes = unpackCodes(e.codes, rows, vectors, e.codeBits);
  return {
    open(upload) {
      const floatsOf = (weight: Weight) => hostTensor(weight.shape, decodeWeight(weight).data);
      const places = upload(hostTensor([rows, vectors], Int32Array.from(codes)));
      const none = upload(hostTensor([rows, groups], new Float32Array(rows * groups)));
      const ones = () => hostTensor([rows, groups], new Float32Array(rows * groups).fill(1));
      const constantBook = entries ? undefined : upload(floatsOf(e.book));
      const constantScales = factors ? undefined : upload(scales ? floatsOf(scales) : ones());
      return (ops, values) =>
        ops.lookUp(
          constantBook ?? entries!.rounded(ops, values),
          places,
          constantScales ?? factors!.rounded(ops, values),
          none,
        );
    },
    stored(values) {
      const coded: Weight = {
        shape: of.shape,
        expression: { ...e, book: entries ? entries.stored(values) : e.book },
      };
      if (!scales) return coded;
      const stored = factors ? factors.stored(values) : scales;
      return { shape: of.shape, expression: { kind: "scaleGroups", scales: stored, of: coded } };
    },
  };
}

/** Trained numbers: how the layer sees them, and how they are stored. */
interface Values {
  rounded(ops: Operations, values: ReadonlyMap<string, Tensor>): Tensor;
  stored(values: ReadonlyMap<string, Float32Array>): Weight;
  part(values: ReadonlyMap<string, Float32Array>): Part;
}

/** A plain or integer matrix that is trained. Integers are fitted to it anew in each pass, rows or groups by their largest number. */
function floats(weight: Weight, path: string, { parameters }: Made): Values {
  parameters.set(path, hostTensor(weight.shape, decodeWeight(weight).data));
  const { shape } = weight;
  const format = weight.expression.kind === "packed" ? weight.expression.format : "f16";
  const integer = /^int(\d)(?:-g(\d+))?$/.exec(format);
  if (!integer) {
    const part = (values: ReadonlyMap<string, Float32Array>) => halves(shape, values.get(path)!);
    return {
      rounded: (ops, values) => ops.half(values.get(path)!),
      stored: (values) => packedWeight(shape, "f16", { data: part(values) }),
      part,
    };
  }
  const [bits, group] = [Number(integer[1]), Number(integer[2] ?? 0)];
  const stored = (values: ReadonlyMap<string, Float32Array>) => {
    const data = values.get(path)!;
    const [rows, cols] = shape;
    return packIntegers(formatByName(format) as GroupFormat, matrix(rows, cols, data), bits, group || cols);
  };
  return {
    rounded: (ops, values) =>
      ops.roundRows(values.get(path)!, bits, roundingRules.indexOf("stored"), group, 1, 0),
    stored,
    part: () => {
      throw new Error("tunable: integers are several parts");
    },
  };
}

/** A stored vector that is trained, and is kept in 16 bits. */
function vector(part: Part, path: string, made: Made): Values {
  const values = Float32Array.from(numbersOf(part));
  return floats(packedWeight([values.length], "f16", { data: halves([values.length], values) }), path, made);
}

/** The codes that `roundRows` rounds W to by its rule "stored". */
function packIntegers(format: GroupFormat, W: Matrix, bits: number, group: number): Weight {
  const top = 2 ** (bits - 1) - 1;
  const codes = new Uint8Array(W.data.length);
  const parameters = [];
  for (let g = 0; g < W.data.length; g += group) {
    const w = W.data.subarray(g, g + group);
    const scale = storedScale(w, top);
    parameters.push({ scale, offset: 0 });
    for (const [i, x] of w.entries()) {
      const q = scale === 0 ? 0 : halfEven(Math.fround(x / scale));
      codes[g + i] = Math.max(-top - 1, Math.min(top, q)) + top + 1;
    }
  }
  return packedWeight([W.rows, W.cols], format.name, format.pack({ codes, parameters }, W.rows, W.cols));
}

function numbers(part: Part): HostTensor {
  const values = Float32Array.from(numbersOf(part));
  return hostTensor([values.length], values);
}

function halves(shape: readonly number[], data: Float32Array): Part {
  return partOf("f16", shape, Float16Array.from(data));
}

function reshaped(part: Part, shape: readonly number[]): Part {
  return { ...part, shape };
}

/** What is added to a weight so that it can be tuned: keys of a schema. */
export const adapterKeys = {
  /** Of a low-rank part that is added to every matrix; 0 for none. */
  rank: z.int().min(0).default(0),
  /** How its factors are stored. */
  factors: z.enum(["f16", "int8", "int4"]).default("f16"),
  /** Whether every row gets a 16-bit number of its own. */
  magnitudes: z.boolean().default(false),
  seed: z.int().default(0),
};

export type AdapterOptions = z.output<z.ZodObject<typeof adapterKeys>>;

/**
 * The same function with more to tune: a low-rank part of zeros, and a
 * magnitude of 1 for each row.
 */
export function withAdapter(weight: Weight, { rank, factors, magnitudes, seed }: AdapterOptions): Weight {
  const [rows, cols] = weight.shape;
  let result = weight;
  if (rank > 0) {
    const low = lowRankOfZeros({ rows, cols }, { rank, factors, seed });
    result = { shape: [rows, cols], expression: { kind: "sum", terms: [result, low] } };
  }
  if (magnitudes) {
    const scales = halves([rows], new Float32Array(rows).fill(1));
    result = { shape: [rows, cols], expression: { kind: "scaleRows", scales, of: result } };
  }
  return result;
}
