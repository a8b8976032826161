import { halfEven } from "../tensor/rounding.ts";
import { type GroupFormat, type Parameters, storeF16 } from "./format.ts";
import { type BlockFormat, ggmlFormat } from "./ggml-block.ts";
import { affine, errorWeights, fitAffine, fitSigned } from "./ggml-search.ts";

/** Weights of a block of ggml's first formats. */
export const BLOCK = 32;

const f = Math.fround;

/** The 16 levels of iq4_nl and iq4_xs: closer together near zero, which is not among them. */
export const IQ4_LEVELS: readonly number[] = [
  -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
];

/** What one of the formats has of its own: where its codes stand in a block, behind its one or two fp16. */
type Codes = Pick<BlockFormat, "name" | "spec" | "bytes"> & {
  readonly bits: 4 | 5;
  write(codes: Uint8Array, block: DataView): void;
  read(block: DataView, codes: Uint8Array): void;
};

/**
 * Blocks of 32 with one fp16 scale: value = scale·(code − 2^(B−1)), exact in float32.
 *
 * The plain scale is max/−2^(B−1), max the weight of largest magnitude with its sign, so that it has the code 0 and
 * the far end of the other side misses one step. With importance ggml searches the scale: `fitSigned`.
 */
export function symmetricBlocks({ name, spec, bytes, bits, write, read }: Codes): GroupFormat {
  const codeCount = 2 ** bits;
  const top = codeCount - 1;
  const middle = codeCount / 2;
  const parameters = (scale: number): Parameters => ({ scale: storeF16(name, "scale", scale), offset: 0 });
  const plainScale = (w: Float32Array) => {
    needFinite(name, w);
    return f(furthest(w) / -middle);
  };

  return ggmlFormat({
    name,
    spec,
    codeBits: bits,
    codeCount,
    size: BLOCK,
    bytes,

    fitGroup: (w) => parameters(plainScale(w)),

    *candidates(w) {
      yield parameters(plainScale(w));
      const largest = Math.abs(furthest(w));
      for (const p of shrinking) {
        yield parameters((p * largest) / (middle - 1));
        yield parameters((p * largest) / (1 - middle));
      }
    },

    nearest(w, { scale }) {
      if (scale === 0) return middle;
      return Math.max(0, Math.min(top, halfEven(w / scale) + middle));
    },

    value: (code, { scale }) => scale * (code - middle),

    quantizeGroup(w, importance, meanSquare = 0) {
      const scale = plainScale(w);
      if (importance) {
        const codes = new Float64Array(BLOCK);
        const m = errorWeights(w, importance, meanSquare);
        const found = fitSigned(Float64Array.from(w), m, 0, BLOCK, middle, codes);
        return { codes: Uint8Array.from(codes), parameters: parameters(found) };
      }
      const inverseScale = scale === 0 ? 0 : f(1 / scale);
      const codes = new Uint8Array(BLOCK);
      for (let i = 0; i < BLOCK; i++) {
        codes[i] = Math.min(top, f(f(w[i] * inverseScale) + (middle + 0.5))); // never below 0: cut, not rounded
      }
      return { codes, parameters: parameters(scale) };
    },

    write(codes, { scale }, block) {
      block.setFloat16(0, scale, true);
      write(codes, block);
    },

    read(block, codes) {
      read(block, codes);
      return { scale: block.getFloat16(0, true), offset: 0 };
    },
  });
}

/**
 * Blocks of 32 with an fp16 scale and an fp16 offset: value = scale·code + offset, the product exact, then one
 * rounding to float32.
 *
 * The plain parameters are scale = (max − min)/(2^B−1) and offset = min. With importance ggml searches both, the
 * offset at or below 0: `fitAffine`.
 */
