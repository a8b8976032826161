import { SUPERBLOCK, type Superblock } from "./k-quant.ts";

/**
 * Writes bits of 256 codes into planes: runs of `run` bytes, whose lowest `bits` are those of the first `run` weights,
 * the next of the next `run`, until the bytes are full; from bit `from` of the codes on.
 */
export function writePlanes(
  codes: Uint8Array,
  from: number,
  bits: number,
  run: number,
  bytes: Uint8Array,
): void {
  const mask = 2 ** bits - 1;
  for (let n = 0, first = 0; n < SUPERBLOCK; first += run) {
    for (let bit = 0; bit < 8; bit += bits) {
      for (let i = 0; i < run; i++) bytes[first + i] |= ((codes[n++] >> from) & mask) << bit;
    }
  }
}

/** Adds to codes, from bit `from` on, what `writePlanes` wrote. */
export function readPlanes(
  bytes: Uint8Array,
  from: number,
  bits: number,
  run: number,
  codes: Uint8Array,
): void {
  const mask = 2 ** bits - 1;
  for (let n = 0, first = 0; n < SUPERBLOCK; first += run) {
    for (let bit = 0; bit < 8; bit += bits) {
      for (let i = 0; i < run; i++) codes[n++] |= ((bytes[first + i] >> bit) & mask) << from;
    }
  }
}

/**
 * Six-bit scales s and offsets o of eight subgroups in 12 bytes, as q4_k and q5_k have them, for g = 0 … 3:
 *
 *   byte g      bits 0–5 of s[g],  then bits 4–5 of s[g+4]
 *   byte g+4    bits 0–5 of o[g],  then bits 4–5 of o[g+4]
 *   byte g+8    bits 0–3 of s[g+4], then bits 0–3 of o[g+4]
 */
export function writeSixBits({ sub, subOffset }: Superblock, bytes: Uint8Array): void {
  for (let g = 0; g < 4; g++) {
    bytes[g] = sub[g] | ((sub[g + 4] >> 4) << 6);
    bytes[g + 4] = subOffset[g] | ((subOffset[g + 4] >> 4) << 6);
    bytes[g + 8] = (sub[g + 4] & 15) | ((subOffset[g + 4] & 15) << 4);
  }
}

/** The scales and offsets of `writeSixBits`. */
export function readSixBits(bytes: Uint8Array): { sub: Int8Array; subOffset: Uint8Array } {
  const sub = new Int8Array(8);
  const subOffset = new Uint8Array(8);
  for (let g = 0; g < 4; g++) {
    sub[g] = bytes[g] & 63;
    subOffset[g] = bytes[g + 4] & 63;
    sub[g + 4] = (bytes[g + 8] & 15) | ((bytes[g] >> 6) << 4);
    subOffset[g + 4] = (bytes[g + 8] >> 4) | ((bytes[g + 4] >> 6) << 4);
  }
  return { sub, subOffset };
}
