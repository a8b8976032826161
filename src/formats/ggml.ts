import { IQ4_LEVELS } from "./ggml-legacy.ts";

/**
 * The tensor types of ggml by their number in GGUF files, and what becomes of each here. A type that is added to
 * `ids` without an answer, or the reverse, does not compile.
 *
 * Source: enum ggml_type and type_traits of
 * https://github.com/ggml-org/ggml/tree/d99724f2b141fed9e1a9f402213506c081433465 (include/ggml.h, src/ggml.c)
 */
const ids = {
  f32: 0,
  f16: 1,
  q4_0: 2,
  q4_1: 3,
  q4_2: 4,
  q4_3: 5,
  q5_0: 6,
  q5_1: 7,
  q8_0: 8,
  q8_1: 9,
  q2_k: 10,
  q3_k: 11,
  q4_k: 12,
  q5_k: 13,
  q6_k: 14,
  q8_k: 15,
  iq2_xxs: 16,
  iq2_xs: 17,
  iq3_xxs: 18,
  iq1_s: 19,
  iq4_nl: 20,
  iq3_s: 21,
  iq2_s: 22,
  iq4_xs: 23,
  i8: 24,
  i16: 25,
  i32: 26,
  i64: 27,
  f64: 28,
  iq1_m: 29,
  bf16: 30,
  q4_0_4_4: 31,
  q4_0_4_8: 32,
  q4_0_8_8: 33,
  tq1_0: 34,
  tq2_0: 35,
  iq4_nl_4_4: 36,
  iq4_nl_4_8: 37,
  iq4_nl_8_8: 38,
  mxfp4: 39,
  nvfp4: 40,
  q1_0: 41,
  q2_0: 42,
} as const;

/** ggml's name of a type, in lower case: where there is a format of ours for it, the format's name. */
export type GgmlName = keyof typeof ids;

/** What becomes of a tensor of a type. */
export type Reading =
  /** It runs as it stands, in the format of the type's name. */
  | { readonly kind: "format" }
  /** Its bytes, little-endian and whole blocks, become float32: exact, but for the one rounding that the type's comment names. */
  | { readonly kind: "decoded"; decode(bytes: Uint8Array): Float32Array }
  /** It cannot be read; `why` ends a sentence that names the tensor and its type, and says what to do. */
  | { readonly kind: "refused"; readonly why: string };

export interface GgmlType {
  readonly id: number;
  readonly name: GgmlName;
  /** Weights of a block, neighbours of a row; 0 for types that ggml has given up. */
  readonly weights: number;
  /** Bytes of a block. */
  readonly bytes: number;
  readonly reading: Reading;
}

type Answer = Omit<GgmlType, "id" | "name">;

const inPlace = (weights: number, bytes: number): Answer => ({ weights, bytes, reading: { kind: "format" } });

/** A decoder of blocks: fills `w` (weights) from one block. */
function decoded(weights: number, bytes: number, read: (block: DataView, w: Float32Array) => void): Answer {
  const decode = (data: Uint8Array) => {
    const all = new Float32Array((data.byteLength / bytes) * weights);
    for (let b = 0; b * bytes < data.byteLength; b++) {
      const block = new DataView(data.buffer, data.byteOffset + b * bytes, bytes);
      read(block, all.subarray(b * weights, (b + 1) * weights));
    }
    return all;
  };
  return { weights, bytes, reading: { kind: "decoded", decode } };
}

/** One number to a block; numbers that float32 has not are rounded to it once. */
const numbers = (bytes: number, read: (block: DataView) => number): Answer =>
  decoded(1, bytes, (block, w) => {
    w[0] = read(block);
  });

/** A type whose codes stand for vectors of a table (a grid of ggml's source), which this project does not have. */
const grid = (bytes: number): Answer => ({
  weights: 256,
  bytes,
  reading: {
    kind: "refused",
    why: "its codes are numbers in a table of llama.cpp that lowbit does not have; take a file of the model in q2_k, q3_k, q4_k or iq4_xs",
  },
});

const retired = (instead: string): Answer => ({
  weights: 0,
  bytes: 0,
  reading: { kind: "refused", why: `ggml gave it up; convert the original model again, to ${instead}` },
});

