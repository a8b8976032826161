import { halfEven } from "../tensor/rounding.ts";
import { type GroupFormat, type Parameters, storeF16 } from "./format.ts";
import { ggmlFormat } from "./ggml-block.ts";

/** Weights that share one scale in ggml's ternary formats. */
export const BLOCK = 256;

/** What sets ggml's ternary formats apart: how the 256 codes of a block become bytes; its scale stands behind them. */
interface BlockLayout {
  readonly name: string;
  readonly spec: string;
  readonly codeBits: number;
  /** Bytes of the codes of a block. */
  readonly codeBytes: number;
  /** Writes the codes of a block (BLOCK) into `bytes` (codeBytes), which are 0. */
  write(codes: Uint8Array, bytes: Uint8Array): void;
  /** Code n of a block (codeBytes). */
  read(bytes: Uint8Array, n: number): number;
}

/** A format of blocks of 256 ternary weights: codes, then one fp16 scale. */
export function ternaryBlocks({ name, spec, codeBits, codeBytes, write, read }: BlockLayout): GroupFormat {
  const codesOf = (block: DataView) => new Uint8Array(block.buffer, block.byteOffset, codeBytes);
  return ggmlFormat({
    name,
    spec,
    codeBits,
    codeCount: 3,
    size: BLOCK,
    bytes: codeBytes + 2,
    fitGroup: (w, importance) => fitTernary(name, w, importance),
    nearest: nearestTernary,
    value: (code, { scale }) => scale * (code - 1),

    write(codes, { scale }, block) {
      write(codes, codesOf(block));
      block.setFloat16(codeBytes, scale, true);
    },

    read(block, codes) {
      const bytes = codesOf(block);
      for (let n = 0; n < BLOCK; n++) codes[n] = read(bytes, n);
      return { scale: block.getFloat16(codeBytes, true), offset: 0 };
    },
  });
}

/**
 * The ternary group {−s, 0, s} of least error Σ m·(w − ŵ)², m the importance.
 *
 * For a given s the best codes are 0 below s/2, so the non-zero weights are
 * the k largest |w| for some k. For these the best scale is
 * s = Σ m·|w| / Σ m, which takes (Σ m·|w|)²/Σ m off the error: try every k.
 * Weights that are γ·{−1, 0, 1} already give γ exactly. O(n log n).
 */
export function fitTernary(name: string, w: Float32Array, importance?: Float32Array): Parameters {
  const order = Array.from(w.keys()).sort((a, b) => Math.abs(w[b]) - Math.abs(w[a]));
  let sum = 0;
  let mass = 0;
  let most = 0;
  let scale = 0;
  for (const i of order) {
    const m = importance ? importance[i] : 1;
    sum += m * Math.abs(w[i]);
    mass += m;
    const gain = mass > 0 ? (sum * sum) / mass : 0;
    if (!(gain <= most)) {
      most = gain;
      scale = sum / mass;
    }
  }
  return { scale: storeF16(name, "scale", scale), offset: 0 };
}

/** Code 0, 1, 2 for −1, 0, 1: w/scale clipped to −1 … 1, then rounded, halves to even (so ±scale/2 is 0). */
export function nearestTernary(w: number, { scale }: Parameters): number {
  if (scale === 0) return 1;
  return halfEven(Math.min(1, Math.max(-1, w / scale))) + 1;
}
