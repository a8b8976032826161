import { storeF16 } from "./format.ts";
import { fitLargestSigned, fitSigned, fitSignedByTurns } from "./ggml-search.ts";
import { kQuant, superblock } from "./k-quant.ts";
import { readPlanes, writePlanes } from "./k-quant-bytes.ts";
import { massOf, superblockWeights } from "./k-quant-fit.ts";

const name = "q3_k";

/**
 * Q3_K: 3-bit codes, 16 subgroups of 16 weights with signed 6-bit scales. 110 bytes per 256 weights
 * (3.4375 bits per weight); one part, `codes` (rows, 110·cols/256).
 *
 *   bytes 0..31     bit 2 of the codes: that of weight n sits in byte n mod 32, at bit ⌊n/32⌋
 *   bytes 32..95    bits 0–1: those of weight n sit in byte 32 + 32·⌊n/128⌋ + n mod 32, at bit 2·⌊(n mod 128)/32⌋
 *   bytes 96..107   s = sub + 32 of the subgroups g = ⌊n/16⌋: bits 0–3 of s in byte 96 + g mod 8, at bit 4·⌊g/8⌋;
 *                   bits 4–5 in byte 104 + g mod 4, at bit 2·⌊g/4⌋
 *   bytes 108..109  scale, fp16
 *
 *   value = scale·sub·(code − 4)
 */
export const q3_k = kQuant({
  name,
  source: "dequantize_row_q3_K",
  codeBits: 3,
  subgroups: 16,
  offsets: false,
  middle: 4,
  subTop: 32,
  bytes: 110,

  // With importance the error² of x counts importance·√(2·mean(x²) + x²), and the scales are searched for in the same
  // way as the weights; without, x², and the scale of largest size stands at −32.
  fit(x, importance, codes) {
    const scales = new Float64Array(16);
    const whole = new Float64Array(16);
    if (!importance) {
      for (let g = 0; g < 16; g++) scales[g] = fitSignedByTurns(x, 16 * g, 16, 4, codes);
      const scale = fitLargestSigned(scales, 32, whole);
      if (scale === 0) whole.fill(-32);
      return superblock(storeF16(name, "scale", scale), 0, Int8Array.from(whole));
    }
    const weights = superblockWeights(x, importance, 2);
    const masses = new Float64Array(16);
    for (let g = 0; g < 16; g++) {
      masses[g] = massOf(weights, 16 * g, 16);
      scales[g] = fitSigned(x, weights, 16 * g, 16, 4, codes);
    }
    const scale = fitSigned(scales, masses, 0, 16, 32, whole);
    const sub = Int8Array.from(whole, (s) => s - 32);
    return superblock(storeF16(name, "scale", scale), 0, sub);
  },

  write(codes, { scale, sub }, bytes, view) {
    writePlanes(codes, 2, 1, 32, bytes.subarray(0, 32));
    writePlanes(codes, 0, 2, 32, bytes.subarray(32, 96));
    for (let g = 0; g < 16; g++) {
      const s = sub[g] + 32;
      bytes[96 + (g & 7)] |= (s & 15) << (4 * (g >> 3));
      bytes[104 + (g & 3)] |= (s >> 4) << (2 * (g >> 2));
    }
    view.setFloat16(108, scale, true);
  },

  read(bytes, view, codes) {
    readPlanes(bytes.subarray(0, 32), 2, 1, 32, codes);
    readPlanes(bytes.subarray(32, 96), 0, 2, 32, codes);
    const sub = Int8Array.from({ length: 16 }, (_, g) => {
      const low = (bytes[96 + (g & 7)] >> (4 * (g >> 3))) & 15;
      const high = (bytes[104 + (g & 3)] >> (2 * (g >> 2))) & 3;
      return low + 16 * high - 32;
    });
    return superblock(view.getFloat16(108, true), 0, sub);
  },
});
