import { describe, expect, it } from "vitest";
import { generator, normals } from "../tensor/random.ts";
import { InputError, matrix } from "../tensor/tensor.ts";
import type { Parts } from "../tensor/weight.ts";
import { type Facts, formatSuite } from "./format.suite.ts";
import type { GroupFormat } from "./format.ts";
import { addFormat, clipped, decode, encode, formatByName, formats, integer } from "./index.ts";
import { kQuantFacts } from "./k-quant.suite.ts";
import { e8pPatterns, e81bPoint } from "./lattice.suite.ts";
import { normalFloatLevels } from "./normal-float.ts";
import { weightAt } from "./trellis.suite.ts";

// Decoders written from the layouts alone: one weight at a time, bit by bit, in doubles.

/** IEEE binary16 by its definition. */
function half(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction ? Number.NaN : sign * Infinity;
  return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1024 + fraction) * 2 ** (exponent - 25);
}

function word(bytes: Uint8Array, at: number): number {
  return bytes[at] + 256 * bytes[at + 1];
}

function integerFacts(bits: number, offset: boolean, group?: number): Facts {
  return {
    weight({ codes, scales, offsets }, r, c, cols) {
      const bytesPerRow = Math.ceil((cols * bits) / 8);
      let code = 0;
      for (let b = 0; b < bits; b++) {
        const bit = c * bits + b;
        const byte = codes.bytes[r * bytesPerRow + Math.floor(bit / 8)];
        if (Math.floor(byte / 2 ** (bit % 8)) % 2 === 1) code += 2 ** b;
      }
      const g = group ? r * (cols / group) + Math.floor(c / group) : r;
      const scale = half(word(scales.bytes, 2 * g));
      if (!offset) return Math.fround(scale * (code - 2 ** (bits - 1)));
      return Math.fround(Math.fround(scale * code) + half(word(offsets.bytes, 2 * g)));
    },
    bits: bits + (offset ? 32 : 16) / (group ?? 768),
  };
}

/** A block of 32 of ggml's first formats: fp16 scale, fp16 offset if any, fifth bits if any, halves of bytes. */
function legacyFacts(
  bits: 4 | 5,
  offset: boolean,
  misses: Partial<Facts>,
  levels?: readonly number[],
): Facts {
  const first = offset ? 4 : 2;
  const size = first + (bits === 5 ? 4 : 0) + 16;
  return {
    weight({ codes }, r, c, cols) {
      const block = codes.bytes.subarray((r * (cols / 32) + Math.floor(c / 32)) * size);
      const n = c % 32;
      const byte = block[size - 16 + (n % 16)];
      const low = n < 16 ? byte % 16 : Math.floor(byte / 16);
      const fifth = bits === 5 ? Math.floor(block[first + Math.floor(n / 8)] / 2 ** (n % 8)) % 2 : 0;
      const code = low + 16 * fifth;
      const scale = half(word(block, 0));
      if (offset) return Math.fround(scale * code + half(word(block, 2)));
      return scale * (levels ? levels[code] : code - 2 ** (bits - 1));
    },
    bits: size / 4,
    ...misses,
  };
}

