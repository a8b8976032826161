import type { Facts } from "./format.suite.ts";

/** One weight n of a superblock's bytes, read bit by bit from the layout that the format documents. */
type Weight = (bytes: Uint8Array, n: number, half: (at: number) => number) => number;

/** Bits first … first+count−1 of a number. */
const bits = (x: number, first: number, count: number) => Math.floor(x / 2 ** first) % 2 ** count;

/** Scale and offset of subgroup g, six bits each, in the 12 bytes from `at` on. */
function sixBits(bytes: Uint8Array, at: number, g: number): [number, number] {
  const b = (i: number) => bytes[at + i];
  if (g < 4) return [bits(b(g), 0, 6), bits(b(g + 4), 0, 6)];
  return [bits(b(g + 4), 0, 4) + 16 * bits(b(g - 4), 6, 2), bits(b(g + 4), 4, 4) + 16 * bits(b(g), 6, 2)];
}

const weights: Record<string, { bytes: number; weight: Weight; missesEnd?: number }> = {
  q2_k: {
    bytes: 84,
    weight(bytes, n, half) {
      const group = bytes[Math.floor(n / 16)];
      const code = bits(bytes[16 + 32 * Math.floor(n / 128) + (n % 32)], 2 * Math.floor((n % 128) / 32), 2);
      return half(80) * bits(group, 0, 4) * code - half(82) * bits(group, 4, 4);
    },
  },
  q3_k: {
    bytes: 110,
    weight(bytes, n, half) {
      const g = Math.floor(n / 16);
      const low = bits(bytes[96 + (g % 8)], g < 8 ? 0 : 4, 4);
      const sub = low + 16 * bits(bytes[104 + (g % 4)], 2 * Math.floor(g / 4), 2) - 32;
      const two = bits(bytes[32 + 32 * Math.floor(n / 128) + (n % 32)], 2 * Math.floor((n % 128) / 32), 2);
      const third = bits(bytes[n % 32], Math.floor(n / 32), 1);
      return half(108) * sub * (two - (third ? 0 : 4));
    },
    missesEnd: 4 / 25, // ±1 in turn: the least squares scale for the codes 0 and 7 is 0.28
  },
  q4_k: {
    bytes: 144,
    weight(bytes, n, half) {
      const [sub, subOffset] = sixBits(bytes, 4, Math.floor(n / 32));
      const code = bits(bytes[16 + 32 * Math.floor(n / 64) + (n % 32)], n % 64 < 32 ? 0 : 4, 4);
      return half(0) * sub * code - half(2) * subOffset;
    },
  },
  q5_k: {
    bytes: 176,
    weight(bytes, n, half) {
      const [sub, subOffset] = sixBits(bytes, 4, Math.floor(n / 32));
      const four = bits(bytes[48 + 32 * Math.floor(n / 64) + (n % 32)], n % 64 < 32 ? 0 : 4, 4);
      const code = four + 16 * bits(bytes[16 + (n % 32)], Math.floor(n / 32), 1);
      return half(0) * sub * code - half(2) * subOffset;
    },
  },
  q6_k: {
    bytes: 210,
    weight(bytes, n, half) {
      const byte = bytes[192 + Math.floor(n / 16)];
      const four = bits(bytes[64 * Math.floor(n / 128) + (n % 64)], n % 128 < 64 ? 0 : 4, 4);
      const two = bits(bytes[128 + 32 * Math.floor(n / 128) + (n % 32)], 2 * Math.floor((n % 128) / 32), 2);
      return half(208) * (byte < 128 ? byte : byte - 256) * (four + 16 * two - 32);
    },
  },
};

/** What is known of the K-quants on their own. */
export const kQuantFacts: readonly (readonly [string, Facts])[] = Object.entries(weights).map(
  ([name, { bytes, weight, ...misses }]) => [
    name,
    {
      weight({ codes }, r, c, cols) {
        const block = codes.bytes.subarray((r * (cols / 256) + Math.floor(c / 256)) * bytes).slice(0, bytes);
        const view = new DataView(block.buffer);
        return Math.fround(weight(block, c % 256, (at) => view.getFloat16(at, true)));
      },
      bits: bytes / 32,
      ...misses,
    },
  ],
);
