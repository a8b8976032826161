import { BLOCK, ternaryBlocks } from "./ternary.ts";

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
export const tq1_0 = ternaryBlocks({
  name: "tq1_0",
  spec: "https://github.com/ggml-org/ggml/blob/master/src/ggml-quants.c (dequantize_row_tq1_0)",
  codeBits: 1.625, // 52 of the 54 bytes
  codeBytes: 52,
  write(codes, bytes) {
    for (let n = 0; n < BLOCK; n++) bytes[BYTE_OF[n]] += codes[n] * (81 / POWER_OF[n]); // v ≤ 242
    for (let b = 0; b < bytes.length; b++) bytes[b] = Math.ceil((256 * bytes[b]) / 243);
  },
  read: (bytes, n) => (3 * ((bytes[BYTE_OF[n]] * POWER_OF[n]) & 255)) >> 8,
});

/** Byte of weight n, and 3 to the power of its digit's place. */
const BYTE_OF = new Uint8Array(BLOCK);
const POWER_OF = new Uint8Array(BLOCK);
for (let n = 0; n < BLOCK; n++) {
  const [first, width, byte] = n < 160 ? [0, 32, 0] : n < 240 ? [160, 16, 32] : [240, 4, 48];
  BYTE_OF[n] = byte + ((n - first) % width);
  POWER_OF[n] = 3 ** Math.floor((n - first) / width);
}