const facts = new Map<string, Facts>([
  ...kQuantFacts,
  ["q4_0", legacyFacts(4, false, { missesEnd: 1 / 8 })],
  ["q4_1", legacyFacts(4, true, {})],
  ["q5_0", legacyFacts(5, false, { missesEnd: 1 / 16 })],
  ["q5_1", legacyFacts(5, true, {})],
  [
    "q8_0",
    {
      weight({ codes }, r, c, cols) {
        const block = codes.bytes.subarray((r * (cols / 32) + Math.floor(c / 32)) * 34);
        const byte = block[2 + (c % 32)];
        return half(word(block, 0)) * (byte < 128 ? byte : byte - 256);
      },
      bits: 8.5,
    },
  ],
  [
    "iq4_nl",
    legacyFacts(
      4,
      false,
      { missesZero: 1 / 113, missesEnd: 1 / 8 },
      [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113],
    ),
  ],
  [
    "f32",
    {
      weight: ({ data }, r, c, cols) => new DataView(data.bytes.buffer).getFloat32(4 * (r * cols + c), true),
      bits: 32,
    },
  ],
  ["f16", { weight: ({ data }, r, c, cols) => half(word(data.bytes, 2 * (r * cols + c))), bits: 16 }],
  ["bf16", { weight: ({ data }, r, c, cols) => bfloat(word(data.bytes, 2 * (r * cols + c))), bits: 16 }],
  [
    "tq2_0",
    {
      weight({ codes }, r, c, cols) {
        const block = codes.bytes.subarray((r * (cols / 256) + Math.floor(c / 256)) * 66);
        const n = c % 256;
        const byte = block[32 * Math.floor(n / 128) + (n % 32)];
        const code = Math.floor(byte / 4 ** Math.floor((n % 128) / 32)) % 4;
        return half(word(block, 64)) * (code - 1);
      },
      bits: 2.0625,
    },
  ],
  [
    "tq1_0",
    {
      weight({ codes }, r, c, cols) {
        const block = codes.bytes.subarray((r * (cols / 256) + Math.floor(c / 256)) * 54);
        const n = c % 256;
        const [byte, place] =
          n < 160
            ? [block[n % 32], Math.floor(n / 32)]
            : n < 240
              ? [block[32 + ((n - 160) % 16)], Math.floor((n - 160) / 16)]
              : [block[48 + ((n - 240) % 4)], Math.floor((n - 240) / 4)];
        // The byte is a fraction of 256 written in base 3: shift its digits out in front of the point.
        let fraction = byte / 256;
        for (let k = 0; k < place; k++) fraction = (3 * fraction) % 1;
        return half(word(block, 52)) * (Math.floor(3 * fraction) - 1);
      },
      bits: 1.6875,
    },
  ],
]);
facts.set("trits", {
  weight({ codes, scales }, r, c, cols) {
    const n = Math.ceil(cols / 5);
    let fraction = codes.bytes[r * n + (c % n)] / 256;
    for (let k = 0; k < Math.floor(c / n); k++) fraction = (3 * fraction) % 1;
    return half(word(scales.bytes, 2 * r)) * (Math.floor(3 * fraction) - 1);
  },
  bits: (8 * 154 + 16) / 768, // 154 bytes hold 768 weights
});
// A row's scale is its mean |w|: 1/256 of a lone weight, for it and for the zeros beside it.
facts.set("binary", {
  weight({ codes, scales }, r, c, cols) {
    const byte = codes.bytes[r * Math.ceil(cols / 8) + Math.floor(c / 8)];
    const scale = half(word(scales.bytes, 2 * r));
    return Math.floor(byte / 2 ** (c % 8)) % 2 === 1 ? scale : -scale;
  },
  bits: 1 + 16 / 768,
  missesZero: 1,
  missesLone: 1,
});
for (const bits of [2, 3, 4]) {
  facts.set(`trellis${bits}`, {
    weight({ codes, scales }, r, c) {
      return weightAt(codes, half(word(scales.bytes, 2 * r)), bits, scales.shape[0], r, c);
    },
    bits: 4 * bits + 16 / 768, // four rows are filled up to sixteen
    searches: true,
  });
}
// The sign of the last place is that of the product of the others' and of one for a pattern that sums to an odd number.
facts.set("e8p", {
  weight({ codes, scales }, r, c, cols) {
    const code = word(codes.bytes, 2 * (r * (cols / 8) + Math.floor(c / 8)));
    const p = e8pPatterns[code % 256];
    const low = Array.from({ length: 7 }, (_, i) => (Math.floor(code / 2 ** (8 + i)) % 2 ? -1 : 1));
    const last = low.reduce((sum, sign, i) => sum + sign * p[i], 0) + p[7];
    const signs = [...low, Math.abs(last) % 2 === 0 ? 1 : -1];
    const shift = code < 2 ** 15 ? 0.25 : -0.25;
    return Math.fround(half(word(scales.bytes, 2 * r)) * (signs[c % 8] * p[c % 8] + shift));
  },
  bits: 2 + 16 / 768,
  searches: true,
});
facts.set("e81b", {
  weight({ codes, scales }, r, c, cols) {
    const code = codes.bytes[r * (cols / 8) + Math.floor(c / 8)];
    return Math.fround(half(word(scales.bytes, 2 * r)) * e81bPoint(code)[c % 8]);
  },
  bits: 1 + 16 / 768,
  searches: true,
});
for (const bits of [8, 6, 4, 3, 2]) {
  for (const offset of [false, true]) {
    for (const group of [undefined, 32, 64, 128]) {
      const name = `int${bits}${offset ? "-offset" : ""}${group ? `-g${group}` : ""}`;
      facts.set(name, integerFacts(bits, offset, group));
    }
  }
}

