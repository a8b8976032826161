import { sizeOf } from "../tensor/tensor.ts";
import { elements, type OpaqueFormat, partOf, storeF16 } from "./format.ts";

/** Numbers of one step and offset. */
const BLOCK = 256;

/**
 * Numbers in 8 bits, for scales and other things that are few: the matrix, row by row, is cut into blocks of 256, each with a
 * step and an offset of its own. 8.125 bits a number.
 *
 *   codes    u8  (rows, cols)
 *   steps    f16 (blocks)      (max − offset)/255
 *   offsets  f16 (blocks)      min
 *
 *   value = f32(f32(step·code) + offset)
 */
export const affine8: OpaqueFormat = {
  kind: "opaque",
  name: "affine8",
  stem: "affine8",
  spec: "lowbit: src/formats/affine8.ts",
  codeBits: 8,
  groupShape: { kind: "tensor" },

  parts(rows, cols) {
    const blocks = Math.ceil((rows * cols) / BLOCK);
    return [
      { name: "codes", dtype: "u8", shape: [rows, cols] },
      { name: "steps", dtype: "f16", shape: [blocks] },
      { name: "offsets", dtype: "f16", shape: [blocks] },
    ];
  },

  encode(w, rows, cols) {
    const [codesSpec, stepsSpec, offsetsSpec] = affine8.parts(rows, cols);
    const codes = new Uint8ClampedArray(sizeOf(codesSpec.shape)); // rounds halves to even
    const steps = new Float16Array(stepsSpec.shape[0]);
    const offsets = new Float16Array(stepsSpec.shape[0]);
    for (let b = 0; b < steps.length; b++) {
      const block = w.subarray(b * BLOCK, (b + 1) * BLOCK);
      const offset = storeF16(
        "affine8",
        "offset",
        block.reduce((least, x) => Math.min(least, x)),
      );
      const most = block.reduce((greatest, x) => Math.max(greatest, x));
      const step = storeF16("affine8", "step", (most - offset) / 255);
      for (let i = 0; i < block.length && step > 0; i++) codes[b * BLOCK + i] = (block[i] - offset) / step;
      steps[b] = step;
      offsets[b] = offset;
    }
    return {
      codes: partOf("u8", codesSpec.shape, codes),
      steps: partOf("f16", stepsSpec.shape, steps),
      offsets: partOf("f16", offsetsSpec.shape, offsets),
    };
  },

  decode({ codes, steps, offsets }, rows, cols) {
    const [step, offset] = [elements(steps, Float16Array), elements(offsets, Float16Array)];
    return Float32Array.from({ length: rows * cols }, (_, i) => {
      const b = Math.floor(i / BLOCK);
      return Math.fround(step[b] * codes.bytes[i]) + offset[b];
    });
  },
};
