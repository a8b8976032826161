import { elements, type GroupFormat, partOf } from "./format.ts";
import { fitTernary, nearestTernary } from "./ternary.ts";

/**
 * Ternary weights, five to a byte, with one fp16 scale for each row of any
 * length: 1.6 + 16/cols bits per weight where 5 divides cols.
 *
 *   codes   u8  (rows, n), n = ⌈cols/5⌉  weight c is digit ⌊c/n⌋ of byte c mod n of its row; digits beyond the last
 *                                        weight are 0
 *   scales  f16 (rows, 1)
 *
 * Five digits to base 3, the first the most significant, make a number v < 243;
 * the byte is ⌈256·v/243⌉, as in tq1_0, and digit k comes back as
 * ⌊3·(byte·3ᵏ mod 256)/256⌋. So a row is five runs of weights, and the same
 * digit of neighbouring bytes stands for neighbours.
 *
 *   value = scale·(digit − 1)
 */
export const trits: GroupFormat = {
  kind: "group",
  name: "trits",
  stem: "trits",
  spec: "lowbit: src/formats/trits.ts",
  codeBits: 1.6,
  codeCount: 3,
  groupShape: { kind: "row" },

  parts(rows, cols) {
    return [
      { name: "codes", dtype: "u8", shape: [rows, Math.ceil(cols / 5)] },
      { name: "scales", dtype: "f16", shape: [rows, 1] },
    ];
  },

  fitGroup: (w, importance) => fitTernary("trits", w, importance),
  nearest: nearestTernary,
  value: (code, { scale }) => scale * (code - 1),

  pack({ codes, parameters }, rows, cols) {
    const [codesSpec, scalesSpec] = trits.parts(rows, cols);
    const n = codesSpec.shape[1];
    const packed = new Uint8Array(rows * n);
    for (let r = 0; r < rows; r++) {
      for (let c = 0; c < cols; c++) {
        packed[r * n + (c % n)] += codes[r * cols + c] * (81 / POWERS[Math.floor(c / n)]);
      }
    }
    const bytes = packed.map((v) => Math.ceil((256 * v) / 243));
    const scales = Float16Array.from(parameters, ({ scale }) => scale);
    return { codes: partOf("u8", codesSpec.shape, bytes), scales: partOf("f16", scalesSpec.shape, scales) };
  },

  unpack(parts, rows, cols) {
    const { bytes } = parts.codes;
    const n = Math.ceil(cols / 5);
    const codes = new Uint8Array(rows * cols);
    for (let r = 0; r < rows; r++) {
      for (let c = 0; c < cols; c++) {
        codes[r * cols + c] = (3 * ((bytes[r * n + (c % n)] * POWERS[Math.floor(c / n)]) & 255)) >> 8;
      }
    }
    const parameters = Array.from(elements(parts.scales, Float16Array), (scale) => ({ scale, offset: 0 }));
    return { codes, parameters };
  },
};

const POWERS = [1, 3, 9, 27, 81];