facts.set("affine8", {
  weight({ codes, steps, offsets }, r, c, cols) {
    const at = r * cols + c;
    const [step, offset] = [steps, offsets].map(({ bytes }) => half(word(bytes, 2 * Math.floor(at / 256))));
    return Math.fround(Math.fround(step * codes.bytes[at]) + offset);
  },
  bits: 8 + 32 / 256,
});
for (const bits of [4, 3, 2] as const) {
  for (const group of [undefined, 32, 64, 128] as const) {
    facts.set(`nf${bits}${group ? `-g${group}` : ""}`, {
      weight({ codes, scales }, r, c, cols) {
        const bytesPerRow = Math.ceil((cols * bits) / 8);
        let code = 0;
        for (let b = 0; b < bits; b++) {
          const bit = c * bits + b;
          code += (Math.floor(codes.bytes[r * bytesPerRow + (bit >> 3)] / 2 ** (bit & 7)) % 2) * 2 ** b;
        }
        const g = group ? r * (cols / group) + Math.floor(c / group) : r;
        return Math.fround(half(word(scales.bytes, 2 * g)) * normalFloatLevels(bits)[code]);
      },
      bits: bits + 16 / (group ?? 768),
    });
  }
}

/** bfloat16 by its definition. */
function bfloat(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 7) & 255;
  const fraction = bits & 127;
  if (exponent === 255) return fraction ? Number.NaN : sign * Infinity;
  return exponent === 0 ? sign * fraction * 2 ** -133 : sign * (128 + fraction) * 2 ** (exponent - 134);
}

expect([...facts.keys()].sort()).toEqual([...formats.keys()].sort());
for (const format of formats.values()) formatSuite(format, facts.get(format.name)!);

describe("16-bit floats", () => {
  const all = Uint16Array.from({ length: 65536 }, (_, bits) => bits);
  it.each([
    ["f16", half],
    ["bf16", bfloat],
  ] as const)("%s decodes and encodes all 65,536 codes", (name, scalar) => {
    const format = formatByName(name);
    const parts: Parts = { data: { dtype: name, shape: [256, 256], bytes: new Uint8Array(all.buffer) } };
    const w = decode(format, parts, 256, 256);
    for (let bits = 0; bits < 65536; bits++) expect(Object.is(w[bits], scalar(bits))).toBe(true);
    const back = new Uint16Array(encode(format, matrix(256, 256, w)).data.bytes.buffer);
    for (let bits = 0; bits < 65536; bits++) {
      if (Number.isNaN(w[bits])) expect(scalar(back[bits])).toBeNaN();
      else expect(back[bits]).toBe(bits);
    }
  });

  it("f16 refuses a finite weight that would become infinite", () => {
    expect(() => encode(formatByName("f16"), matrix(1, 1, Float32Array.of(65520)))).toThrow(InputError);
    expect(() => encode(formatByName("f16"), matrix(1, 1, Float32Array.of(65519)))).not.toThrow();
  });
});

