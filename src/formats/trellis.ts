import { packCodes, unpackCodes } from "./codebook.ts";
import { elements, type OpaqueFormat, partOf, rowScales } from "./format.ts";

/**
 * Trellis-coded weights: k bits a weight, each weight a function of the last L
 * bits of a stream, so that neighbours share most of their bits. Streams run
 * down the columns and end where they begin, so that each of their weights has
 * exactly k bits; k + 16/cols bits per weight.
 *
 *   codes   u8  (streams·length, ⌈cols·k/8⌉)  a row of codes for each row of the matrix, k bits a column, a little-endian
 *                                             bit stream from a byte on
 *   scales  f16 (rows, 1)
 *
 *   state  = Σ_j code(t + j)·2^(k·j) mod 2^L over the codes t, t + 1, … of the column's stream, around its end
 *   x      = (34038481·state + 76625530) mod 2³²
 *   value  = scale·(the sum of the four bytes of x − 510)/147.8005
 *
 * Rows are cut into as many streams of one length as have 256 rows or more; a length is 16 at least, and rows that a
 * matrix lacks at its end are stored like the others.
 *
 * This is QTIP's bit-shift trellis with its code "1MAD": Tseng, Sun, Hou and De Sa, 2024 (https://arxiv.org/abs/2406.11235,
 * section 3), whose L is 16; ours is 14, which loses some 1 % of the distortion and is found 5 times as fast. Of Gaussian
 * weights 2 bits lose 0.072 of the variance, where 0.0625 is the bound. Their streams are tiles of 16 × 16; down a column
 * no two weights of a stream meet the same output, so that what one loses is nothing to the others.
 */
export const TRELLIS_BITS = 14;

/** Rows of a stream, at least, where the matrix has so many; and rows that a stream is filled up to. */
const [STREAM, SHORTEST] = [256, 16];

/** How the rows of a matrix are cut into streams. */
export function streamsOf(rows: number): { readonly streams: number; readonly length: number } {
  const streams = Math.max(1, Math.floor(rows / STREAM));
  return { streams, length: Math.max(SHORTEST, Math.ceil(rows / streams)) };
}

/** The state's value before scaling. */
export function trellisValue(state: number): number {
  const x = (Math.imul(state, 34038481) + 76625530) >>> 0;
  return Math.fround(((x & 255) + ((x >>> 8) & 255) + ((x >>> 16) & 255) + (x >>> 24) - 510) * STEP);
}

/** In float32, as trellis.h has it. */
const STEP = Math.fround(1 / 147.8005);

/** Trellis codes of `bits` bits a weight: `trellis2`. */
export function trellis(bits: 2 | 3 | 4): OpaqueFormat {
  const name = `trellis${bits}`;
  const format: OpaqueFormat = {
    kind: "opaque",
    name,
    stem: name,
    spec: "lowbit: src/formats/trellis.ts",
    codeBits: bits,
    groupShape: { kind: "vector", size: SHORTEST },

    parts(rows, cols) {
      const { streams, length } = streamsOf(rows);
      return [
        { name: "codes", dtype: "u8", shape: [streams * length, Math.ceil((cols * bits) / 8)] },
        { name: "scales", dtype: "f16", shape: [rows, 1] },
      ];
    },

    encode(w, rows, cols) {
      const scales = rowScales(name, w, rows, cols);
      const { streams, length } = streamsOf(rows);
      const codes = new Uint8Array(streams * length * cols);
      for (let c = 0; c < cols; c++) {
        const column = Float32Array.from({ length: rows }, (_, r) => w[r * cols + c]);
        const x = streamsOfColumn(column, scales);
        for (let at = 0; at < x.length; at += length) {
          for (const [t, code] of trellisCodes(x.subarray(at, at + length), bits).entries())
            codes[(at + t) * cols + c] = code;
        }
      }
      return packTrellis(format, codes, scales, rows, cols);
    },

    decode(parts, rows, cols) {
      const { streams, length } = streamsOf(rows);
      const codes = unpackCodes(parts.codes, streams * length, cols, bits);
      const scales = elements(parts.scales, Float16Array);
      const values = new Float32Array(rows * cols);
      for (let r = 0; r < rows; r++) {
        const first = r - (r % length);
        for (let c = 0; c < cols; c++) {
          const code = (t: number) => codes[(first + (t % length)) * cols + c];
          values[r * cols + c] = scales[r] * trellisValue(stateAt(code, r - first, bits));
        }
      }
      return values;
    },
  };
  return format;
}

