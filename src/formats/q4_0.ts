import { readNibbles, symmetricBlocks, writeNibbles } from "./ggml-legacy.ts";

/**
 * Q4_0: 4-bit integers, fp16 scale. 18 bytes per 32 weights (4.5 bits per weight).
 *
 *   bytes 0..1    scale, fp16
 *   bytes 2..17   codes: weight j in the low half of byte 2+j, weight 16+j in its high half
 *
 *   value = scale·(code − 8)
 */
export const q4_0 = symmetricBlocks({
  name: "q4_0",
  spec: "https://github.com/ggml-org/ggml/blob/master/src/ggml-quants.c (dequantize_row_q4_0)",
  bits: 4,
  bytes: 18,
  write: (codes, block) => writeNibbles(codes, block, 2),
  read: (block, codes) => readNibbles(block, 2, codes),
});
