import { checkGroup, elements, type OpaqueFormat, partOf, rowScales } from "./format.ts";

/**
 * E8P: vectors of eight weights at points of the lattice E8, shifted by a
 * quarter; 65,536 of them, 16 bits each; 2 + 16/cols bits per weight.
 *
 *   codes   u16 (rows, cols/8)
 *   scales  f16 (rows, 1)
 *
 *   bits 0–7   pattern p of the absolute values, halves of odd numbers
 *   bits 8–14  signs of places 0 … 6, 1 for −; the sign of place 7 is the one that makes Σ ±p even
 *   bit 15     shift s: 0 for +1/4, 1 for −1/4
 *   weight     scale·(±p + s)
 *
 * Patterns are the 227 of {1/2, 3/2, 5/2}⁸ with a norm² of at most 10, in the order of the number whose digits to base 3
 * they are (place 0 the lowest, 1/2 the digit 0), and behind them 29 of norm² 12: five 3/2 and three 1/2, those at the
 * places i < j < k, in their order, whose sum is even, and then those at 0, 1, 2.
 *
 * Tseng, Chee, Sun, Kuleshov and De Sa, 2024 (https://arxiv.org/abs/2402.04396, section 4.2), whose own choice of 29 is
 * another. Of Gaussian weights of variance 1 the points times 1/1.03 lose 0.092.
 */
export const e8p: OpaqueFormat = {
  kind: "opaque",
  name: "e8p",
  stem: "e8p",
  spec: "lowbit: src/formats/e8p.ts",
  codeBits: 2,
  groupShape: { kind: "vector", size: 8 },

  parts(rows, cols) {
    checkGroup("e8p", cols, 8);
    return [
      { name: "codes", dtype: "u16", shape: [rows, cols / 8] },
      { name: "scales", dtype: "f16", shape: [rows, 1] },
    ];
  },

  encode(w, rows, cols) {
    checkGroup("e8p", cols, 8);
    const scales = rowScales("e8p", w, rows, cols, 1 / E8P_SCALE);
    const codes = Uint16Array.from({ length: (rows * cols) / 8 }, (_, v) => {
      const scale = scales[Math.floor((8 * v) / cols)];
      return nearestE8P(w.subarray(8 * v, 8 * v + 8).map((x) => (scale === 0 ? 0 : x / scale)));
    });
    return packE8P(codes, scales, cols);
  },

  decode(parts, rows, cols) {
    const codes = elements(parts.codes, Uint16Array);
    const scales = elements(parts.scales, Float16Array);
    const values = new Float32Array(rows * cols);
    for (const [v, code] of codes.entries()) {
      const scale = scales[Math.floor((8 * v) / cols)];
      for (const [i, x] of pointOfE8P(code).entries()) values[8 * v + i] = scale * x;
    }
    return values;
  },
};

/** Deviation of the Gaussian numbers that lose the least to the points as they are, as measured and as the paper has it. */
export const E8P_SCALE = 1.03;

/** Stored parts of codes (rows, cols/8) and the scales of the rows. */
export function packE8P(codes: Uint16Array, scales: Float32Array, cols: number) {
  const rows = scales.length;
  return {
    codes: partOf("u16", [rows, cols / 8], codes),
    scales: partOf("f16", [rows, 1], Float16Array.from(scales)),
  };
}

/** Places of the three 1/2 in a pattern of norm² 12. */
const TRIPLES: readonly (readonly number[])[] = [...triplesOfEvenSum(), [0, 1, 2]];

function* triplesOfEvenSum(): Generator<number[]> {
  for (let i = 0; i < 8; i++) {
    for (let j = i + 1; j < 8; j++) {
      for (let k = j + 1; k < 8; k++) if ((i + j + k) % 2 === 0) yield [i, j, k];
    }
  }
}

