import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { haveShared, shared } from "../../test/shared.ts";
import { generator, normals } from "../tensor/random.ts";
import { matrix } from "../tensor/tensor.ts";
import { type GroupFormat, groupSize } from "./format.ts";
import { decode, encode, formatByName } from "./index.ts";

const names = ["q2_k", "q3_k", "q4_k", "q5_k", "q6_k"] as const;
const kQuant = (name: string) => formatByName(name) as GroupFormat;

/** Bytes of a superblock, 0 but for those given from a place on. */
function block(size: number, set: Record<number, readonly number[]>): Uint8Array {
  const bytes = new Uint8Array(size);
  for (const [at, values] of Object.entries(set)) bytes.set(values, Number(at));
  return bytes;
}

describe("hand-made superblocks", () => {
  // fp16: 1 = 0x3C00, 0.5 = 0x3800, 0.25 = 0x3400, low byte first.
  it.each([
    [
      "q2_k",
      // Subgroup 1: sub 2, subOffset 3; weight 17: bits 0–1 of byte 16 + 17. Subgroup 9: sub 1, subOffset 0; weight 145:
      // bits 0–1 of byte 16 + 32 + 17. Scale 1, offset −0.5.
      block(84, { 1: [0x32], 9: [0x01], 33: [3], 65: [2], 80: [0x00, 0x3c, 0x00, 0x38] }),
      { 16: 2 * 0 - 0.5 * 3, 17: 2 * 3 - 0.5 * 3, 145: 1 * 2, 144: 0, 0: 0 },
    ],
    [
      "q3_k",
      // Subgroup 1: s = 35 = 2·16 + 3: 3 in the low half of byte 97, 2 in bits 0–1 of byte 105. Subgroup 13: s = 49 =
      // 3·16 + 1: 1 in the high half of byte 101, 3 in bits 6–7 of byte 105. Weight 20, code 5 = 4 + 1: bit 0 of byte
      // 20, bits 0–1 of byte 32 + 20. Weight 210, code 7: bit 6 of byte 18, bits 4–5 of byte 32 + 32 + 18. Scale 0.5.
      block(110, {
        18: [0x40],
        20: [1],
        52: [1],
        82: [0x30],
        97: [3],
        101: [0x10],
        105: [0xc2],
        108: [0, 0x38],
      }),
      { 20: 0.5 * 3 * 1, 16: 0.5 * 3 * -4, 210: 0.5 * 17 * 3, 208: 0.5 * 17 * -4, 0: 0.5 * -32 * -4 },
    ],
    [
      "q4_k",
      // Subgroup 2: sub 5 in byte 4 + 2, subOffset 3 in byte 8 + 2. Subgroup 7: sub 37 = 2·16 + 5, subOffset 18 = 16 + 2:
      // 0x25 in byte 12 + 3, 2 in bits 6–7 of byte 4 + 3, 1 in bits 6–7 of byte 8 + 3. Weight 70: low half of byte
      // 16 + 32 + 6. Weight 255: high half of byte 16 + 96 + 31. Scale 1, offset −0.25.
      block(144, { 0: [0, 0x3c, 0, 0x34], 6: [5, 0x80], 10: [3, 0x40], 15: [0x25], 54: [9], 143: [0xf0] }),
      { 70: 5 * 9 - 0.25 * 3, 255: 37 * 15 - 0.25 * 18, 254: -0.25 * 18, 0: 0 },
    ],
    [
      "q5_k",
      // As q4_k, its codes from byte 48 on; bit 4 of weight 70 in bit 2 of byte 16 + 6, of weight 255 in bit 7 of byte 47.
      block(176, {
        0: [0, 0x3c, 0, 0x34],
        6: [5, 0x80],
        10: [3, 0x40],
        15: [0x25],
        22: [4],
        47: [0x80],
        86: [9],
        175: [0xf0],
      }),
      { 70: 5 * 25 - 0.25 * 3, 255: 37 * 31 - 0.25 * 18, 254: -0.25 * 18, 0: 0 },
    ],
    [
      "q6_k",
      // Subgroup 3: sub −7; weight 50, code 45 = 2·16 + 13: low half of byte 50, bits 2–3 of byte 128 + 18. Subgroup 15:
      // sub 127; weight 250, code 63: high half of byte 64 + 58, bits 6–7 of byte 128 + 32 + 26. Scale 0.5.
      block(210, { 50: [13], 122: [0xf0], 146: [8], 186: [0xc0], 195: [0xf9], 207: [0x7f], 208: [0, 0x38] }),
      { 50: 0.5 * -7 * 13, 48: 0.5 * -7 * -32, 250: 0.5 * 127 * 31, 240: 0.5 * 127 * -32 },
    ],
  ] as const)("%s", (name, bytes, expected) => {
    const format = kQuant(name);
    const parts = { codes: { dtype: "u8", shape: [1, bytes.length], bytes } } as const;
    const w = decode(format, parts, 1, 256);
    for (const [n, value] of Object.entries(expected)) expect(w[Number(n)], `weight ${n}`).toBe(value);
    expect(format.pack(format.unpack(parts, 1, 256), 1, 256)).toEqual(parts);
  });
});