export function offsetBlocks({ name, spec, bytes, bits, write, read }: Codes): GroupFormat {
  const codeCount = 2 ** bits;
  const top = codeCount - 1;
  const parameters = (scale: number, offset: number): Parameters => ({
    scale: storeF16(name, "scale", scale),
    offset: storeF16(name, "offset", offset),
  });

  return ggmlFormat({
    name,
    spec,
    codeBits: bits,
    codeCount,
    size: BLOCK,
    bytes,

    fitGroup(w) {
      const { low, high } = ends(name, w);
      return parameters(f(f(high - low) / top), low);
    },

    *candidates(w) {
      const { low, high } = ends(name, w);
      const middle = (low + high) / 2;
      for (const p of shrinking) {
        yield parameters((p * (high - low)) / top, middle - p * (middle - low));
        yield parameters((p * (high - low)) / top, p * low);
      }
    },

    nearest(w, { scale, offset }) {
      if (scale === 0) return 0;
      return Math.max(0, Math.min(top, halfEven((w - offset) / scale)));
    },

    value: (code, { scale, offset }) => f(scale * code + offset),

    quantizeGroup(w, importance, meanSquare = 0) {
      const { low, high } = ends(name, w);
      if (importance) {
        const codes = new Float64Array(BLOCK);
        const m = errorWeights(w, importance, meanSquare);
        fitAffine(Float64Array.from(w), m, 0, BLOCK, top, { first: -0.9, step: 0.05, steps: 36 }, codes);
        return { codes: Uint8Array.from(codes), parameters: parameters(affine.scale, -affine.less) };
      }
      const scale = f(f(high - low) / top);
      const inverseScale = scale === 0 ? 0 : f(1 / scale);
      const codes = new Uint8Array(BLOCK);
      for (let i = 0; i < BLOCK; i++) codes[i] = Math.min(top, f(f(f(w[i] - low) * inverseScale) + 0.5));
      return { codes, parameters: parameters(scale, low) };
    },

    write(codes, { scale, offset }, block) {
      block.setFloat16(0, scale, true);
      block.setFloat16(2, offset, true);
      write(codes, block);
    },

    read(block, codes) {
      read(block, codes);
      return { scale: block.getFloat16(0, true), offset: block.getFloat16(2, true) };
    },
  });
}

/** Parts of the full range that the clip search tries: 1, 0.99, … 0.21. */
export const shrinking: readonly number[] = Array.from({ length: 80 }, (_, i) => 1 - i / 100);

/** Throws the InputError of a weight that is not a finite number: ggml's comparisons would pass over a NaN. */
export function needFinite(name: string, w: Float32Array): void {
  for (let i = 0; i < w.length; i++) if (!Number.isFinite(w[i])) storeF16(name, "scale", w[i]);
}

/** The weight of largest magnitude, the first where there are several; 0 for a group of zeros. */
export function furthest(w: Float32Array): number {
  let max = 0;
  for (let i = 0; i < w.length; i++) if (Math.abs(w[i]) > Math.abs(max)) max = w[i];
  return max;
}

function ends(name: string, w: Float32Array): { low: number; high: number } {
  needFinite(name, w);
  let low = w[0];
  let high = w[0];
  for (let i = 1; i < w.length; i++) {
    if (w[i] < low) low = w[i];
    if (w[i] > high) high = w[i];
  }
  return { low, high };
}

/** Low four bits of the codes, 16 bytes from `at`: weight j in the low half of byte j, weight 16+j in the high half. */
export function writeNibbles(codes: Uint8Array, block: DataView, at: number): void {
  for (let j = 0; j < 16; j++) block.setUint8(at + j, (codes[j] & 15) | ((codes[16 + j] & 15) << 4));
}

/** The low four bits that `writeNibbles` wrote. */
export function readNibbles(block: DataView, at: number, codes: Uint8Array): void {
  for (let j = 0; j < 16; j++) {
    const byte = block.getUint8(at + j);
    codes[j] = byte & 15;
    codes[16 + j] = byte >> 4;
  }
}

/** Fifth bits of the codes as one 32-bit word: that of weight j is bit j. */
export function writeFifthBits(codes: Uint8Array, block: DataView, at: number): void {
  let word = 0;
  for (let j = 0; j < BLOCK; j++) word |= (codes[j] >> 4) << j;
  block.setUint32(at, word >>> 0, true);
}

/** Adds the fifth bits to codes that have the low four. */
export function readFifthBits(block: DataView, at: number, codes: Uint8Array): void {
  const word = block.getUint32(at, true);
  for (let j = 0; j < BLOCK; j++) codes[j] |= ((word >>> j) & 1) << 4;
}
