/** 16-bit floats: conversions between their bits and numbers, round to nearest, ties to even. */

const f16 = new Float16Array(1);
const f16Bits = new Uint16Array(f16.buffer);
const f32 = new Float32Array(1);
const f32Bits = new Uint32Array(f32.buffer);

/** The nearest IEEE half-precision value; infinite above 65,504 + half a step. */
export function roundF16(x: number): number {
  return Math.f16round(x);
}

export function f16ToBits(x: number): number {
  f16[0] = x;
  return f16Bits[0];
}

export function f16FromBits(bits: number): number {
  f16Bits[0] = bits;
  return f16[0];
}

/** bf16 is the upper half of a float32; a NaN keeps its sign and becomes quiet. */
export function bf16ToBits(x: number): number {
  f32[0] = x;
  const bits = f32Bits[0];
  if (Number.isNaN(f32[0])) return (bits >>> 16) | 0x40;
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16) & 0xffff;
}

export function bf16FromBits(bits: number): number {
  f32Bits[0] = (bits << 16) >>> 0;
  return f32[0];
}

export function roundBf16(x: number): number {
  return bf16FromBits(bf16ToBits(x));
}