/** Patterns as their halves: 1, 3 or 5 at each place. */
const patterns: readonly Uint8Array[] = [
  ...Array.from({ length: 3 ** 8 }, (_, n) =>
    Uint8Array.from({ length: 8 }, (_, i) => 1 + 2 * digit(n, i)),
  ).filter((p) => p.reduce((sum, half) => sum + half ** 2, 0) <= 4 * 10),
  ...TRIPLES.map((low) => Uint8Array.from({ length: 8 }, (_, i) => (low.includes(i) ? 1 : 3))),
];

/** The digit of n to base 3 at a place. */
function digit(n: number, place: number): number {
  return Math.floor(n / 3 ** place) % 3;
}

/** Numbers of the patterns by their digits. */
const numberOf = new Map(patterns.map((p, number) => [`${p}`, number]));

/** Whether a point of this pattern has an odd number of minus signs: Σ ±p is even when Σ ±(halves) is a multiple of 4. */
function oddSigns(p: Uint8Array): number {
  return (p.reduce((sum, half) => sum + half, 0) / 2) & 1;
}

/** The point (8) of a code before scaling. */
export function pointOfE8P(code: number): Float32Array {
  const p = patterns[code & 255];
  const shift = code >> 15 ? -0.25 : 0.25;
  let minus = oddSigns(p);
  return Float32Array.from(p, (half, i) => {
    const sign = i < 7 ? (code >> (8 + i)) & 1 : minus;
    minus ^= sign;
    return (sign ? -half : half) / 2 + shift;
  });
}

/**
 * The code of the point that is nearest to x (8), the first of equal ones.
 *
 * For each shift: of the points ±p with a = |x − s| in descending order, the nearest of all with the same numbers at
 * other places has them in descending order too, and all signs as in x − s, but that of the least a where the number of
 * minus signs would be of the wrong parity. So seven orders of numbers are tried, for norms² up to 10, and the 29
 * patterns of norm² 12, of which not all orders are there.
 */
export function nearestE8P(x: ArrayLike<number>): number {
  let best = Number.NEGATIVE_INFINITY;
  let code = 0;
  for (const shift of [0.25, -0.25]) {
    const y = Float64Array.from({ length: 8 }, (_, i) => x[i] - shift);
    const a = y.map(Math.abs);
    const order = [0, 1, 2, 3, 4, 5, 6, 7].sort((i, j) => a[j] - a[i] || i - j);
    const signs = y.reduce((bits, value, i) => bits | (value < 0 ? 1 << i : 0), 0);
    const negatives = y.reduce((count, value) => count + (value < 0 ? 1 : 0), 0);
    // −|a − p|²/2, and less twice a·p at the place whose sign is turned.
    const take = (p: Uint8Array, turned: number) => {
      const wrong = (negatives & 1) !== oddSigns(p);
      let gain = wrong ? -a[turned] * p[turned] : 0;
      for (let i = 0; i < 8; i++) gain -= (a[i] - p[i] / 2) ** 2 / 2;
      if (gain <= best) return;
      best = gain;
      const minus = wrong ? signs ^ (1 << turned) : signs;
      code = numberOf.get(`${p}`)! | ((minus & 127) << 8) | (shift < 0 ? 1 << 15 : 0);
    };
    const ordered = (fives: number, threes: number) => {
      const p = new Uint8Array(8).fill(1);
      for (let n = 0; n < fives + threes; n++) p[order[n]] = n < fives ? 5 : 3;
      return p;
    };
    for (let threes = 0; threes <= 4; threes++) take(ordered(0, threes), order[7]);
    for (let threes = 0; threes <= 1; threes++) take(ordered(1, threes), order[7]);
    for (const low of TRIPLES) {
      const p = Uint8Array.from({ length: 8 }, (_, i) => (low.includes(i) ? 1 : 3));
      const cheapest = order.reduce((least, i) => (a[i] * p[i] < a[least] * p[least] ? i : least));
      take(p, cheapest);
    }
  }
  return code;
}