describe("integer with offset", () => {
  it("rounds f32(scale·code) + offset once to float32, where that matters", () => {
    const format = integer(8, { offset: true });
    const parameters = { scale: 1023.5, offset: 2 ** -14 };
    const parts = format.pack({ codes: Uint8Array.of(255), parameters: [parameters] }, 1, 1);
    expect(decode(format, parts, 1, 1)[0]).toBe(Math.fround(255 * 1023.5 + 2 ** -14));
    expect(255 * 1023.5 + 2 ** -14).not.toBe(Math.fround(255 * 1023.5 + 2 ** -14));
  });
});

describe("hand-made blocks", () => {
  // All digits 1 (weight 0) but three: weight 0 = +1, weight 33 = −1, weight 255 = +1; scale 1.5 = 0x3E00.
  const w = new Float32Array(256);
  w[0] = 1.5;
  w[33] = -1.5;
  w[255] = 1.5;

  it("tq2_0", () => {
    // A byte of four 1s is 0b01010101 = 85. Weight 0: byte 0, bits 0–1 become 2: 86. Weight 33: n mod 32 = 1,
    // second plane: byte 1, bits 2–3 become 0: 81. Weight 255: byte 32·1 + 31 = 63, bits 6–7 become 2: 149.
    const expected = new Uint8Array(66).fill(85);
    expected.set([86, 81], 0);
    expected.set([149, 0x00, 0x3e], 63);
    expect(encode(formatByName("tq2_0"), matrix(1, 256, w)).codes.bytes).toEqual(expected);
  });

  it("tq2_0 reads the code that nobody writes", () => {
    const bytes = new Uint8Array(66).fill(255);
    bytes.set([0x00, 0x3e], 64);
    const parts: Parts = { codes: { dtype: "u8", shape: [1, 66], bytes } };
    expect(decode(formatByName("tq2_0"), parts, 1, 256)).toEqual(new Float32Array(256).fill(3));
  });

  it("tq1_0", () => {
    // Digits 11111 to base 3 are 121: ⌈121·256/243⌉ = ⌈127.47⌉ = 128; 11110 in the last four bytes: 120 → 127.
    // Weight 0: first digit of byte 0 becomes 2, 202: ⌈212.81⌉ = 213. Weight 33: second digit of byte 1 becomes 0,
    // 121 − 27 = 94: ⌈99.03⌉ = 100. Weight 255: fourth digit of byte 51 becomes 2, 120 + 3 = 123: ⌈129.58⌉ = 130.
    const expected = new Uint8Array(54).fill(128);
    expected.set([213, 100], 0);
    expected.set([127, 127, 127, 130, 0x00, 0x3e], 48);
    expect(encode(formatByName("tq1_0"), matrix(1, 256, w)).codes.bytes).toEqual(expected);
  });

  it("tq1_0 reads all 256 values of every byte", () => {
    for (let value = 0; value < 256; value++) {
      const bytes = new Uint8Array(54).fill(value);
      bytes.set([0x00, 0x3c], 52);
      const parts: Parts = { codes: { dtype: "u8", shape: [1, 54], bytes } };
      const decoded = decode(formatByName("tq1_0"), parts, 1, 256);
      for (let c = 0; c < 256; c++) expect(decoded[c]).toBe(facts.get("tq1_0")!.weight(parts, 0, c, 256));
    }
  });

  it("trits", () => {
    // Seven weights are two bytes: 1 0 −1 1 0 0 −1 have the digits 2 1 0 2 1 1 0, those of byte 0 are 2 0 1 0 0, those
    // of byte 1 are 1 2 1 0 0. 20100 to base 3 is 171: ⌈180.15⌉ = 181; 12100 is 144: ⌈151.7⌉ = 152.
    const format = formatByName("trits");
    const parts = encode(format, matrix(1, 7, Float32Array.of(1.5, 0, -1.5, 1.5, 0, 0, -1.5)));
    expect([...parts.codes.bytes]).toEqual([181, 152]);
    expect([...parts.scales.bytes]).toEqual([0x00, 0x3e]);
  });

  it("binary", () => {
    // Signs + − + + − − − + | − +: bits 1 0 1 1 0 0 0 1 from the lowest on are 0x8d, then 0 1 are 0x02.
    const signs = Float32Array.of(1, -1, 1, 1, -1, -1, -1, 1, -1, 1);
    const parts = encode(formatByName("binary"), matrix(1, 10, signs));
    expect([...parts.codes.bytes]).toEqual([0x8d, 0x02]);
    expect([...parts.scales.bytes]).toEqual([0x00, 0x3c]);
  });

  it("binary refuses a scale whose double is no 16-bit float", () => {
    const format = formatByName("binary");
    expect(() => encode(format, matrix(1, 2, Float32Array.of(32752, -32752)))).not.toThrow();
    expect(() => encode(format, matrix(1, 2, Float32Array.of(32776, -32776)))).toThrow(InputError);
  });

  it("int3 crosses bytes", () => {
    // Codes 1 2 3 4 5 6 from bit 0 on: 001 010 (0)11, then 1(00) … as little-endian bits
    // 100 010 110 001 101 011 → bytes 10001011 | 00011010 | 11 = 0xD1, 0x58, 0x03.
    const format = integer(3);
    const codes = Uint8Array.of(1, 2, 3, 4, 5, 6);
    const parts = format.pack({ codes, parameters: [{ scale: 1, offset: 0 }] }, 1, 6);
    expect([...parts.codes.bytes]).toEqual([0xd1, 0x58, 0x03]);
    expect([...decode(format, parts, 1, 6)]).toEqual([-3, -2, -1, 0, 1, 2]);
  });
});

