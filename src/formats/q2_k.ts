import { kQuant, superblock } from "./k-quant.ts";
import { readPlanes, writePlanes } from "./k-quant-bytes.ts";
import { fitOffsets } from "./k-quant-fit.ts";

const name = "q2_k";
const fit = {
  name,
  subgroups: 16,
  top: 3,
  subTop: 15,
  plain: { first: -0.5, step: 0.1, steps: 15, absolute: true },
  weighted: { first: -0.9, step: 0.05, steps: 36 },
  spread: 1,
} as const;

/**
 * Q2_K: 2-bit codes, 16 subgroups of 16 weights with 4-bit scales and offsets. 84 bytes per 256 weights
 * (2.625 bits per weight); one part, `codes` (rows, 84·cols/256).
 *
 *   bytes 0..15   subgroup g = ⌊n/16⌋: sub in bits 0–3, subOffset in bits 4–7 of byte g
 *   bytes 16..79  codes: weight n sits in byte 16 + 32·⌊n/128⌋ + n mod 32, at bit 2·⌊(n mod 128)/32⌋
 *   bytes 80..81  scale, fp16
 *   bytes 82..83  −offset, fp16
 *
 *   value = scale·sub·code + offset·subOffset
 */
export const q2_k = kQuant({
  name,
  source: "dequantize_row_q2_K",
  codeBits: 2,
  subgroups: 16,
  offsets: true,
  middle: 0,
  subTop: 15,
  bytes: 84,
  fit: (x, importance, codes) => fitOffsets(fit, x, importance, codes),

  write(codes, { scale, offset, sub, subOffset }, bytes, view) {
    for (let g = 0; g < 16; g++) bytes[g] = sub[g] | (subOffset[g] << 4);
    writePlanes(codes, 0, 2, 32, bytes.subarray(16, 80));
    view.setFloat16(80, scale, true);
    view.setFloat16(82, -offset, true);
  },

  read(bytes, view, codes) {
    readPlanes(bytes.subarray(16, 80), 0, 2, 32, codes);
    const sub = Int8Array.from({ length: 16 }, (_, g) => bytes[g] & 15);
    const subOffset = Uint8Array.from({ length: 16 }, (_, g) => bytes[g] >> 4);
    return superblock(view.getFloat16(80, true), -view.getFloat16(82, true), sub, subOffset);
  },
});
