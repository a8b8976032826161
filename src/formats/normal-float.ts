import { packCodes, unpackCodes } from "./codebook.ts";
import { checkGroup, elements, type GroupFormat, type Parameters, partOf, storeF16 } from "./format.ts";

/**
 * Levels of NormalFloat: quantiles of a normal distribution, the outermost at −1 and 1, with 0 among them.
 *
 *   p = 2^(B−1) numbers in equal steps from 1 − o to ½, then 2^(B−1) more from ½ (left out) to o,  o = ½·(1−1/32 + 1−1/30)
 *   level = Φ⁻¹(p)/Φ⁻¹(o)
 *
 * Dettmers et al., 2023 (https://arxiv.org/abs/2305.14314), section 3 and appendix E. Those of four bits are the numbers of
 * bitsandbytes (functional.py), float32; those of three and two follow from the same formula.
 */
const LEVELS = {
  4: [
    -1, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1,
  ],
  3: [
    -1, -0.47862908244132996, -0.2171417772769928, 0, 0.16093014180660248, 0.3379151225090027,
    0.5626168847084045, 1,
  ],
  2: [-1, 0, 0.3379151225090027, 1],
} as const;

export type NormalFloatBits = keyof typeof LEVELS;

/** The levels, ascending, float32. */
export function normalFloatLevels(bits: NormalFloatBits): Float32Array {
  return Float32Array.from(LEVELS[bits]);
}

/**
 * NormalFloat of B bits: levels that are equally likely for normal weights, with an fp16 scale for each row or for each group
 * of N neighbours of a row.
 *
 *   codes    u8  (rows, ⌈cols·B/8⌉)  each row is a little-endian stream of bits, as in integer.ts
 *   scales   f16 (rows, groups)      max|w| of a group
 *
 *   value = f32(scale·LEVELS[code])
 *
 * Bits per weight: B + 16/N (N = cols without groups). Dettmers et al., 2023 (https://arxiv.org/abs/2305.14314), whose
 * scales are float32, or 8-bit numbers: methods/qlora.ts. The mean squared error of standard normal weights in groups of 64
 * is 0.0085 at four bits; two bits have only one level below 0 but the least, and are poor (0.32).
 */
export function normalFloat(bits: NormalFloatBits, group?: 32 | 64 | 128): GroupFormat {
  const stem = `nf${bits}`;
  const name = `${stem}${group ? `-g${group}` : ""}`;
  const levels = normalFloatLevels(bits);
  const zero = levels.indexOf(0);

  const format: GroupFormat = {
    kind: "group",
    name,
    stem,
    spec: "lowbit: src/formats/normal-float.ts",
    codeBits: bits,
    codeCount: levels.length,
    groupShape: group ? { kind: "group", size: group } : { kind: "row" },

    parts(rows, cols) {
      if (group) checkGroup(name, cols, group);
      return [
        { name: "codes", dtype: "u8", shape: [rows, Math.ceil((cols * bits) / 8)] },
        { name: "scales", dtype: "f16", shape: [rows, group ? cols / group : 1] },
      ];
    },

    fitGroup: (w) => ({ scale: storeF16(name, "scale", largest(w)), offset: 0 }),

    // The range shrunk to p of itself, p = 1, 0.99, … 0.21, and turned round: there are more levels above 0 than below.
    *candidates(w) {
      const most = largest(w);
      for (let i = 0; i < 80; i++) {
        const scale = storeF16(name, "scale", (1 - i / 100) * most);
        yield { scale, offset: 0 };
        yield { scale: -scale, offset: 0 };
      }
    },

    nearest: (w, { scale }) => (scale === 0 ? zero : nearestLevel(levels, w / scale)),
    value: (code, { scale }) => Math.fround(scale * levels[code]),

    pack({ codes, parameters }, rows, cols) {
      const [, { shape }] = format.parts(rows, cols);
      const scales = Float16Array.from(parameters, (p) => p.scale);
      return { codes: packCodes(codes, rows, cols, bits), scales: partOf("f16", shape, scales) };
    },

    unpack(parts, rows, cols) {
      const scales = elements(parts.scales, Float16Array);
      const parameters: Parameters[] = Array.from(scales, (scale) => ({ scale, offset: 0 }));
      const codes = { ...parts.codes, shape: [rows, Math.ceil((cols * bits) / 8)] };
      return { codes: Uint8Array.from(unpackCodes(codes, rows, cols, bits)), parameters };
    },
  };
  return format;
}

/** max|w|; NaN when one of them is. */
function largest(w: Float32Array): number {
  return w.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
}

/** The place of the level nearest to x in an ascending list. */
export function nearestLevel(levels: Float32Array, x: number): number {
  let low = 0;
  let high = levels.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (x - levels[middle] > levels[middle + 1] - x) low = middle + 1;
    else high = middle;
  }
  return low;
}
