import type { Backend } from "../backends/backend.ts";
import { codesShape, packCodes, unpackCodes } from "../formats/codebook.ts";
import { blockHeight, numbersOf } from "../formats/compose-weight.ts";
import { decodeWeight, formatByName } from "../formats/index.ts";
import {
  hostTensor,
  InputError,
  type Matrix,
  matrix,
  ShapeError,
  UnsupportedError,
} from "../tensor/tensor.ts";
import { describeWeight, type Expression, packedWeight, type Weight } from "../tensor/weight.ts";
import { moveDrawn } from "./decoder-sweep.ts";
import { difference } from "./vector-codes.ts";

export interface RecodeOptions {
  /** τ: share of the vectors that may have other codes afterwards. The paper's is 0.01. */
  readonly share: number;
  /** Sums that the search goes on with where entries of several books are added up. The paper's is 5. */
  readonly beam?: number;
}

export interface Recoded {
  readonly weight: Weight;
  /** Vectors (single weights of a packed format) that have other codes now. */
  readonly changed: number;
  readonly of: number;
}

type Codebook = Weight & { readonly expression: Expression & { readonly kind: "codebook" } };

/** What the coded part stands for, times these, is a part of the matrix; (rows, cols). */
type Scales = (r: number, c: number) => number;

/**
 * The P step of PV-Tuning: codes move toward a dense matrix, as an optimizer would have it, and only those of the τ·n
 * vectors that are farthest from it,
 *
 *   S = the ⌊τ·n⌋ vectors v with the largest ‖target_v − Ŵ_v‖²,   codes_v = argmin ‖target_v − Ŵ_v‖²  for v in S
 *
 * so that the few that change go far enough to change at all, and ‖target − Ŵ‖² never rises. Books, scales and all that
 * is added to the codes stay: moving them is the V step (tune-block.ts).
 *
 * Malinovskii et al., 2024 (https://arxiv.org/abs/2405.14852), section 3.3 and algorithm 2. Codes are those of a
 * codebook, of a sum of codebooks of one size (by beam search), or of a packed format, under scales and orders of columns
 * of any kind, or what a decoder draws (whole patches, by its search); in a sum with other parts, those of its first coded part.
 */
