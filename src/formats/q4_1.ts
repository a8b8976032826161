import { offsetBlocks, readNibbles, writeNibbles } from "./ggml-legacy.ts";

/**
 * Q4_1: 4-bit integers, fp16 scale and offset. 20 bytes per 32 weights (5 bits per weight).
 *
 *   bytes 0..1    scale, fp16
 *   bytes 2..3    offset, fp16
 *   bytes 4..19   codes: weight j in the low half of byte 4+j, weight 16+j in its high half
 *
 *   value = scale·code + offset
 */
export const q4_1 = offsetBlocks({
  name: "q4_1",
  spec: "https://github.com/ggml-org/ggml/blob/master/src/ggml-quants.c (dequantize_row_q4_1)",
  bits: 4,
  bytes: 20,
  write: (codes, block) => writeNibbles(codes, block, 4),
  read: (block, codes) => readNibbles(block, 4, codes),
});
