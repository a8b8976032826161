import { offsetBlocks, readFifthBits, readNibbles, writeFifthBits, writeNibbles } from "./ggml-legacy.ts";

/**
 * Q5_1: 5-bit integers, fp16 scale and offset. 24 bytes per 32 weights (6 bits per weight).
 *
 *   bytes 0..1    scale, fp16
 *   bytes 2..3    offset, fp16
 *   bytes 4..7    fifth bits: that of weight j is bit j of the word
 *   bytes 8..23   low four bits: weight j in the low half of byte 8+j, weight 16+j in its high half
 *
 *   value = scale·code + offset
 */
export const q5_1 = offsetBlocks({
  name: "q5_1",
  spec: "https://github.com/ggml-org/ggml/blob/master/src/ggml-quants.c (dequantize_row_q5_1)",
  bits: 5,
  bytes: 24,
  write(codes, block) {
    writeFifthBits(codes, block, 4);
    writeNibbles(codes, block, 8);
  },
  read(block, codes) {
    readNibbles(block, 8, codes);
    readFifthBits(block, 4, codes);
  },
});
