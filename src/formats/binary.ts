import { elements, type GroupFormat, partOf, storeF16 } from "./format.ts";

/**
 * Signs with one fp16 scale for each row: 1 + 16/cols bits per weight.
 *
 *   codes   u8  (rows, ⌈cols/8⌉)  weight c is bit c mod 8 of byte ⌊c/8⌋; a row starts on a byte, unused bits are 0
 *   scales  f16 (rows, 1)
 *
 *   value = scale·(2·code − 1): −scale where the bit is 0, scale where it is 1
 *
 * The plain scale is mean|w|, which has the least error Σ (w − ŵ)² with the
 * signs of w (Rastegari et al., 2016, https://arxiv.org/abs/1603.05279).
 */
export const binary: GroupFormat = {
  kind: "group",
  name: "binary",
  stem: "binary",
  spec: "lowbit: src/formats/binary.ts",
  codeBits: 1,
  codeCount: 2,
  groupShape: { kind: "row" },

  parts(rows, cols) {
    return [
      { name: "codes", dtype: "u8", shape: [rows, Math.ceil(cols / 8)] },
      { name: "scales", dtype: "f16", shape: [rows, 1] },
    ];
  },

  fitGroup(w, importance) {
    let sum = 0;
    let mass = 0;
    for (let i = 0; i < w.length; i++) {
      const m = importance ? importance[i] : 1;
      sum += m * Math.abs(w[i]);
      mass += m;
    }
    const scale = mass > 0 ? sum / mass : 0;
    // Kernels take a weight as 2·scale·code − scale: twice the scale has to be an fp16 number too.
    storeF16("binary", "scale (twice)", 2 * scale);
    return { scale: storeF16("binary", "scale", scale), offset: 0 };
  },

  // The sign of −0 is that of 0.
  nearest: (w, { scale }) => (w * Math.sign(scale) < 0 ? 0 : 1),
  value: (code, { scale }) => (code === 0 ? -scale : scale),

  pack({ codes, parameters }, rows, cols) {
    const [codesSpec, scalesSpec] = binary.parts(rows, cols);
    const width = codesSpec.shape[1];
    const packed = new Uint8Array(rows * width);
    for (let r = 0; r < rows; r++) {
      for (let c = 0; c < cols; c++) packed[r * width + (c >> 3)] |= codes[r * cols + c] << (c & 7);
    }
    const scales = Float16Array.from(parameters, ({ scale }) => scale);
    return { codes: partOf("u8", codesSpec.shape, packed), scales: partOf("f16", scalesSpec.shape, scales) };
  },

  unpack(parts, rows, cols) {
    const { bytes } = parts.codes;
    const width = Math.ceil(cols / 8);
    const codes = new Uint8Array(rows * cols);
    for (let r = 0; r < rows; r++) {
      for (let c = 0; c < cols; c++) codes[r * cols + c] = (bytes[r * width + (c >> 3)] >> (c & 7)) & 1;
    }
    const parameters = Array.from(elements(parts.scales, Float16Array), (scale) => ({ scale, offset: 0 }));
    return { codes, parameters };
  },
};
