import { elements, type OpaqueFormat, partOf, storeF16 } from "./format.ts";

/**
 * IEEE half precision, little-endian: one part, `data` (rows, cols).
 * 16 bits per weight: 11 significant bits, up to 65,504. A finite weight that
 * would become infinite is an InputError; NaN and infinity are kept.
 */
export const f16: OpaqueFormat = {
  kind: "opaque",
  name: "f16",
  stem: "f16",
  spec: "IEEE 754 binary16",
  codeBits: 16,
  groupShape: { kind: "element" },
  parts: (rows, cols) => [{ name: "data", dtype: "f16", shape: [rows, cols] }],
  encode(w, rows, cols) {
    const data = new Float16Array(w);
    for (let i = 0; i < data.length; i++) {
      if (Math.abs(data[i]) === Infinity && Number.isFinite(w[i])) storeF16("f16", "size", w[i]);
    }
    return { data: partOf("f16", [rows, cols], data) };
  },
  decode: (parts) => Float32Array.from(elements(parts.data, Float16Array)),
};
