import { checkGroup, type GroupFormat, type Parameters, partOf } from "./format.ts";
import { BLOCK, fitTernary, nearestTernary } from "./ternary.ts";

const BYTES = 54;

/**
 * TQ1_0: ternary, five weights to a byte, fp16 scale. 54 bytes per 256
 * weights (1.6875 bits per weight); one part, `codes` (rows, 54·cols/256).
 *
 *   bytes 0..31   weights 0..159:   weight n is digit ⌊n/32⌋ of byte n mod 32
 *   bytes 32..47  weights 160..239: weight 160+n is digit ⌊n/16⌋ of byte 32 + n mod 16
 *   bytes 48..51  weights 240..255: weight 240+n is digit ⌊n/4⌋ of byte 48 + n mod 4
 *   bytes 52..53  scale, fp16
 *
 * Five digits to base 3, the first the most significant, make a number
 * v < 243 (the fifth digit of bytes 48..51 is 0); the byte is the fraction
 * v/243 in 256ths, rounded up: ⌈256·v/243⌉. Digit k comes back without a
 * division: ⌊3·(byte·3ᵏ mod 256)/256⌋.
 *
 *   value = scale·(digit − 1)
 */
export const tq1_0: GroupFormat = {
  kind: "group",
  name: "tq1_0",
  stem: "tq1_0",
  spec: "https://github.com/ggml-org/ggml/blob/master/src/ggml-quants.c (dequantize_row_tq1_0)",
  codeBits: 1.625, // 52 of the 54 bytes
  codeCount: 3,
  groupShape: { kind: "group", size: BLOCK },

  parts(rows, cols) {
    checkGroup("tq1_0", cols, BLOCK);
    return [{ name: "codes", dtype: "u8", shape: [rows, (cols / BLOCK) * BYTES] }];
  },

  fitGroup: (w, importance) => fitTernary("tq1_0", w, importance),
  nearest: nearestTernary,
  value: (code, { scale }) => scale * (code - 1),

  pack({ codes, parameters }, rows, cols) {
    const [{ shape }] = tq1_0.parts(rows, cols);
    const bytes = new Uint8Array(rows * shape[1]);
    const view = new DataView(bytes.buffer);
    const numbers = new Uint8Array(52);
    for (const [block, { scale }] of parameters.entries()) {
      const at = block * BYTES;
      numbers.fill(0);
      for (let n = 0; n < BLOCK; n++) numbers[BYTE_OF[n]] += codes[block * BLOCK + n] * (81 / POWER_OF[n]);
      for (let b = 0; b < 52; b++) bytes[at + b] = Math.ceil((256 * numbers[b]) / 243);
      view.setFloat16(at + 52, scale, true);
    }
    return { codes: partOf("u8", shape, bytes) };
  },

  unpack(parts, rows, cols) {
    const { bytes } = parts.codes;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const codes = new Uint8Array(rows * cols);
    const parameters: Parameters[] = [];
    for (let block = 0; block < codes.length / BLOCK; block++) {
      const at = block * BYTES;
      for (let n = 0; n < BLOCK; n++) {
        const fraction = (bytes[at + BYTE_OF[n]] * POWER_OF[n]) & 255;
        codes[block * BLOCK + n] = (3 * fraction) >> 8;
      }
      parameters.push({ scale: view.getFloat16(at + 52, true), offset: 0 });
    }
    return { codes, parameters };
  },
};

/** Byte of weight n, and 3 to the power of its digit's place. */
const BYTE_OF = new Uint8Array(BLOCK);
const POWER_OF = new Uint8Array(BLOCK);
for (let n = 0; n < BLOCK; n++) {
  const [first, width, byte] = n < 160 ? [0, 32, 0] : n < 240 ? [160, 16, 32] : [240, 4, 48];
  BYTE_OF[n] = byte + ((n - first) % width);
  POWER_OF[n] = 3 ** Math.floor((n - first) / width);
}