/** Stored parts of codes (streams·length, cols), each of k bits, and the scales of the rows. */
export function packTrellis(
  format: OpaqueFormat,
  codes: ArrayLike<number>,
  scales: Float32Array,
  rows: number,
  cols: number,
) {
  const [codesSpec, scalesSpec] = format.parts(rows, cols);
  const stored = packCodes(codes, codesSpec.shape[0], cols, format.codeBits);
  return { codes: stored, scales: partOf("f16", scalesSpec.shape, Float16Array.from(scales)) };
}

/** A column over the scales of its rows, as its streams (streams·length): zeros where the scale is 0 or rows are missing. */
export function streamsOfColumn(column: ArrayLike<number>, scales: Float32Array): Float32Array {
  const { streams, length } = streamsOf(scales.length);
  return Float32Array.from({ length: streams * length }, (_, r) => (scales[r] ? column[r] / scales[r] : 0));
}

/** Σ_j code(t + j)·2^(k·j) mod 2^L */
export function stateAt(code: (t: number) => number, t: number, bits: number): number {
  let state = 0;
  for (let j = 0; j * bits < TRELLIS_BITS; j++) state |= code(t + j) << (j * bits);
  return state & (2 ** TRELLIS_BITS - 1);
}

/** Places on either side of a stream's ends that decide where they meet. */
const MEETING = 48;

/**
 * Codes (n) of k bits whose values are near x (n) in Σ (x − value)²: the
 * least of all streams that begin and end in one overlap, which is that of the
 * best free stream of the places around it (Tseng et al., 2024, algorithm 4,
 * who take all places).
 */
export function trellisCodes(x: Float32Array, bits: number): Uint8Array {
  const n = x.length;
  const near = Math.min(MEETING, n >> 1);
  const around = Float32Array.from({ length: 2 * near }, (_, t) => x[(n - near + t) % n]);
  const overlap = viterbi(around, bits)[near] & (2 ** (TRELLIS_BITS - bits) - 1);
  return Uint8Array.from(viterbi(x, bits, overlap), (state) => state & (2 ** bits - 1));
}

/** The states of the best path; with an overlap, of those whose first L − k bits it is, and after their last k bits again. */
function viterbi(x: Float32Array, bits: number, overlap?: number): Uint16Array {
  const n = x.length;
  const states = 2 ** TRELLIS_BITS;
  const kept = 2 ** (TRELLIS_BITS - bits);
  const choices = 2 ** bits;
  const values = Float32Array.from({ length: states }, (_, s) => trellisValue(s));
  let cost = new Float32Array(states);
  for (let s = 0; s < states; s++) {
    cost[s] = overlap === undefined || s % kept === overlap ? (x[0] - values[s]) ** 2 : Infinity;
  }
  const back = new Uint8Array(n * kept);
  for (let t = 1; t < n; t++) {
    const next = new Float32Array(states);
    for (let j = 0; j < kept; j++) {
      let least = cost[j * choices];
      let choice = 0;
      for (let h = 1; h < choices; h++) {
        if (cost[j * choices + h] < least) [least, choice] = [cost[j * choices + h], h];
      }
      back[t * kept + j] = choice;
      for (let c = 0; c < choices; c++) {
        const s = c * kept + j;
        next[s] = least + (x[t] - values[s]) ** 2;
      }
    }
    cost = next;
  }
  let best = -1;
  for (let s = 0; s < states; s++) {
    if (overlap !== undefined && s >>> bits !== overlap) continue;
    if (best === -1 || cost[s] < cost[best]) best = s;
  }
  const path = new Uint16Array(n);
  for (let t = n - 1; t >= 0; t--) {
    path[t] = best;
    const j = best % kept;
    if (t > 0) best = j * choices + back[t * kept + j];
  }
  return path;
}
