import { storeF16 } from "./format.ts";
import { fitLargestSigned, fitSigned } from "./ggml-search.ts";
import { kQuant, superblock } from "./k-quant.ts";
import { readPlanes, writePlanes } from "./k-quant-bytes.ts";

const name = "q6_k";

/**
 * Q6_K: 6-bit codes, 16 subgroups of 16 weights with signed 8-bit scales. 210 bytes per 256 weights
 * (6.5625 bits per weight); one part, `codes` (rows, 210·cols/256).
 *
 *   bytes 0..127    bits 0–3 of the codes: those of weight n sit in byte 64·⌊n/128⌋ + n mod 64, at bit 4·⌊(n mod 128)/64⌋
 *   bytes 128..191  bits 4–5: those of weight n sit in byte 128 + 32·⌊n/128⌋ + n mod 32, at bit 2·⌊(n mod 128)/32⌋
 *   bytes 192..207  sub of the subgroups g = ⌊n/16⌋, −128 … 127
 *   bytes 208..209  scale, fp16
 *
 *   value = scale·sub·(code − 32)
 */
export const q6_k = kQuant({
  name,
  source: "dequantize_row_q6_K",
  codeBits: 6,
  subgroups: 16,
  offsets: false,
  middle: 32,
  subTop: 127,
  bytes: 210,

  // Without importance the error² of x counts x². The scale of largest size stands at −128.
  fit(x, importance, codes) {
    const weights = importance ? Float64Array.from(importance) : x.map((w) => Math.fround(w * w));
    const scales = new Float64Array(16);
    for (let g = 0; g < 16; g++) scales[g] = fitSigned(x, weights, 16 * g, 16, 32, codes);
    const whole = new Float64Array(16);
    const scale = fitLargestSigned(scales, 128, whole);
    if (scale === 0) codes.fill(0);
    return superblock(storeF16(name, "scale", scale), 0, Int8Array.from(whole));
  },

  write(codes, { scale, sub }, bytes, view) {
    writePlanes(codes, 0, 4, 64, bytes.subarray(0, 128));
    writePlanes(codes, 4, 2, 32, bytes.subarray(128, 192));
    for (let g = 0; g < 16; g++) view.setInt8(192 + g, sub[g]);
    view.setFloat16(208, scale, true);
  },

  read(bytes, view, codes) {
    readPlanes(bytes.subarray(0, 128), 0, 4, 64, codes);
    readPlanes(bytes.subarray(128, 192), 4, 2, 32, codes);
    const sub = Int8Array.from({ length: 16 }, (_, g) => view.getInt8(192 + g));
    return superblock(view.getFloat16(208, true), 0, sub);
  },
});
