import { InputError } from "./tensor.ts";
import { type Part, partsOf, type Weight } from "./weight.ts";

// All exponent bits set: infinity or NaN.
const EXPONENT = { f32: 0x7f800000, f16: 0x7c00, bf16: 0x7f80 } as const;

/** Throws an InputError that names the first NaN or infinity among a weight's stored floats: values, scales, offsets. */
export function checkFinite(model: string, name: string, weight: Weight): void {
  for (const [path, part] of partsOf(weight)) {
    const at = firstNotFinite(part);
    if (at === -1) continue;
    throw new InputError(
      `${model}: tensor ${name} (${path}) has NaN or infinity at element ${at}; the file is damaged`,
    );
  }
}

function firstNotFinite({ dtype, bytes }: Part): number {
  if (dtype !== "f32" && dtype !== "f16" && dtype !== "bf16") return -1;
  const mask = EXPONENT[dtype];
  const words = dtype === "f32" ? words32(bytes) : words16(bytes);
  for (let i = 0; i < words.length; i++) if ((words[i] & mask) === mask) return i;
  return -1;
}

function words32(bytes: Uint8Array): Uint32Array {
  const aligned = bytes.byteOffset % 4 === 0 ? bytes : bytes.slice();
  return new Uint32Array(aligned.buffer, aligned.byteOffset, bytes.byteLength / 4);
}

function words16(bytes: Uint8Array): Uint16Array {
  const aligned = bytes.byteOffset % 2 === 0 ? bytes : bytes.slice();
  return new Uint16Array(aligned.buffer, aligned.byteOffset, bytes.byteLength / 2);
}