const answers: Record<GgmlName, Answer> = {
  f32: inPlace(1, 4),
  f16: inPlace(1, 2),
  bf16: inPlace(1, 2),
  q4_0: inPlace(32, 18),
  q4_1: inPlace(32, 20),
  q5_0: inPlace(32, 22),
  q5_1: inPlace(32, 24),
  q8_0: inPlace(32, 34),
  iq4_nl: inPlace(32, 18),
  q2_k: inPlace(256, 84),
  q3_k: inPlace(256, 110),
  q4_k: inPlace(256, 144),
  q5_k: inPlace(256, 176),
  q6_k: inPlace(256, 210),
  tq1_0: inPlace(256, 54),
  tq2_0: inPlace(256, 66),

  // Whole numbers above 2²⁴ and doubles are rounded to float32.
  f64: numbers(8, (block) => block.getFloat64(0, true)),
  i8: numbers(1, (block) => block.getInt8(0)),
  i16: numbers(2, (block) => block.getInt16(0, true)),
  i32: numbers(4, (block) => block.getInt32(0, true)),
  i64: numbers(8, (block) => Number(block.getBigInt64(0, true))),

  // Bit n of bytes 2..17 is weight n: +scale where it is set, else −scale. Bytes 0..1 the scale, fp16.
  q1_0: decoded(128, 18, (block, w) => {
    const scale = block.getFloat16(0, true);
    for (let n = 0; n < 128; n++) w[n] = (block.getUint8(2 + (n >> 3)) >> (n & 7)) & 1 ? scale : -scale;
  }),

  // Bytes 0..1 the scale, fp16; then four weights to a byte, the first in the low bits: scale·(code − 1).
  q2_0: decoded(64, 18, (block, w) => {
    const scale = block.getFloat16(0, true);
    for (let n = 0; n < 64; n++) w[n] = scale * (((block.getUint8(2 + (n >> 2)) >> (2 * (n & 3))) & 3) - 1);
  }),

  // Bytes 0..1 the scale, fp16; 2..3 the scale times the sum of the codes, for products; 4..35 signed codes.
  q8_1: decoded(32, 36, (block, w) => {
    const scale = block.getFloat16(0, true);
    for (let n = 0; n < 32; n++) w[n] = scale * block.getInt8(4 + n);
  }),

  // Bytes 0..3 the scale, float32; 4..259 signed codes; 260..291 sums of sixteen codes each. The product is rounded once.
  q8_k: decoded(256, 292, (block, w) => {
    const scale = block.getFloat32(0, true);
    for (let n = 0; n < 256; n++) w[n] = scale * block.getInt8(4 + n);
  }),

  // Bytes 0..1 the scale, fp16; 2..3 the upper two bits of eight sub-scales; 4..7 their lower four bits, the first in
  // the low half of a byte; 8..135 eight runs of 16 bytes, each as in iq4_nl: scale·(sub-scale − 32)·level.
  iq4_xs: decoded(256, 136, (block, w) => {
    const scale = block.getFloat16(0, true);
    const upper = block.getUint16(2, true);
    for (let g = 0; g < 8; g++) {
      const low = (block.getUint8(4 + (g >> 1)) >> (4 * (g & 1))) & 15;
      const own = scale * ((low | (((upper >> (2 * g)) & 3) << 4)) - 32);
      halves(block, 8 + 16 * g, 16, IQ4_LEVELS, own, w.subarray(32 * g));
    }
  }),

  // Byte 0 the scale's power of two, plus 127; then 16 bytes of halves as in q4_0: 2^(e−128)·level, which doubles fp4.
  // The code 255, which is not a number in the standard, ggml takes for a power too.
  mxfp4: decoded(32, 17, (block, w) => {
    halves(block, 1, 16, DOUBLE_E2M1, 2 ** (block.getUint8(0) - 128), w);
  }),

  // Bytes 0..3 the scales of four groups of 16, unsigned e4m3; then 8 bytes of halves for each group.
  nvfp4: decoded(64, 36, (block, w) => {
    for (let g = 0; g < 4; g++) {
      halves(block, 4 + 8 * g, 8, DOUBLE_E2M1, unsignedE4M3(block.getUint8(g)) / 2, w.subarray(16 * g));
    }
  }),

  iq1_s: grid(50),
  iq1_m: grid(56),
  iq2_xxs: grid(66),
  iq2_xs: grid(74),
  iq2_s: grid(82),
  iq3_xxs: grid(98),
  iq3_s: grid(110),

  q4_2: retired("q4_0 or q4_k"),
  q4_3: retired("q4_1 or q4_k"),
  q4_0_4_4: retired("q4_0, which is arranged when it is loaded"),
  q4_0_4_8: retired("q4_0, which is arranged when it is loaded"),
  q4_0_8_8: retired("q4_0, which is arranged when it is loaded"),
  iq4_nl_4_4: retired("iq4_nl, which is arranged when it is loaded"),
  iq4_nl_4_8: retired("iq4_nl, which is arranged when it is loaded"),
  iq4_nl_8_8: retired("iq4_nl, which is arranged when it is loaded"),
};

/** Every tensor type by its number in files. */
export const ggmlTypes: ReadonlyMap<number, GgmlType> = new Map(
  (Object.entries(answers) as [GgmlName, Answer][]).map(([name, answer]) => [
    ids[name],
    { id: ids[name], name, ...answer },
  ]),
);

/** The type of a name, as formats are spelt (`q4_k`); undefined for a format that ggml has not. */
export function ggmlTypeByName(name: string): GgmlType | undefined {
  return Object.hasOwn(ids, name) ? ggmlTypes.get(ids[name as GgmlName]) : undefined;
}

/** Levels of fp4 (sign, two bits of exponent, one of fraction), doubled to be whole; ggml has no −0. */
const DOUBLE_E2M1: readonly number[] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/** `bytes` bytes from `at`: code j is the low half of byte j, code bytes+j its high half; w = scale·level. */
function halves(
  block: DataView,
  at: number,
  bytes: number,
  levels: readonly number[],
  scale: number,
  w: Float32Array,
): void {
  for (let j = 0; j < bytes; j++) {
    const byte = block.getUint8(at + j);
    w[j] = scale * levels[byte & 15];
    w[bytes + j] = scale * levels[byte >> 4];
  }
}

/** Four bits of exponent, three of fraction; the sign is passed over, and 127, not a number in the standard, is 0 in ggml. */
function unsignedE4M3(byte: number): number {
  if (byte === 0x7f) return 0;
  const exponent = (byte >> 3) & 15;
  const fraction = byte & 7;
  return exponent === 0 ? fraction * 2 ** -9 : (8 + fraction) * 2 ** (exponent - 10);
}
