import { readFifthBits, readNibbles, symmetricBlocks, writeFifthBits, writeNibbles } from "./ggml-legacy.ts";

/**
 * Q5_0: 5-bit integers, fp16 scale. 22 bytes per 32 weights (5.5 bits per weight).
 *
 *   bytes 0..1    scale, fp16
 *   bytes 2..5    fifth bits: that of weight j is bit j of the word
 *   bytes 6..21   low four bits: weight j in the low half of byte 6+j, weight 16+j in its high half
 *
 *   value = scale·(code − 16)
 */
export const q5_0 = symmetricBlocks({
  name: "q5_0",
  spec: "https://github.com/ggml-org/ggml/blob/master/src/ggml-quants.c (dequantize_row_q5_0)",
  bits: 5,
  bytes: 22,
  write(codes, block) {
    writeFifthBits(codes, block, 2);
    writeNibbles(codes, block, 6);
  },
  read(block, codes) {
    readNibbles(block, 6, codes);
    readFifthBits(block, 2, codes);
  },
});