describe("distortion of Gaussian weights, unit variance (methods.md 2.2)", () => {
  const n = 2 ** 19;
  const w = matrix(n / 128, 128, normals(generator(7), n));
  const meanSquare = (format: GroupFormat) => {
    const decoded = decode(format, encode(format, w), w.rows, w.cols);
    return w.data.reduce((sum, x, i) => sum + (x - decoded[i]) ** 2, 0) / n;
  };

  it.each([
    [2, [0.166, 0.21, 0.255], 0.591],
    [3, [0.03, 0.0383, 0.0468], 0.0757],
    [4, [0.00654, 0.00833, 0.0102], 0.0139],
  ] as const)("%i bits", (bits, [g32, g64, g128], symmetric) => {
    for (const [group, expected] of [
      [32, g32],
      [64, g64],
      [128, g128],
    ] as const) {
      expect(meanSquare(integer(bits, { offset: true, group })) / expected).toBeCloseTo(1, 1.5);
    }
    expect(meanSquare(integer(bits, { group: 128 })) / symmetric).toBeCloseTo(1, 1.5);
  });

  it("the clip search never loses, and wins most at two bits", () => {
    const search = { ...w, rows: 256, data: w.data.subarray(0, 256 * 128) };
    for (const bits of [2, 3, 4, 6] as const) {
      for (const offset of [false, true]) {
        const format = integer(bits, { offset, group: 64 });
        const error = (f: typeof format | ReturnType<typeof clipped>) => {
          const decoded = decode(f, encode(f, search), search.rows, search.cols);
          return search.data.reduce((sum, x, i) => sum + (x - decoded[i]) ** 2, 0) / search.data.length;
        };
        const [plain, best] = [error(format), error(clipped(format))];
        expect(best).toBeLessThan(plain);
        if (bits === 2 && !offset) expect(best).toBeLessThan(0.3 * plain);
      }
    }
  });

  it("the ternary scale has the least error of all", () => {
    const group = normals(generator(8), 256);
    const format = formatByName("tq2_0") as GroupFormat;
    const error = (scale: number) =>
      group.reduce((sum, x) => {
        const parameters = { scale, offset: 0 };
        return sum + (x - format.value(format.nearest(x, parameters), parameters)) ** 2;
      }, 0);
    const least = error(format.fitGroup(group).scale);
    for (let scale = 0.01; scale < 4; scale += 0.01)
      expect(error(scale)).toBeGreaterThanOrEqual(least * (1 - 1e-6));
  });
});