export async function recode(
  backend: Backend,
  weight: Weight,
  target: Matrix,
  options: RecodeOptions,
): Promise<Recoded> {
  const [rows, cols] = weight.shape;
  if (target.rows !== rows || target.cols !== cols) {
    throw new ShapeError(
      `pv-tuning: a matrix of ${rows}×${cols} cannot move to one of ${target.rows}×${target.cols}`,
    );
  }
  if (!(options.share > 0 && options.share <= 1)) {
    throw new InputError(`pv-tuning: a share is above 0 and at most 1, got ${options.share}`);
  }
  return step(weight, target, () => 1);

  async function step(at: Weight, goal: Matrix, scale: Scales): Promise<Recoded> {
    const { shape, expression: e } = at;
    const inside = async (of: Weight, more: Scales) => {
      const found = await step(of, goal, (r, c) => scale(r, c) * more(r, c));
      return { ...found, weight: { shape, expression: { ...e, of: found.weight } as Expression } };
    };
    switch (e.kind) {
      case "scaleRows": {
        const own = numbersOf(e.scales);
        return inside(e.of, (r) => own[r]);
      }
      case "scaleColumns": {
        const own = numbersOf(e.scales);
        return inside(e.of, (_, c) => own[c]);
      }
      case "scaleGroups": {
        if (e.of.expression.kind === "decoder")
          return moveDrawn(backend, at, goal, { share: options.share, scale });
        const own = decodeWeight(e.scales);
        const width = shape[1] / own.cols;
        return inside(e.of, (r, c) => own.data[r * own.cols + Math.floor(c / width)]);
      }
      case "permuteColumns": {
        const place = inverseOf(numbersOf(e.order), rows, cols);
        if (e.of.shape[1] !== cols || !place) break;
        const data = goal.data.map(
          (_, i) => goal.data[i - (i % cols) + place(Math.floor(i / cols), i % cols)],
        );
        const found = await step(e.of, matrix(rows, cols, data), (r, c) => scale(r, place(r, c)));
        return { ...found, weight: { shape, expression: { ...e, of: found.weight } } };
      }
      case "codebook":
        return await books([at as Codebook], goal, scale, ([only]) => only);
      case "packed":
        return levels(at, goal, scale);
      case "sum": {
        const first = e.terms.findIndex(isCoded);
        if (first === -1) break;
        const along = e.terms.filter((term) => first >= 0 && alike(e.terms[first], term));
        const others = e.terms.filter((term) => term !== e.terms[first] && !along.includes(term));
        let rest = goal;
        for (const other of others) rest = difference(rest, scaled(decodeWeight(other), scale));
        const put = (made: readonly Weight[], places: readonly Weight[]): Weight => ({
          shape,
          expression: { ...e, terms: e.terms.map((term) => made[places.indexOf(term)] ?? term) },
        });
        if (along.length > 0) return books(along as Codebook[], rest, scale, (made) => put(made, along));
        const found = await step(e.terms[first], rest, scale);
        return { ...found, weight: put([found.weight], [e.terms[first]]) };
      }
    }
    throw new UnsupportedError(`pv-tuning: has no way to choose codes of ${describeWeight(at)} anew`);
  }

  /** Codes of books whose entries are added up. */
  async function books(
    terms: readonly Codebook[],
    goal: Matrix,
    scale: Scales,
    put: (terms: Weight[]) => Weight,
  ): Promise<Recoded> {
    const { down } = terms[0].expression;
    const tables = terms.map(({ expression }) => decodeWeight(expression.book));
    const { rows: entries, cols: length } = tables[0];
    const [codeRows, perRow] = codesShape(rows, cols, length, down);
    const codes = terms.map(({ expression: e }) => unpackCodes(e.codes, codeRows, perRow, e.codeBits));
    const place = (v: number, j: number) => {
      const [r, c] = [Math.floor(v / perRow), v % perRow];
      return down ? (r * length + j) * cols + c : r * cols + c * length + j;
    };
    const scaleAt = (at: number) => scale(Math.floor(at / cols), at % cols);
    const n = codeRows * perRow;
    const moved = new Float64Array(n);
    for (let v = 0; v < n; v++) {
      for (let j = 0; j < length; j++) {
        const at = place(v, j);
        const sum = tables.reduce((all, { data }, m) => all + data[codes[m][v] * length + j], 0);
        moved[v] += (goal.data[at] - scaleAt(at) * sum) ** 2;
      }
    }
    const some = farthest(moved, options.share);
    if (some.length === 0) return { weight: put([...terms]), changed: 0, of: n };
    const x = new Float32Array(some.length * length);
    const w = new Float32Array(x.length);
    const own = new Int32Array(some.length * terms.length);
    for (const [i, v] of some.entries()) {
      for (let j = 0; j < length; j++) {
        const at = place(v, j);
        const s = scaleAt(at);
        x[i * length + j] = s === 0 ? 0 : goal.data[at] / s;
        w[i * length + j] = s * s;
      }
      for (let m = 0; m < terms.length; m++) own[i * terms.length + m] = codes[m][v];
    }
    const all = new Float32Array(terms.length * entries * length);
    for (const [m, { data }] of tables.entries()) all.set(data, m * entries * length);
    const chosen = await search(backend, own, x, all, w, length, terms.length, options.beam ?? 5);
    let changed = 0;
    for (const [i, v] of some.entries()) {
      if (terms.some((_, m) => codes[m][v] !== chosen[i * terms.length + m])) changed++;
      for (let m = 0; m < terms.length; m++) codes[m][v] = chosen[i * terms.length + m];
    }
    const made = terms.map(
      ({ shape, expression: e }, m): Weight => ({
        shape,
        expression: { ...e, codes: packCodes(codes[m], codeRows, perRow, e.codeBits) },
      }),
    );
    return { weight: put(made), changed, of: n };
  }

  /** Codes of a format, each of one weight. */
  function levels(at: Weight, goal: Matrix, scale: Scales): Recoded {
    const { format: name, parts } = at.expression as Expression & { kind: "packed" };
    const format = formatByName(name);
    if (format.kind === "opaque") {
      throw new UnsupportedError(
        `pv-tuning: ${name} has no codes to choose; use a format of codes and scales`,
      );
    }
    const { codes, parameters } = format.unpack(parts, rows, cols);
    const values = decodeWeight(at).data;
    const moved = Float64Array.from(values, (value, i) => {
      return (goal.data[i] - scale(Math.floor(i / cols), i % cols) * value) ** 2;
    });
    const group = (rows * cols) / parameters.length;
    let changed = 0;
    const next = codes.slice();
    for (const i of farthest(moved, options.share)) {
      const s = scale(Math.floor(i / cols), i % cols);
      if (s === 0) continue;
      next[i] = format.nearest(goal.data[i] / s, parameters[Math.floor(i / group)]);
      if (next[i] !== codes[i]) changed++;
    }
    const stored = format.pack({ codes: next, parameters }, rows, cols);
    return { weight: packedWeight([rows, cols], name, stored), changed, of: rows * cols };
  }
}

