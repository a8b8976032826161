import { kQuant, superblock } from "./k-quant.ts";
import { readPlanes, readSixBits, writePlanes, writeSixBits } from "./k-quant-bytes.ts";
import { fitOffsets } from "./k-quant-fit.ts";

const name = "q4_k";
const fit = {
  name,
  subgroups: 8,
  top: 15,
  subTop: 63,
  plain: { first: -1, step: 0.1, steps: 20 },
  weighted: { first: -0.9, step: 0.05, steps: 36 },
  spread: 2,
} as const;

/**
 * Q4_K: 4-bit codes, 8 subgroups of 32 weights with 6-bit scales and offsets. 144 bytes per 256 weights
 * (4.5 bits per weight); one part, `codes` (rows, 144·cols/256).
 *
 *   bytes 0..1     scale, fp16
 *   bytes 2..3     −offset, fp16
 *   bytes 4..15    sub and subOffset of the subgroups g = ⌊n/32⌋: see writeSixBits in k-quant-bytes.ts
 *   bytes 16..143  codes: weight n sits in byte 16 + 32·⌊n/64⌋ + n mod 32, at bit 4·⌊(n mod 64)/32⌋
 *
 *   value = scale·sub·code + offset·subOffset
 */
export const q4_k = kQuant({
  name,
  source: "dequantize_row_q4_K",
  codeBits: 4,
  subgroups: 8,
  offsets: true,
  middle: 0,
  subTop: 63,
  bytes: 144,
  fit: (x, importance, codes) => fitOffsets(fit, x, importance, codes),

  write(codes, parameters, bytes, view) {
    view.setFloat16(0, parameters.scale, true);
    view.setFloat16(2, -parameters.offset, true);
    writeSixBits(parameters, bytes.subarray(4, 16));
    writePlanes(codes, 0, 4, 32, bytes.subarray(16));
  },

  read(bytes, view, codes) {
    readPlanes(bytes.subarray(16), 0, 4, 32, codes);
    const { sub, subOffset } = readSixBits(bytes.subarray(4, 16));
    return superblock(view.getFloat16(0, true), -view.getFloat16(2, true), sub, subOffset);
  },
});
