import { existsSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { shared } from "../../test/shared.ts";
import { generator, normals } from "../tensor/random.ts";
import { InputError, matrix } from "../tensor/tensor.ts";
import type { GroupFormat } from "./format.ts";
import { clipped, decode, encode, formatByName } from "./index.ts";

const formatOf = (name: string) => formatByName(name) as GroupFormat;
const names = ["q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "iq4_nl"];

const bytesOf = (name: string, w: Float32Array, importance?: Float32Array) =>
  encode(formatOf(name), matrix(1, w.length, w), importance).codes.bytes;

const valuesOf = (name: string, bytes: number[]) =>
  decode(
    formatOf(name),
    { codes: { dtype: "u8", shape: [1, bytes.length], bytes: Uint8Array.from(bytes) } },
    1,
    32,
  );

/** 32 weights of 0, but those named. */
function weights(named: Record<number, number>, rest = 0): Float32Array {
  const w = new Float32Array(32).fill(rest);
  for (const [i, value] of Object.entries(named)) w[Number(i)] = value;
  return w;
}

describe("hand-made blocks", () => {
  it("q8_0", () => {
    // 1270 is the largest: scale 10 = 1.25·2³ = 0x4900. Weight 0: 127 = 0x7f; weight 1: −127 = 0x81; weight 31: 25 is
    // 2.5 steps, rounded away from zero to 3.
    const bytes = bytesOf("q8_0", weights({ 0: 1270, 1: -1270, 31: 25 }));
    expect([...bytes]).toEqual([0x00, 0x49, 0x7f, 0x81, ...new Array(29).fill(0), 3]);
    expect(valuesOf("q8_0", [...bytes])).toEqual(weights({ 0: 1270, 1: -1270, 31: 30 }));
    // −128, which nobody writes, is read.
    expect(valuesOf("q8_0", [0x00, 0x3c, 0x80, ...new Array(31).fill(0)])[0]).toBe(-128);
  });

  it("q4_0", () => {
    // The largest, −4, has the code 0: scale −4/−8 = 0.5 = 0x3800. Zeros have the code 8: bytes of 0x88. Weight 0: 0 in
    // the low half of byte 2; weight 17: 3.5 is 7 steps, 15 in the high half of byte 3; weight 15: 4 would be 16, cut to
    // 15, in the low half of byte 17.
    const bytes = bytesOf("q4_0", weights({ 0: -4, 17: 3.5, 15: 4 }));
    expect([...bytes]).toEqual([0x00, 0x38, 0x80, 0xf8, ...new Array(13).fill(0x88), 0x8f]);
    expect(valuesOf("q4_0", [...bytes])).toEqual(weights({ 0: -4, 17: 3.5, 15: 3.5 }));
  });

  it("q4_1", () => {
    // −1 … 6.5 in 15 steps: scale 0.5 = 0x3800, offset −1 = 0xbc00. The rest, 1, has the code 4. Weight 2: 0 in the low
    // half of byte 6; weight 31: 15 in the high half of byte 19.
    const w = weights({ 2: -1, 31: 6.5 }, 1);
    const bytes = bytesOf("q4_1", w);
    expect([...bytes]).toEqual([0x00, 0x38, 0x00, 0xbc, 0x44, 0x44, 0x40, ...new Array(12).fill(0x44), 0xf4]);
    expect(valuesOf("q4_1", [...bytes])).toEqual(w);
  });

  it("q5_0", () => {
    // The largest, 8, has the code 0: scale 8/−16 = −0.5 = 0xb800. Zeros have the code 16: low half 0, fifth bit 1.
    // Weight 0: code 0, bit 0 of byte 2 goes; weight 16: −7.5 is code 31, 15 in the high half of byte 6, its fifth bit
    // stays; weight 31: 0.5 is code 15, 15 in the high half of byte 21, bit 7 of byte 5 goes.
    const w = weights({ 0: 8, 16: -7.5, 31: 0.5 });
    const bytes = bytesOf("q5_0", w);
    expect([...bytes]).toEqual([
      ...[0x00, 0xb8, 0xfe, 0xff, 0xff, 0x7f],
      ...[0xf0, ...new Array(14).fill(0), 0xf0],
    ]);
    expect([...valuesOf("q5_0", [...bytes])].map((x) => x + 0)).toEqual([...w]); // zeros come back as −0
  });

  it("q5_1", () => {
    // 1 … 32 in 31 steps: scale 1 = 0x3c00, offset 1 = 0x3c00; the rest, 1, has the code 0. Weight 9: 32 is code 31, 15
    // in the low half of byte 17, bit 1 of byte 5; weight 24: 17 is code 16, only bit 0 of byte 7.
    const w = weights({ 9: 32, 24: 17 }, 1);
    const bytes = bytesOf("q5_1", w);
    expect([...bytes]).toEqual([
      ...[0x00, 0x3c, 0x00, 0x3c, 0x00, 0x02, 0x00, 0x01],
      ...[...new Array(9).fill(0), 0x0f, ...new Array(6).fill(0)],
    ]);
    expect(valuesOf("q5_1", [...bytes])).toEqual(w);
  });

  it("iq4_nl", () => {
    // Every level once in each half: byte 2+j has j in the low half and 15−j in the high half; scale 1 = 0x3c00.
    const levels = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];
    const bytes = [0x00, 0x3c, ...levels.map((_, j) => j | ((15 - j) << 4))];
    const w = Float32Array.from([...levels, ...levels.toReversed()]);
    expect(valuesOf("iq4_nl", bytes)).toEqual(w);
    expect([...bytesOf("iq4_nl", w)]).toEqual(bytes);
  });
});

/** Floats of mulberry32, as SOURCES.md says that the vectors' importance was made. */
function mulberry32(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

const vectors = shared("ggml-quant-vectors");
describe.skipIf(!existsSync(vectors))(
  "the bytes of llama.cpp's ggml_quantize_chunk (../shared, if there)",
  () => {
    it.each(["q4_0", "q5_0", "q8_0"])("%s", (name) => {
      for (const kind of ["noim", "im"]) {
        const file = (what: string) =>
          new Uint8Array(readFileSync(`${vectors}/${name}_64_${kind}_${what}.bin`));
        const W = matrix(2, 64, new Float32Array(file("input").buffer));
        const random = mulberry32(2);
        const importance = Float32Array.from(W.data.subarray(0, 64), () => Math.abs(2 * random() - 1) + 1e-3);
        const { codes } = encode(formatOf(name), W, kind === "im" ? importance : undefined);
        expect(codes.bytes).toEqual(file("expected"));
      }
    });
  },
);

describe.each(names)("%s", (name) => {
  const format = formatOf(name);
  const cols = 256;
  const w = normals(generator(11), 4 * cols, 0.03);
  const importance = normals(generator(12), cols).map((x) => x * x);
  const error = (f: GroupFormat, m?: Float32Array) => {
    const decoded = decode(f, encode(f, matrix(4, cols, w), m), 4, cols);
    return w.reduce((sum, x, i) => sum + importance[i % cols] * (x - decoded[i]) ** 2, 0);
  };

  it("loses less where it is told what matters, and least with a clip search", () => {
    const plain = error(format);
    if (name === "q8_0") expect(error(format, importance)).toBe(plain);
    else expect(error(format, importance)).toBeLessThan(plain);
    expect(error(clipped(format) as GroupFormat, importance)).toBeLessThan(plain);
  });

  it("rounds weights that it holds already to themselves", () => {
    const values = decode(format, encode(format, matrix(4, cols, w)), 4, cols);
    const again = decode(format, encode(format, matrix(4, cols, values)), 4, cols);
    for (const [i, value] of again.entries())
      expect(Math.abs(value - values[i])).toBeLessThanOrEqual(2 ** -9 * 0.15);
  });

  it("refuses weights that are not finite, with importance too", () => {
    for (const value of [Number.NaN, Infinity]) {
      expect(() => bytesOf(name, weights({ 3: value }), new Float32Array(32).fill(1))).toThrow(InputError);
    }
  });
});
