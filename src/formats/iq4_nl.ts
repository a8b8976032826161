import { type CodedGroup, type Parameters, storeF16 } from "./format.ts";
import { ggmlFormat } from "./ggml-block.ts";
import {
  BLOCK,
  furthest,
  IQ4_LEVELS,
  needFinite,
  readNibbles,
  shrinking,
  writeNibbles,
} from "./ggml-legacy.ts";
import { errorWeights, squares } from "./ggml-search.ts";

const f = Math.fround;

/**
 * IQ4_NL: 4-bit codes of 16 fixed levels, fp16 scale. 18 bytes per 32 weights (4.5 bits per weight).
 *
 *   bytes 0..1    scale, fp16
 *   bytes 2..17   codes: weight j in the low half of byte 2+j, weight 16+j in its high half
 *
 *   value = scale·LEVELS[code], exact in float32
 */
export const iq4_nl = ggmlFormat({
  name: "iq4_nl",
  spec: "https://github.com/ggml-org/ggml/blob/master/src/ggml-quants.c (dequantize_row_iq4_nl)",
  codeBits: 4,
  codeCount: 16,
  size: BLOCK,
  bytes: 18,

  fitGroup: (w, importance) => parameters(search(w, importance)),

  *candidates(w) {
    yield parameters(search(w));
    const largest = Math.abs(furthest(w));
    for (const p of shrinking) {
      yield parameters((p * largest) / IQ4_LEVELS[15]);
      yield parameters((p * largest) / -IQ4_LEVELS[15]);
    }
  },

  nearest: (w, { scale }) => (scale === 0 ? 8 : nearestLevel(w / scale)),
  value: (code, { scale }) => scale * IQ4_LEVELS[code],

  quantizeGroup(w, importance): CodedGroup {
    const scale = search(w, importance);
    const codes = new Uint8Array(BLOCK);
    const inverseScale = scale === 0 ? 0 : f(1 / scale);
    for (let i = 0; i < BLOCK; i++) codes[i] = nearestLevel(f(inverseScale * w[i]));
    return { codes, parameters: parameters(scale) };
  },

  write(codes, { scale }, block) {
    block.setFloat16(0, scale, true);
    writeNibbles(codes, block, 2);
  },

  read(block, codes) {
    readNibbles(block, 2, codes);
    return { scale: block.getFloat16(0, true), offset: 0 };
  },
});

/**
 * ggml's scale for w (float32): of 16 trial scales that put the furthest weight at −134 … −120, or at +127, the
 * one whose codes with their own best scale, Σ m·w·l / Σ m·l², leave the least Σ m·(w − ŵ)². m is w² without
 * importance, and otherwise the importance times √(2·mean(w²) + w²). (quantize_row_iq4_nl_impl with 7 trials a side)
 */
function search(w: Float32Array, importance?: Float32Array): number {
  needFinite("iq4_nl", w);
  const max = furthest(w);
  if (Math.abs(max) < f(1e-15)) return 0;
  const m = importance
    ? errorWeights(w, importance, f(squares(w, 0, BLOCK) * (2 / BLOCK)))
    : Float64Array.from(w, (x) => f(x * x));

  let scale = 0;
  let best = 0;
  for (let trial = -8; trial <= 7; trial++) {
    // The first is ggml's own start: the furthest weight at +127.
    const inverseScale = trial === -8 ? f(1 / f(-max / IQ4_LEVELS[0])) : f((trial + IQ4_LEVELS[0]) / max);
    let wl = 0;
    let ll = 0;
    for (let i = 0; i < BLOCK; i++) {
      const l = IQ4_LEVELS[nearestLevel(f(inverseScale * w[i]))];
      const ml = f(m[i] * l);
      wl = f(ml * w[i] + wl);
      ll = f(ml * l + ll);
    }
    if (!(ll > 0) || (trial > -8 && !(f(wl * wl) > f(best * ll)))) continue;
    scale = f(wl / ll);
    best = f(scale * wl);
  }
  return scale;
}

/** The code of the level nearest to x, the upper one of two as near. */
function nearestLevel(x: number): number {
  let code = 0;
  while (code < 15 && !(f(x - IQ4_LEVELS[code]) < f(IQ4_LEVELS[code + 1] - x))) code++;
  return code;
}

function parameters(scale: number): Parameters {
  return { scale: storeF16("iq4_nl", "scale", scale), offset: 0 };
}
