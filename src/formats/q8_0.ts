import { halfAway, halfEven } from "../tensor/rounding.ts";
import { type Parameters, storeF16 } from "./format.ts";
import { ggmlFormat } from "./ggml-block.ts";
import { BLOCK, furthest, needFinite, shrinking } from "./ggml-legacy.ts";

const f = Math.fround;

/**
 * Q8_0: 8-bit integers, fp16 scale. 34 bytes per 32 weights (8.5 bits per weight).
 *
 *   bytes 0..1    scale, fp16
 *   bytes 2..33   weight j as a signed byte, code − 128
 *
 *   value = scale·(code − 128), scale = max|w|/127; ggml takes no account of importance
 */
export const q8_0 = ggmlFormat({
  name: "q8_0",
  spec: "https://github.com/ggml-org/ggml/blob/master/src/ggml-quants.c (dequantize_row_q8_0)",
  codeBits: 8,
  codeCount: 256,
  size: BLOCK,
  bytes: 34,

  fitGroup: (w) => parameters(plainScale(w)),

  *candidates(w) {
    const plain = plainScale(w);
    for (const p of shrinking) yield parameters(p * plain);
  },

  nearest(w, { scale }) {
    if (scale === 0) return 128;
    return Math.max(0, Math.min(255, halfEven(w / scale) + 128));
  },

  value: (code, { scale }) => scale * (code - 128),

  quantizeGroup(w) {
    const scale = plainScale(w);
    const inverseScale = scale === 0 ? 0 : f(1 / scale);
    const codes = new Uint8Array(BLOCK);
    for (let i = 0; i < BLOCK; i++) codes[i] = halfAway(f(w[i] * inverseScale)) + 128;
    return { codes, parameters: parameters(scale) };
  },

  write(codes, { scale }, block) {
    block.setFloat16(0, scale, true);
    for (let i = 0; i < BLOCK; i++) block.setInt8(2 + i, codes[i] - 128);
  },

  read(block, codes) {
    for (let i = 0; i < BLOCK; i++) codes[i] = block.getInt8(2 + i) + 128;
    return { scale: block.getFloat16(0, true), offset: 0 };
  },
});

function plainScale(w: Float32Array): number {
  needFinite("q8_0", w);
  return f(Math.abs(furthest(w)) / 127);
}

function parameters(scale: number): Parameters {
  return { scale: storeF16("q8_0", "scale", scale), offset: 0 };
}
