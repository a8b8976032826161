import { elements, type OpaqueFormat, partOf } from "./format.ts";

/**
 * IEEE single precision, little-endian: one part, `data` (rows, cols).
 * 32 bits per weight; every value is kept, NaN and infinity too.
 */
export const f32: OpaqueFormat = {
  kind: "opaque",
  name: "f32",
  stem: "f32",
  spec: "IEEE 754 binary32",
  codeBits: 32,
  groupShape: { kind: "element" },
  parts: (rows, cols) => [{ name: "data", dtype: "f32", shape: [rows, cols] }],
  encode: (w, rows, cols) => ({ data: partOf("f32", [rows, cols], w.slice()) }),
  decode: (parts) => elements(parts.data, Float32Array).slice(),
};