/** The column at which column c of row r stands afterwards; undefined where an order leaves a column out. */
function inverseOf(
  order: ArrayLike<number>,
  rows: number,
  cols: number,
): ((r: number, c: number) => number) | undefined {
  const height = blockHeight(order.length, rows, cols);
  const places = new Int32Array(order.length).fill(-1);
  for (let i = 0; i < order.length; i++) places[i - (i % cols) + order[i]] = i % cols;
  if (places.includes(-1)) return undefined;
  return (r, c) => places[Math.floor(r / height) * cols + c];
}

/** The numbers of the ⌊share·n⌋ largest that are above 0. */
function farthest(moved: Float64Array, share: number): Uint32Array {
  return Uint32Array.from(moved.keys())
    .sort((a, b) => moved[b] - moved[a] || a - b)
    .subarray(0, Math.floor(share * moved.length))
    .filter((v) => moved[v] > 0);
}

async function search(
  backend: Backend,
  codes: Int32Array,
  x: Float32Array,
  books: Float32Array,
  w: Float32Array,
  length: number,
  count: number,
  beam: number,
): Promise<Int32Array> {
  const n = x.length / length;
  const tensors = {
    codes: backend.upload(hostTensor([n, count], codes)),
    errors: backend.zeros([n]),
    x: backend.upload(hostTensor([n, length], x)),
    books: backend.upload(hostTensor([books.length / length, length], books)),
    w: backend.upload(hostTensor([n, length], w)),
  };
  try {
    backend.beamEntries(tensors.codes, tensors.errors, tensors.x, tensors.books, tensors.w, beam);
    return (await backend.read(tensors.codes)) as Int32Array;
  } finally {
    for (const t of Object.values(tensors)) backend.free(t);
  }
}

function isCoded({ expression: e }: Weight): boolean {
  switch (e.kind) {
    case "scaleRows":
    case "scaleColumns":
    case "scaleGroups":
    case "permuteColumns":
      return isCoded(e.of);
    default:
      if (e.kind === "codebook" || e.kind === "decoder") return true;
      return e.kind === "packed" && formatByName(e.format).kind !== "opaque";
  }
}

/** Whether both are codebooks with vectors and books of one size. */
function alike({ expression: a }: Weight, { expression: b }: Weight): boolean {
  if (a.kind !== "codebook" || b.kind !== "codebook" || a.down !== b.down) return false;
  return a.book.shape.every((size, i) => size === b.book.shape[i]);
}

function scaled({ rows, cols, data }: Matrix, scale: Scales): Matrix {
  return matrix(
    rows,
    cols,
    data.map((x, i) => x * scale(Math.floor(i / cols), i % cols)),
  );
}