describe("NormalFloat", () => {
  // methods.md 5.2, and 2.5 for three and two bits.
  const published = [
    -1, -0.6961928, -0.5250731, -0.3949175, -0.2844414, -0.1847734, -0.09105, 0, 0.0795803, 0.1609302,
    0.2461123, 0.3379152, 0.4407098, 0.562617, 0.7229568, 1,
  ];

  it("has the published levels", () => {
    for (const [code, level] of normalFloatLevels(4).entries()) expect(level).toBeCloseTo(published[code], 6);
    const three = [-1, -0.478629, -0.217142, 0, 0.16093, 0.337915, 0.562617, 1];
    for (const [code, level] of normalFloatLevels(3).entries()) expect(level).toBeCloseTo(three[code], 5);
    for (const [code, level] of normalFloatLevels(2).entries())
      expect(level).toBeCloseTo([-1, 0, 0.337915, 1][code], 5);
  });

  it.each([4, 3, 2] as const)("are quantiles of the normal distribution: %i bits", (bits) => {
    const half = 2 ** (bits - 1);
    const last = (1 - 1 / 32 + (1 - 1 / 30)) / 2;
    const furthest = quantile(last);
    for (const [code, level] of normalFloatLevels(bits).entries()) {
      const p =
        code < half
          ? 1 - last + (code * (last - 0.5)) / (half - 1)
          : 0.5 + ((code - half + 1) * (last - 0.5)) / half;
      expect(level).toBeCloseTo(quantile(p) / furthest, 6);
    }
  });

  it("loses what is known of normal weights in groups of 64", () => {
    const n = 2 ** 19;
    const w = matrix(n / 128, 128, normals(generator(9), n));
    for (const [name, expected] of [
      ["nf4-g64", 0.00846],
      ["nf2-g64", 0.319],
    ] as const) {
      const format = formatByName(name);
      const decoded = decode(format, encode(format, w), w.rows, w.cols);
      const error = w.data.reduce((sum, x, i) => sum + (x - decoded[i]) ** 2, 0) / n;
      expect(Math.abs(error / expected - 1)).toBeLessThan(0.03);
    }
  });

  /** Φ⁻¹ by bisection of Simpson's rule. */
  function quantile(p: number): number {
    let [low, high] = [-4, 4];
    for (let i = 0; i < 50; i++) {
      const x = (low + high) / 2;
      let sum = 0;
      const [steps, h] = [400, x / 400];
      for (let k = 0; k <= steps; k++) {
        sum += (k === 0 || k === steps ? 1 : k % 2 ? 4 : 2) * Math.exp(-((k * h) ** 2) / 2);
      }
      if (0.5 + (sum * h) / 3 / Math.sqrt(2 * Math.PI) < p) low = x;
      else high = x;
    }
    return (low + high) / 2;
  }
});

describe("clip search", () => {
  it("gives heavy weights their way", () => {
    const w = Float32Array.from({ length: 32 }, (_, i) => (i === 0 ? 1 : 0.1 * Math.sin(i)));
    const importance = new Float32Array(32).fill(1e-6);
    importance[0] = 1;
    const format = clipped(integer(2, { group: 32 }));
    const decoded = decode(format, encode(format, matrix(1, 32, w), importance), 1, 32);
    expect(Math.abs(decoded[0] - 1)).toBeLessThan(1e-3);
  });

  it("keeps a group of zeros and leaves formats without candidates alone", () => {
    const format = clipped(integer(4, { offset: true }));
    expect(decode(format, encode(format, matrix(1, 9)), 1, 9)).toEqual(new Float32Array(9));
    expect(clipped(formatByName("tq2_0"))).toBe(formatByName("tq2_0"));
    expect(clipped(formatByName("f16"))).toBe(formatByName("f16"));
  });
});

describe("names", () => {
  it("suggests the nearest name", () => {
    expect(() => formatByName("int4-g46")).toThrow(InputError);
    expect(() => formatByName("int4-g46")).toThrow("did you mean int4-g64?");
    expect(() => formatByName("tq2")).toThrow("did you mean tq2_0?");
  });

  it("are given once", () => {
    expect(() => addFormat(formatByName("int4"))).toThrow("int4 exists already");
  });
});
