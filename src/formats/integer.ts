import { halfEven } from "../tensor/rounding.ts";
import { checkGroup, elements, type GroupFormat, type Parameters, partOf, storeF16 } from "./format.ts";

export type IntegerBits = 8 | 6 | 4 | 3 | 2;

/**
 * Integers of B bits with an fp16 scale, and in the `-offset` formats an fp16
 * offset, for each row or for each group of N neighbours of a row.
 *
 *   codes    u8  (rows, ⌈cols·B/8⌉)  each row is a little-endian stream of bits: code c at bits
 *                                    c·B … c·B+B−1; a row starts on a byte, unused bits are 0
 *   scales   f16 (rows, groups)
 *   offsets  f16 (rows, groups)      only with offset
 *
 *   symmetric    value = scale·(code − 2^(B−1))   exact in float32: 11 bits by at most 8
 *   with offset  value = scale·code + offset      the product exact, then one rounding to float32
 *
 * Bits per weight: B + 16/N, or B + 32/N with offset (N = cols without groups).
 *
 * The plain parameters are those of Frantar et al., 2022 (https://arxiv.org/abs/2210.17323): symmetric
 * scale = max|w|/(2^(B−1)−1); with offset scale = (max−min)/(2^B−1) over the range with 0, and
 * offset = −scale·round(−min/scale), so that 0 keeps a code. What fp16 makes of both chooses the codes.
 */
export function integer(
  bits: IntegerBits,
  options: { offset?: boolean; group?: 32 | 64 | 128 } = {},
): GroupFormat {
  const { offset: withOffset = false, group } = options;
  const stem = `int${bits}`;
  const name = `${stem}${withOffset ? "-offset" : ""}${group ? `-g${group}` : ""}`;
  const codeCount = 2 ** bits;
  const top = codeCount - 1;
  const middle = codeCount / 2;

  const format: GroupFormat = {
    kind: "group",
    name,
    stem,
    spec: "lowbit: src/formats/integer.ts",
    codeBits: bits,
    codeCount,
    groupShape: group ? { kind: "group", size: group } : { kind: "row" },

    parts(rows, cols) {
      if (group) checkGroup(name, cols, group);
      const groups = group ? cols / group : 1;
      const parameters = { dtype: "f16", shape: [rows, groups] } as const;
      return [
        { name: "codes", dtype: "u8", shape: [rows, Math.ceil((cols * bits) / 8)] },
        { name: "scales", ...parameters },
        ...(withOffset ? [{ name: "offsets", ...parameters }] : []),
      ];
    },

    fitGroup(w) {
      const { low, high } = range(w);
      return withOffset ? offsetParameters(low, high) : symmetricParameters(Math.max(-low, high));
    },

    // The range shrunk to p of itself, p = 1, 0.99, … 0.21. A symmetric code has one level more below zero
    // than above, which a negative scale turns round; an offset may also stand exactly at the least weight.
    *candidates(w) {
      const { low, high } = range(w);
      for (let i = 0; i < 80; i++) {
        const p = 1 - i / 100;
        if (withOffset) {
          yield offsetParameters(p * low, p * high);
          const scale = storeF16(name, "scale", (p * (high - low)) / top);
          yield { scale, offset: storeF16(name, "offset", p * low) };
        } else {
          const plain = symmetricParameters(p * Math.max(-low, high));
          yield plain;
          yield { scale: -plain.scale, offset: 0 };
        }
      }
    },

    nearest(w, { scale, offset }) {
      if (scale === 0) return withOffset ? 0 : middle;
      const code = halfEven((w - offset) / scale) + (withOffset ? 0 : middle);
      return code < 0 ? 0 : Math.min(code, top);
    },

    value: withOffset
      ? (code, { scale, offset }) => Math.fround(scale * code + offset)
      : (code, { scale }) => scale * (code - middle),

    pack({ codes, parameters }, rows, cols) {
      const [codesSpec, scalesSpec] = format.parts(rows, cols);
      const scales = Float16Array.from(parameters, (p) => p.scale);
      const packed = new Uint8Array(rows * codesSpec.shape[1]);
      packBits(codes, bits, rows, cols, packed);
      return {
        codes: partOf("u8", codesSpec.shape, packed),
        scales: partOf("f16", scalesSpec.shape, scales),
        ...(withOffset && {
          offsets: partOf(
            "f16",
            scalesSpec.shape,
            Float16Array.from(parameters, (p) => p.offset),
          ),
        }),
      };
    },

    unpack(parts, rows, cols) {
      const scales = elements(parts.scales, Float16Array);
      const offsets = withOffset ? elements(parts.offsets, Float16Array) : undefined;
      const parameters: Parameters[] = Array.from(scales, (scale, i) => ({
        scale,
        offset: offsets ? offsets[i] : 0,
      }));
      return { codes: unpackBits(parts.codes.bytes, bits, rows, cols), parameters };
    },
  };

  function symmetricParameters(largest: number): Parameters {
    return { scale: storeF16(name, "scale", largest / (middle - 1)), offset: 0 };
  }

  function offsetParameters(low: number, high: number): Parameters {
    const scale = storeF16(name, "scale", (high - low) / top);
    if (scale === 0) return { scale, offset: 0 };
    return { scale, offset: storeF16(name, "offset", -scale * halfEven(-low / scale)) };
  }

  return format;
}

/** Least and greatest of w and 0; NaN when one of them is. */
function range(w: Float32Array): { low: number; high: number } {
  let low = 0;
  let high = 0;
  for (let i = 0; i < w.length; i++) {
    low = Math.min(low, w[i]);
    high = Math.max(high, w[i]);
  }
  return { low, high };
}

function packBits(codes: Uint8Array, bits: number, rows: number, cols: number, bytes: Uint8Array): void {
  let from = 0;
  let to = 0;
  for (let r = 0; r < rows; r++) {
    let buffer = 0;
    let filled = 0;
    for (let c = 0; c < cols; c++) {
      buffer |= codes[from++] << filled;
      filled += bits;
      if (filled >= 8) {
        bytes[to++] = buffer & 255;
        buffer >>>= 8;
        filled -= 8;
      }
    }
    if (filled > 0) bytes[to++] = buffer;
  }
}

function unpackBits(bytes: Uint8Array, bits: number, rows: number, cols: number): Uint8Array {
  const codes = new Uint8Array(rows * cols);
  const mask = 2 ** bits - 1;
  let from = 0;
  let to = 0;
  for (let r = 0; r < rows; r++) {
    let buffer = 0;
    let filled = 0;
    for (let c = 0; c < cols; c++) {
      if (filled < bits) {
        buffer |= bytes[from++] << filled;
        filled += 8;
      }
      codes[to++] = buffer & mask;
      buffer >>>= bits;
      filled -= bits;
    }
  }
  return codes;
}
