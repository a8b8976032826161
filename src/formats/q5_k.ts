import { kQuant, superblock } from "./k-quant.ts";
import { readPlanes, readSixBits, writePlanes, writeSixBits } from "./k-quant-bytes.ts";
import { fitOffsets } from "./k-quant-fit.ts";

const name = "q5_k";
const fit = {
  name,
  subgroups: 8,
  top: 31,
  subTop: 63,
  plain: { first: -0.5, step: 0.1, steps: 15 },
  weighted: { first: -0.9, step: 0.05, steps: 36 },
  spread: 2,
} as const;

/**
 * Q5_K: 5-bit codes, 8 subgroups of 32 weights with 6-bit scales and offsets. 176 bytes per 256 weights
 * (5.5 bits per weight); one part, `codes` (rows, 176·cols/256).
 *
 *   bytes 0..1     scale, fp16
 *   bytes 2..3     −offset, fp16
 *   bytes 4..15    sub and subOffset of the subgroups g = ⌊n/32⌋: see writeSixBits in k-quant-bytes.ts
 *   bytes 16..47   bit 4 of the codes: that of weight n sits in byte 16 + n mod 32, at bit ⌊n/32⌋
 *   bytes 48..175  bits 0–3: those of weight n sit in byte 48 + 32·⌊n/64⌋ + n mod 32, at bit 4·⌊(n mod 64)/32⌋
 *
 *   value = scale·sub·code + offset·subOffset
 */
export const q5_k = kQuant({
  name,
  source: "dequantize_row_q5_K",
  codeBits: 5,
  subgroups: 8,
  offsets: true,
  middle: 0,
  subTop: 63,
  bytes: 176,
  fit: (x, importance, codes) => fitOffsets(fit, x, importance, codes),

  write(codes, parameters, bytes, view) {
    view.setFloat16(0, parameters.scale, true);
    view.setFloat16(2, -parameters.offset, true);
    writeSixBits(parameters, bytes.subarray(4, 16));
    writePlanes(codes, 4, 1, 32, bytes.subarray(16, 48));
    writePlanes(codes, 0, 4, 32, bytes.subarray(48));
  },

  read(bytes, view, codes) {
    readPlanes(bytes.subarray(16, 48), 4, 1, 32, codes);
    readPlanes(bytes.subarray(48), 0, 4, 32, codes);
    const { sub, subOffset } = readSixBits(bytes.subarray(4, 16));
    return superblock(view.getFloat16(0, true), -view.getFloat16(2, true), sub, subOffset);
  },
});
