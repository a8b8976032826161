import { checkGroup, type GroupFormat, type Parameters, partOf } from "./format.ts";
import { BLOCK, fitTernary, nearestTernary } from "./ternary.ts";

const BYTES = 66;

/**
 * TQ2_0: ternary, 2 bits per weight, fp16 scale. 66 bytes per 256 weights
 * (2.0625 bits per weight); one part, `codes` (rows, 66·cols/256).
 *
 *   bytes 0..63   2-bit codes: weight n sits in byte 32·⌊n/128⌋ + n mod 32,
 *                 at bit 2·⌊(n mod 128)/32⌋
 *   bytes 64..65  scale, fp16
 *
 *   value = scale·(code − 1); ggml writes codes 0, 1, 2 and reads a 3 as 2·scale
 */
export const tq2_0: GroupFormat = {
  kind: "group",
  name: "tq2_0",
  stem: "tq2_0",
  spec: "https://github.com/ggml-org/ggml/blob/master/src/ggml-quants.c (dequantize_row_tq2_0)",
  codeBits: 2,
  codeCount: 3,
  groupShape: { kind: "group", size: BLOCK },

  parts(rows, cols) {
    checkGroup("tq2_0", cols, BLOCK);
    return [{ name: "codes", dtype: "u8", shape: [rows, (cols / BLOCK) * BYTES] }];
  },

  fitGroup: (w, importance) => fitTernary("tq2_0", w, importance),
  nearest: nearestTernary,
  value: (code, { scale }) => scale * (code - 1),

  pack({ codes, parameters }, rows, cols) {
    const [{ shape }] = tq2_0.parts(rows, cols);
    const bytes = new Uint8Array(rows * shape[1]);
    const view = new DataView(bytes.buffer);
    for (const [block, { scale }] of parameters.entries()) {
      const at = block * BYTES;
      for (let n = 0; n < BLOCK; n++) bytes[at + byteOf(n)] |= codes[block * BLOCK + n] << bitOf(n);
      view.setFloat16(at + 64, scale, true);
    }
    return { codes: partOf("u8", shape, bytes) };
  },

  unpack(parts, rows, cols) {
    const { bytes } = parts.codes;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const codes = new Uint8Array(rows * cols);
    const parameters: Parameters[] = [];
    for (let block = 0; block < codes.length / BLOCK; block++) {
      const at = block * BYTES;
      for (let n = 0; n < BLOCK; n++) codes[block * BLOCK + n] = (bytes[at + byteOf(n)] >> bitOf(n)) & 3;
      parameters.push({ scale: view.getFloat16(at + 64, true), offset: 0 });
    }
    return { codes, parameters };
  },
};

function byteOf(n: number): number {
  return ((n >> 7) << 5) | (n & 31);
}

function bitOf(n: number): number {
  return ((n & 127) >> 5) << 1;
}
