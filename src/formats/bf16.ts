import { bf16ToBits } from "../tensor/half.ts";
import { elements, type OpaqueFormat, partOf } from "./format.ts";

/**
 * bfloat16, the upper half of a float32, little-endian: one part, `data`
 * (rows, cols). 16 bits per weight: 8 significant bits, the range of float32.
 */
export const bf16: OpaqueFormat = {
  kind: "opaque",
  name: "bf16",
  stem: "bf16",
  spec: "https://en.wikipedia.org/wiki/Bfloat16_floating-point_format",
  codeBits: 16,
  groupShape: { kind: "element" },
  parts: (rows, cols) => [{ name: "data", dtype: "bf16", shape: [rows, cols] }],
  encode(w, rows, cols) {
    const bits = new Uint16Array(w.length);
    for (let i = 0; i < w.length; i++) bits[i] = bf16ToBits(w[i]);
    return { data: partOf("bf16", [rows, cols], bits) };
  },
  decode(parts) {
    const bits = elements(parts.data, Uint16Array);
    const words = new Uint32Array(bits.length);
    for (let i = 0; i < bits.length; i++) words[i] = bits[i] << 16;
    return new Float32Array(words.buffer);
  },
};