/** The importance of 512 columns with which the vectors were made: |2u − 1| + 0.001, u from mulberry32 of seed 2. */
function importanceOfVectors(): Float32Array {
  let a = 2;
  return Float32Array.from({ length: 512 }, () => {
    a = (a + 0x6d2b79f5) | 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return Math.abs(((t ^ (t >>> 14)) >>> 0) / 2 ** 31 - 1) + 1e-3;
  });
}

describe.skipIf(!haveShared)("ggml's vectors (skipped where ../shared is absent)", () => {
  const read = (file: string) => new Uint8Array(readFileSync(shared("ggml-quant-vectors", file)));
  it.each(["q2_k", "q4_k", "q6_k"])("%s has ggml's bytes, without importance and with it", (name) => {
    for (const [kind, importance] of [
      ["noim", undefined],
      ["im", importanceOfVectors()],
    ] as const) {
      const w = new Float32Array(read(`${name}_512_${kind}_input.bin`).buffer);
      const expected = read(`${name}_512_${kind}_expected.bin`);
      expect(encode(kQuant(name), matrix(2, 512, w), importance).codes.bytes, kind).toEqual(expected);
    }
  });
});

describe.each(names)("%s", (name) => {
  const format = kQuant(name);
  const cols = 1024;
  const w = matrix(32, cols, normals(generator(7), 32 * cols));
  const importance = Float32Array.from(normals(generator(9), cols), (x) => x * x + 0.01);
  /** Σ m·(w − ŵ)²/Σ m */
  function error(encoding?: Float32Array, measuring?: Float32Array): number {
    const decoded = decode(format, encode(format, w, encoding), w.rows, cols);
    let sum = 0;
    let mass = 0;
    for (let i = 0; i < decoded.length; i++) {
      const m = measuring ? measuring[i % cols] : 1;
      sum += m * (w.data[i] - decoded[i]) ** 2;
      mass += m;
    }
    return sum / mass;
  }

  it("leaves this error of Gaussian weights, and less of the important ones", () => {
    const expected = { q2_k: 0.088, q3_k: 0.0228, q4_k: 0.00505, q5_k: 0.0013, q6_k: 0.000313 }[name];
    expect(error() / expected).toBeCloseTo(1, 1.5);
    expect(error(importance, importance)).toBeLessThan(0.8 * error(undefined, importance));
  });

  it("gives methods the same parameters and codes", () => {
    const size = groupSize(format, 1, cols);
    for (const m of [undefined, importance.subarray(0, size)]) {
      for (let r = 0; r < w.rows; r++) {
        const group = w.data.subarray(r * cols, r * cols + size);
        const { codes, parameters } = format.quantizeGroup!(group, m);
        expect(format.fitGroup(group, m)).toEqual(parameters);
        expect(Uint8Array.from(group, (x, i) => format.nearest(x, parameters, i))).toEqual(codes);
      }
    }
  });

  // Where fp16 makes 0 of the scale, the whole numbers still stand in the file, as ggml writes them.
  it.each([1e-4, 1e-6, 1e-9, 1e-16, 1e-40])("keeps weights of size %f small, and its bytes", (size) => {
    const small = matrix(1, 256, normals(generator(3), 256, size));
    for (const m of [undefined, importance.subarray(0, 256)]) {
      const parts = encode(format, small, m);
      const decoded = decode(format, parts, 1, 256);
      for (let i = 0; i < 256; i++) expect(Math.abs(decoded[i])).toBeLessThan(5 * size + 2 ** -19);
      expect(format.pack(format.unpack(parts, 1, 256), 1, 256)).toEqual(parts);
    }
  });

  it("takes importance 0, and one value all over", () => {
    for (const value of [0, 0.5, -0.5]) {
      const flat = matrix(1, 256, new Float32Array(256).fill(value));
      for (const m of [undefined, new Float32Array(256).fill(1)]) {
        const decoded = decode(format, encode(format, flat, m), 1, 256);
        expect(Math.max(...decoded.map((x) => Math.abs(x - value)))).toBeLessThanOrEqual(2 ** -10);
      }
      const ignored = decode(format, encode(format, flat, new Float32Array(256)), 1, 256);
      expect(ignored.every(Number.isFinite)).toBe(true);
    }
  });
});
