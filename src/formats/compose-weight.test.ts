import { describe, expect, it } from "vitest";
import { generator, normals } from "../tensor/random.ts";
import { type Matrix, matrix, ShapeError } from "../tensor/tensor.ts";
import { bits, bytesOf, type Expression, type Part, packedWeight, type Weight } from "../tensor/weight.ts";
import { packCodes } from "./codebook.ts";
import { partOf } from "./format.ts";
import { decodeWeight, encode, encodeWeight, formatByName } from "./index.ts";

const [rows, cols] = [3, 5];
const random = generator(1);
const A = matrix(rows, cols, normals(random, rows * cols));
const B = matrix(rows, cols, normals(random, rows * cols));

function plain(m: Matrix): Weight {
  return packedWeight([m.rows, m.cols], "f32", encode(formatByName("f32"), m));
}

function weight(expression: Expression, shape: readonly number[] = [rows, cols]): Weight {
  return { shape, expression };
}

function floats(values: readonly number[]): Part {
  return partOf("f32", [values.length], Float32Array.from(values));
}

describe("decodeWeight", () => {
  it("packed: what the format says", () => {
    const format = formatByName("int4");
    const parts = encode(format, A);
    expect(decodeWeight(packedWeight([rows, cols], "int4", parts)).data).toHaveLength(15);
    expect(decodeWeight(plain(A))).toEqual(A);
  });

  it("packed: a vector is one row, a scalar one number", () => {
    const gain = packedWeight([5], "f32", encode(formatByName("f32"), matrix(1, 5)));
    expect(decodeWeight(gain)).toEqual(matrix(1, 5));
    const scalar = packedWeight([], "f32", encode(formatByName("f32"), matrix(1, 1, Float32Array.of(7))));
    expect(decodeWeight(scalar)).toEqual(matrix(1, 1, Float32Array.of(7)));
  });

  it("sum: A + B", () => {
    const sum = decodeWeight(weight({ kind: "sum", terms: [plain(A), plain(B)] }));
    for (let i = 0; i < 15; i++) expect(sum.data[i]).toBe(Math.fround(A.data[i] + B.data[i]));
  });

  it("product and low rank: A · I = A, and a row times a column", () => {
    const identity = matrix(cols, cols);
    for (let i = 0; i < cols; i++) identity.data[i * cols + i] = 1;
    expect(decodeWeight(weight({ kind: "product", factors: [plain(A), plain(identity)] }))).toEqual(A);
    const a = plain(matrix(2, 1, Float32Array.of(2, 3)));
    const b = plain(matrix(1, 2, Float32Array.of(5, 7)));
    const outer = decodeWeight(weight({ kind: "lowRank", a, b }, [2, 2]));
    expect([...outer.data]).toEqual([10, 14, 15, 21]);
  });

  it("hadamard: orthonormal and symmetric, alone and at the ends of a product", () => {
    const mixing = (n: number, block: number) => weight({ kind: "hadamard", block }, [n, n]);
    const H = decodeWeight(mixing(12, 4));
    for (let i = 0; i < 12; i++) {
      for (let j = 0; j < 12; j++) {
        let dot = 0;
        for (let k = 0; k < 12; k++) dot += H.data[i * 12 + k] * H.data[j * 12 + k];
        expect(dot).toBeCloseTo(i === j ? 1 : 0, 6);
        expect(H.data[i * 12 + j]).toBe(H.data[j * 12 + i]);
      }
    }
    const M = matrix(8, 12, normals(random, 96));
    const [left, right] = [decodeWeight(mixing(8, 8)), H].map(plain);
    const fast = decodeWeight(
      weight({ kind: "product", factors: [mixing(8, 8), plain(M), mixing(12, 4)] }, [8, 12]),
    );
    const dense = decodeWeight(weight({ kind: "product", factors: [left, plain(M), right] }, [8, 12]));
    for (const [i, value] of dense.data.entries()) expect(fast.data[i]).toBeCloseTo(value, 5);
    const alone = decodeWeight(weight({ kind: "product", factors: [mixing(8, 8), mixing(8, 8)] }, [8, 8]));
    for (const [i, value] of alone.data.entries()) expect(value).toBeCloseTo(i % 9 === 0 ? 1 : 0, 6);
  });

  it("codebook: rows of vectors out of the book", () => {
    const book = plain(matrix(3, 2, Float32Array.of(0, 1, 2, 3, 4, 5)));
    const codes = partOf("u8", [2, 1], Uint8Array.of(0b00_10, 0b01_01)); // the first code in the low bits
    const m = decodeWeight(weight({ kind: "codebook", codes, codeBits: 2, book }, [2, 4]));
    expect([...m.data]).toEqual([4, 5, 0, 1, 2, 3, 2, 3]);
    const outside = partOf("u8", [2, 1], Uint8Array.of(0b11_10, 0));
    expect(() =>
      decodeWeight(weight({ kind: "codebook", codes: outside, codeBits: 2, book }, [2, 4])),
    ).toThrow("code 3 is outside its codebook of 3 entries");
  });

  it("codebook: codes of 12 bits cross bytes", () => {
    const book = plain(
      matrix(
        4096,
        1,
        Float32Array.from({ length: 4096 }, (_, i) => i),
      ),
    );
    // 0xabc and 0x123, low bits first: bc, 3a, 12
    const codes = partOf("u8", [1, 3], Uint8Array.of(0xbc, 0x3a, 0x12));
    const m = decodeWeight(weight({ kind: "codebook", codes, codeBits: 12, book }, [1, 2]));
    expect([...m.data]).toEqual([0xabc, 0x123]);
  });

  it("decoder: patches down each column of them, drawn by convolutions of what lies around", () => {
    const numbers = (r: number, c: number) => plain(matrix(r, c, normals(random, r * c)));
    const [patch, channels] = [4, 3];
    const latent = numbers(6, 4 * channels);
    const layers = [
      { kernel: 3, stride: 2, weights: numbers(4 * 2, 9 * channels), biases: numbers(1, 4 * 2) },
      { kernel: 3, stride: 1, weights: numbers(1, 9 * 2), biases: numbers(1, 1) },
    ];
    const m = decodeWeight(weight({ kind: "decoder", patch, latent, layers }, [8, 12]));
    const [z, w, b, v, a] = [latent, ...layers.flatMap(({ weights, biases }) => [weights, biases])].map(
      (part) => decodeWeight(part).data,
    );
    const inside = (i: number, j: number, size: number) => i >= 0 && j >= 0 && i < size && j < size;
    const hidden = (image: number, r: number, c: number, o: number) => {
      const row = ((r % 2) * 2 + (c % 2)) * 2 + o;
      let sum = b[row];
      for (const [tap, [i, j]] of taps.entries()) {
        const [y, x] = [Math.floor(r / 2) + i, Math.floor(c / 2) + j];
        for (let k = 0; inside(y, x, 2) && k < channels; k++)
          sum += w[row * 27 + tap * channels + k] * z[image * 12 + (y * 2 + x) * channels + k];
      }
      const u = Math.sqrt(2 / Math.PI) * (sum + 0.044715 * sum ** 3);
      return 0.5 * sum * (1 + Math.tanh(u));
    };
    const taps = [-1, 0, 1].flatMap((i) => [-1, 0, 1].map((j) => [i, j]));
    for (let r = 0; r < 8; r++) {
      for (let c = 0; c < 12; c++) {
        const image = Math.floor(c / patch) * 2 + Math.floor(r / patch);
        let sum = a[0];
        for (const [tap, [i, j]] of taps.entries()) {
          const [y, x] = [(r % patch) + i, (c % patch) + j];
          for (let o = 0; inside(y, x, patch) && o < 2; o++) sum += v[tap * 2 + o] * hidden(image, y, x, o);
        }
        expect(m.data[r * 12 + c]).toBeCloseTo(sum, 4);
      }
    }
  });

  const one = plain(matrix(1, 1, Float32Array.of(1)));
  const layer = { kernel: 1, stride: 1, weights: one, biases: one };
  const wide = plain(matrix(4, 1));
  it.each([
    [{ patch: 2 }, "patches of 2 do not fill 3×5; take 1"],
    [{ layers: [] }, "a decoder has 1 to 16 layers, met 0"],
    [{ layers: [{ ...layer, kernel: 2 }] }, "the kernel of layer 0 must be an odd number up to 15, is 2"],
    [{ layers: [{ ...layer, stride: 0 }] }, "the stride of layer 0 must be a size, is 0"],
    [{ layers: [{ ...layer, stride: 2 }] }, "strides that come to 2 must divide a patch of 1"],
    [{ latent: plain(matrix(14, 1)) }, "the latent must be 15 images of 1×1, has shape 14×1"],
    [{ layers: [{ ...layer, weights: wide }] }, "the weights of layer 0 must be 1×1, are 4×1"],
    [
      { layers: [{ ...layer, weights: wide, biases: plain(matrix(1, 4)) }, layer] },
      "the weights of layer 1 must be 1×4, are 1×1",
    ],
    [{ layers: [{ ...layer, biases: wide }] }, "the biases of layer 0 must be 1×1, are 4×1"],
  ])("decoder: refuses %o", (changed, message) => {
    const latent = plain(matrix(15, 1));
    const whole = { kind: "decoder" as const, patch: 1, latent, layers: [layer], ...changed };
    expect(() => decodeWeight(weight(whole))).toThrow(message);
  });

  it("scaleRows and scaleColumns: powers of two move exponents", () => {
    const byRow = decodeWeight(weight({ kind: "scaleRows", scales: floats([1, 2, 4]), of: plain(A) }));
    const byColumn = decodeWeight(
      weight({ kind: "scaleColumns", scales: floats([1, 2, 4, 8, 16]), of: plain(A) }),
    );
    for (let i = 0; i < 15; i++) {
      expect(byRow.data[i]).toBe(A.data[i] * 2 ** Math.floor(i / cols));
      expect(byColumn.data[i]).toBe(A.data[i] * 2 ** (i % cols));
    }
  });

  it("codebook with down: vectors run down the columns", () => {
    const book = plain(matrix(3, 2, Float32Array.of(1, 2, 3, 4, 5, 6)));
    const codes = packCodes([2, 0, 1, 1, 1, 0], 2, 3, 2);
    const down = weight({ kind: "codebook", codes, codeBits: 2, book, down: true }, [4, 3]);
    expect(Array.from(decodeWeight(down).data)).toEqual([5, 1, 3, 6, 2, 4, 3, 3, 1, 4, 4, 2]);
  });

  it("placeColumns: columns stand where they are told to, the others are 0", () => {
    const of = plain(matrix(2, 2, Float32Array.of(1, 2, 3, 4)));
    const placed = (places: number[]) =>
      decodeWeight(
        weight(
          { kind: "placeColumns", places: partOf("u16", [places.length], Uint16Array.from(places)), of },
          [2, 3],
        ),
      );
    expect(Array.from(placed([2, 0]).data)).toEqual([2, 0, 1, 4, 0, 3]);
    expect(() => placed([2, 3])).toThrow("weight: column 1 would stand at place 3 of 3");
    expect(() => placed([2])).toThrow("weight: 2 columns need as many places, got 1");
  });

  it("permuteColumns: column c is column order[c]; twice a swap is nothing", () => {
    const order = partOf("i32", [cols], Int32Array.of(1, 0, 2, 4, 3));
    const swapped = weight({ kind: "permuteColumns", order, of: plain(A) });
    expect(decodeWeight(swapped).data[0]).toBe(A.data[1]);
    expect(decodeWeight(swapped).data[cols + 3]).toBe(A.data[cols + 4]);
    expect(decodeWeight(weight({ kind: "permuteColumns", order, of: swapped }))).toEqual(A);
  });

  it("sign: a set bit is +1; rows start on a byte", () => {
    const bits = partOf("u8", [2, 2], Uint8Array.of(0b10000001, 0b1, 0, 0b10));
    const m = decodeWeight(weight({ kind: "sign", bits }, [2, 10]));
    expect([...m.data]).toEqual([1, -1, -1, -1, -1, -1, -1, 1, 1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 1]);
  });

  it("parts of other types are read as numbers", () => {
    const ones = plain(matrix(1, 2, Float32Array.of(1, 1)));
    for (const scales of [
      partOf("f16", [2], Float16Array.of(0.5, -3)),
      partOf("bf16", [2], Uint16Array.of(0x3f00, 0xc040)),
    ]) {
      expect([...decodeWeight(weight({ kind: "scaleColumns", scales, of: ones }, [1, 2])).data]).toEqual([
        0.5, -3,
      ]);
    }
    for (const scales of [partOf("i8", [2], Int8Array.of(2, -3)), partOf("i16", [2], Int16Array.of(2, -3))]) {
      expect([...decodeWeight(weight({ kind: "scaleColumns", scales, of: ones }, [1, 2])).data]).toEqual([
        2, -3,
      ]);
    }
  });

  it("refuses sums and products that do not fit", () => {
    const small = plain(matrix(1, 2));
    expect(() => decodeWeight(weight({ kind: "sum", terms: [plain(A), small] }))).toThrow(ShapeError);
    expect(() => decodeWeight(weight({ kind: "product", factors: [plain(A), small] }))).toThrow(ShapeError);
  });
});

describe("encodeWeight", () => {
  it("keeps a tensor's shape, of any rank, and comes back", () => {
    for (const shape of [[6], [2, 3], [1, 2, 3], []]) {
      const data = normals(
        random,
        Math.max(
          1,
          shape.reduce((a, b) => a * b, 1),
        ),
      );
      const stored = encodeWeight(formatByName("f32"), shape, data);
      expect(stored.shape).toEqual(shape);
      expect(stored.expression).toMatchObject({ format: "f32", parts: { data: { shape } } });
      expect(decodeWeight(stored).data).toEqual(data);
    }
  });
});

describe("bits of a weight", () => {
  it("are those of its parts, a shared part counted once", () => {
    const format = formatByName("int4-g32");
    const packed = packedWeight([2, 64], "int4-g32", encode(format, matrix(2, 64, normals(random, 128))));
    expect(bits(packed)).toEqual({ codes: 2 * 64 * 4, scales: 2 * 2 * 16 });
    expect(bytesOf(packed)).toBe(64 + 8);
    const twice = weight({ kind: "sum", terms: [packed, packed] }, [2, 64]);
    expect(bits(twice)).toEqual({ "terms.0.codes": 512, "terms.0.scales": 64 });
  });
});
