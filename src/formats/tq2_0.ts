import { BLOCK, ternaryBlocks } from "./ternary.ts";

/**
 * TQ2_0: ternary, 2 bits per weight, fp16 scale. 66 bytes per 256 weights
 * (2.0625 bits per weight); one part, `codes` (rows, 66·cols/256).
 *
 *   bytes 0..63   2-bit codes: weight n sits in byte 32·⌊n/128⌋ + n mod 32,
 *                 at bit 2·⌊(n mod 128)/32⌋
 *   bytes 64..65  scale, fp16
 *
 *   value = scale·(code − 1); ggml writes codes 0, 1, 2 and reads a 3 as 2·scale
 */
export const tq2_0 = ternaryBlocks({
  name: "tq2_0",
  spec: "https://github.com/ggml-org/ggml/blob/master/src/ggml-quants.c (dequantize_row_tq2_0)",
  codeBits: 2,
  codeBytes: 64,
  write(codes, bytes) {
    for (let n = 0; n < BLOCK; n++) bytes[byteOf(n)] |= codes[n] << bitOf(n);
  },
  read: (bytes, n) => (bytes[byteOf(n)] >> bitOf(n)) & 3,
});

function byteOf(n: number): number {
  return ((n >> 7) << 5) | (n & 31);
}

function bitOf(n: number): number {
  return ((n & 127) >> 5) << 1;
}
