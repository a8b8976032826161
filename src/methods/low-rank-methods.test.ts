import { describe, expect, it } from "vitest";
import { openBackend } from "../backends/index.ts";
import { openReference } from "../backends/reference.ts";
import { bitsPerWeight, decodeWeight, encodeWeight, formatByName } from "../formats/index.ts";
import { generator, normals } from "../tensor/random.ts";
import { hostTensor, type Matrix, matrix, type Tensor, transposed } from "../tensor/tensor.ts";
import { bitsByUse, bytesOf, describeWeight, type Weight } from "../tensor/weight.ts";
import { alternate } from "./alternate.ts";
import { choleskyOf } from "./cholesky.ts";
import { decomposition, rounding } from "./compressor.ts";
import { gptq } from "./gptq.ts";
import { compressionByName } from "./index.ts";
import { int21 } from "./int2.1.ts";
import { loftq } from "./loftq.ts";
import { lorc } from "./lorc.ts";
import { type ErrorWeights, lowRankOf, timesTransposed, weighted } from "./low-rank.ts";
import { lplr } from "./lplr.ts";
import { lqLora } from "./lq-lora.ts";
import type { Decomposition } from "./method.ts";
import { reallm } from "./reallm.ts";
import { outputError, planted, toy } from "./toy.suite.ts";
import { difference } from "./vector-codes.ts";

const backend = await openBackend("wasm", {}).catch(() => openReference());

function squares({ data }: Matrix): number {
  return data.reduce((sum, x) => sum + x * x, 0);
}

function put(method: Decomposition<object>, W: Matrix, options: object, more: object = {}): Promise<Weight> {
  return decomposition(method, options).compress(W, { backend, ...more });
}

async function lost(W: Matrix, weight: Weight | Promise<Weight>): Promise<number> {
  return squares(difference(W, decodeWeight(await weight)));
}

function upload(H: Float32Array): Tensor {
  const n = Math.sqrt(H.length);
  return backend.upload(hostTensor([n, n], H));
}

/** Σ_{k ≥ rank} σ_k²: what the best low rank leaves. */
async function tail(A: Matrix, rank: number): Promise<number> {
  const tall = A.rows >= A.cols ? A : transposed(A);
  const u = backend.upload(hostTensor([tall.rows, tall.cols], tall.data.slice()));
  const s = backend.zeros([tall.cols]);
  backend.svd(u, s, backend.zeros([tall.cols, tall.cols]));
  const rest = ((await backend.read(s)) as Float32Array).subarray(rank);
  return rest.reduce((sum, x) => sum + x * x, 0);
}

function plus(A: Matrix, B: Matrix): Matrix {
  return matrix(
    A.rows,
    A.cols,
    A.data.map((a, i) => a + B.data[i]),
  );
}

const noise = (rows: number, cols: number, deviation = 1, seed = 4) =>
  matrix(rows, cols, normals(generator(seed), rows * cols, deviation));

describe("the best low rank under weights", async () => {
  const { W, H } = toy(40, 64, 5);
  const positive = (n: number, seed: number) => normals(generator(seed), n).map((x) => Math.abs(x) + 0.05);
  const cases: [string, ErrorWeights][] = [
    ["none", {}],
    ["columns", { columns: positive(64, 1) }],
    ["rows and columns", { rows: positive(40, 2), columns: positive(64, 3) }],
    ["H", { L: await choleskyOf(backend, H) }],
    ["rows and H", { rows: positive(40, 2), L: await choleskyOf(backend, H) }],
  ];

  it.each(cases)("%s: leaves what it must, and no neighbour leaves less", async (_, weights) => {
    const { a, b } = await lowRankOf(backend, W, { rank: 6, weights });
    const errorOf = async (left: Matrix, right: Matrix) =>
      squares(
        await weighted(
          backend,
          difference(W, await timesTransposed(backend, left, transposed(right))),
          weights,
        ),
      );
    const error = await errorOf(a, b);
    const least = await tail(await weighted(backend, W, weights), 6);
    expect(error).toBeGreaterThan(least * (1 - 1e-4));
    expect(error).toBeLessThan(least * 1.01);
    for (let seed = 1; seed <= 5; seed++) {
      const near = (m: Matrix) =>
        plus(m, noise(m.rows, m.cols, 0.02 * Math.sqrt(squares(m) / m.data.length), seed));
      expect(await errorOf(near(a), near(b))).toBeGreaterThan(error);
    }
  });
});

it("alternation keeps the best round, whose error never rises with more of them", async () => {
  const W = noise(8, 16);
  const errors = [5, 3, 4, 2, 6];
  for (const [untilRise, expected] of [
    [false, [5, 3, 3, 2, 2]],
    [true, [5, 3, 3, 3, 3]],
  ] as const) {
    const best = [1, 2, 3, 4, 5].map(async (rounds) => {
      let round = 0;
      const half = async () =>
        encodeWeight(
          formatByName("f32"),
          [8, 16],
          W.data.map((x) => x / 3),
        );
      const errorOf = async () => errors[round++];
      return (await alternate(W, { first: half, second: half, errorOf, rounds, untilRise })).error;
    });
    expect(await Promise.all(best)).toEqual(expected);
  }
});

describe("lorc", () => {
  it("adds the largest directions of the error: what is left are its other singular values, fewer with every rank", async () => {
    const W = noise(48, 64);
    const base = encodeWeight(formatByName("int3-offset-g32"), [48, 64], W.data);
    const E = difference(W, decodeWeight(base));
    let before = Infinity;
    for (const rank of [1, 2, 4, 8, 16]) {
      const weight = await put(lorc, W, { format: "int3-offset-g32", clip: false, rank });
      const error = await lost(W, weight);
      expect(Math.abs(error / (await tail(E, rank)) - 1)).toBeLessThan(0.01);
      expect(error).toBeLessThan(before);
      before = error;
      expect(bitsByUse(weight)["low rank"]).toBe(16 * rank * (48 + 64));
    }
  });

  it("with calibration spreads errors, and does best by all of H", async () => {
    const layer = toy(64, 128, 6);
    const error = async (options: object) => {
      const context = { H: upload(layer.H) };
      const weight = await put(lorc, layer.W, { format: "int2-offset", rank: 4, ...options }, context);
      return outputError(layer, decodeWeight(weight).data);
    };
    const [best, diag, none, nearest] = await Promise.all(
      [{}, { weighting: "diag" }, { weighting: "none" }, { base: "rtn" }].map(error),
    );
    expect(best).toBeLessThan(diag);
    expect(best).toBeLessThan(none);
    expect(best).toBeLessThan(nearest);
  });

  it("says what it needs", async () => {
    const W = noise(16, 32);
    await expect(put(lorc, W, { base: "gptq" })).rejects.toThrow("lorc: base gptq needs calibration text");
    await expect(put(lorc, W, { weighting: "H" })).rejects.toThrow(
      "lorc: weighting H needs calibration text",
    );
  });

  it("stands on any format", async () => {
    const W = noise(16, 256);
    for (const format of ["q4_0", "tq2_0", "int4-g64", "q4_k", "trellis3"]) {
      const weight = await put(lorc, W, { format, base: "rtn", rank: 2 });
      expect(describeWeight(weight)).toBe(`sum(${format}, lowRank(f16, f16))`);
      expect(weight.shape).toEqual([16, 256]);
    }
  });
});

describe("loftq and lq-lora", () => {
  it("one round of loftq with nearest codes is lorc with them", async () => {
    const W = noise(32, 64);
    const options = { format: "int3-g32", base: "rtn", rank: 3 };
    expect(await put(loftq, W, { ...options, rounds: 1 })).toEqual(await put(lorc, W, options));
  });

  it("lq-lora finds a planted part of rank 8: what is lost is that of the rest in its own codes", async () => {
    const rest = noise(64, 128, 0.3);
    const W = plus(planted(64, 128, 8, 1), rest);
    const error = await lost(W, put(lqLora, W, { format: "int2-offset-g32", rank: 8, factors: "f16" }));
    // Four uniform levels lose 0.119 of a Gaussian's variance (Max, 1960), fitted to 32 numbers less.
    expect(error / squares(rest)).toBeLessThan(0.125);
    const plain = await lost(W, encodeWeight(formatByName("int2-offset-g32"), [64, 128], W.data));
    expect(error).toBeLessThan(plain / 20);
  });

  it.each([loftq, lqLora] as Decomposition<object>[])(
    "$name: five rounds lose less than one",
    async (method) => {
      const W = plus(planted(48, 96, 3, 0.4), noise(48, 96));
      const errors: number[] = [];
      for (const rounds of [1, 2, 3, 4, 5])
        errors.push(
          await lost(W, put(method, W, { format: "int2-offset-g32", rank: 4, factors: "f16", rounds })),
        );
      for (let i = 1; i < 5; i++) expect(errors[i]).toBeLessThanOrEqual(errors[i - 1] * (1 + 1e-6));
      expect(errors[4]).toBeLessThan(0.99 * errors[0]);
    },
  );

  it("codes chosen again with errors spread never have more output error than the nearest ones", async () => {
    const layer = toy(64, 128, 6);
    for (const method of [loftq, lqLora] as Decomposition<object>[]) {
      const error = async (base: string) => {
        const options = { format: "int2-offset", rank: 4, base };
        const weight = await put(method, layer.W, options, { H: upload(layer.H) });
        return outputError(layer, decodeWeight(weight).data);
      };
      expect(await error("gptq")).toBeLessThan(0.7 * (await error("rtn")));
    }
  });

  it.each([
    ["lq-lora", lqLora, { format: "int2-offset-g32" }],
    ["reallm", reallm, { bits: 2, length: 2, group: 32 }],
  ] as [string, Decomposition<object>, object][])(
    "%s: under Fisher weights the weighted error is less than without",
    async (name, method, options) => {
      const W = noise(48, 64);
      const spread = (n: number, seed: number) => normals(generator(seed), n).map((x) => Math.exp(1.5 * x));
      const [r, c] = [spread(48, 1), spread(64, 2)];
      const fisher = Float32Array.from({ length: 48 * 64 }, (_, i) => r[Math.floor(i / 64)] * c[i % 64]);
      const error = async (weighting: string) => {
        const weight = await put(method, W, { ...options, rank: 6, weighting }, { fisher });
        return difference(W, decodeWeight(weight)).data.reduce((sum, e, i) => sum + fisher[i] * e * e, 0);
      };
      expect(await error("fisher")).toBeLessThan(0.7 * (await error("none")));
      await expect(put(method, W, { ...options, weighting: "fisher" })).rejects.toThrow(
        `${name}: weighting fisher needs calibration text; give some`,
      );
    },
  );
});

describe("lplr", () => {
  /** Singular values that fall as 0.9^k. */
  const decaying = (rows: number, cols: number) => {
    const m = matrix(rows, cols);
    for (let k = 0; k < 40; k++) {
      const [x, y] = [normals(generator(k), rows), normals(generator(100 + k), cols)];
      for (let i = 0; i < m.data.length; i++) m.data[i] += 0.8 ** k * x[Math.floor(i / cols)] * y[i % cols];
    }
    return m;
  };

  it("recovers a matrix of its rank, and its bits are those of the formula", async () => {
    const [rows, cols, m] = [60, 90, 8];
    const W = planted(rows, cols, m, 0.3);
    const weight = await put(lplr, W, { rank: m, left: "int8", right: "int8" });
    expect((await lost(W, weight)) / squares(W)).toBeLessThan(0.01);
    const precise = put(lplr, W, { rank: m, left: "int8", right: "f16" });
    expect(await lost(W, precise)).toBeLessThan(await lost(W, weight));
    expect(8 * bytesOf(weight)).toBe(8 * m * (rows + cols) + 16 * (rows + m));
    expect(describeWeight(weight)).toBe("lowRank(int8, int8)");
  });

  it("takes the largest rank that its bits allow", async () => {
    const W = decaying(96, 64);
    for (const bits of [1, 2, 3]) {
      const weight = await put(lplr, W, { bits });
      const rank = (weight.expression as { a: Weight }).a.shape[1];
      const of = (m: number) => Math.ceil(m / 2) * 8 * 96 + 16 * 96 + m * (4 * 64 + 16);
      expect(8 * bytesOf(weight)).toBe(of(rank));
      expect(of(rank)).toBeLessThanOrEqual(bits * 96 * 64);
      expect(of(rank + 1)).toBeGreaterThan(bits * 96 * 64);
    }
  });

  it("its second factor is the least squares solution for the first as it is stored", async () => {
    const W = noise(60, 40);
    const { expression } = await put(lplr, W, { rank: 10, left: "int4", right: "f32" });
    const { a, b } = expression as { a: Weight; b: Weight };
    const L = decodeWeight(a);
    const E = difference(W, await timesTransposed(backend, L, transposed(decodeWeight(b))));
    // The error is orthogonal to all columns of L.
    const dots = await timesTransposed(backend, transposed(L), transposed(E));
    expect(squares(dots)).toBeLessThan(1e-9 * squares(L) * squares(E));
  });

  it("loses less than codes of as many bits where singular values fall fast", async () => {
    const W = decaying(128, 128);
    const direct = formatByName("int2-offset-g128");
    const bits = bitsPerWeight(direct, 128, 128);
    const error = await lost(W, put(lplr, W, { bits, left: "int8", right: "int8" }));
    expect(error).toBeLessThan(0.1 * (await lost(W, encodeWeight(direct, [128, 128], W.data))));
  });

  it("under H the output error is less", async () => {
    const layer = toy(64, 128, 6);
    const error = async (weighting: string) => {
      const weight = await put(
        lplr,
        layer.W,
        { rank: 24, left: "int8", right: "int8", weighting },
        { H: upload(layer.H) },
      );
      return outputError(layer, decodeWeight(weight).data);
    };
    expect(await error("H")).toBeLessThan(0.7 * (await error("none")));
  });
});

describe("int2.1", () => {
  const layer = toy(256, 256, 6);
  const context = () => ({ H: upload(layer.H) });

  it("started from nothing it is gptq, and a start from the error is nearer to the float matrix", async () => {
    const plain = await rounding(gptq, formatByName("int2-offset")).compress(layer.W, {
      backend,
      ...context(),
    });
    const zero = await put(int21, layer.W, { start: "zero", clip: false }, context());
    expect(decodeWeight(zero)).toEqual(decodeWeight(plain));
    const [, { expression }] = (zero.expression as unknown as { terms: Weight[] }).terms;
    const { b } = expression as { b: Weight };
    expect(squares(decodeWeight(b))).toBeGreaterThan(0.5); // so that the first step moves A
    const started = await put(int21, layer.W, { clip: false }, context());
    const error = (weight: Weight) => outputError(layer, decodeWeight(weight).data);
    expect(error(started)).toBeLessThan(error(plain));
  });

  it("its correction is as large as a twentieth of the codes allows", async () => {
    const weight = await put(int21, layer.W, { overhead: 0.2 }, context());
    const base = 256 * (256 / 4 + 4);
    expect(bytesOf(weight)).toBeLessThanOrEqual(1.2 * base);
    expect(bytesOf(weight) + 2 * 512).toBeGreaterThan(1.2 * base);
  });
});

it.each([
  ["lorc", { rank: 65 }, "lorc: a rank of 65 is more than 64, the most of 64×96"],
  ["loftq", { rank: 65 }, "loftq: a rank of 65 is more than 64"],
  ["lorc", { format: "int4-g64" }, "rows of 96"],
  ["loftq", { format: "int5" }, 'format: no format is called "int5"'],
  ["loftq", { rounds: 0 }, "loftq: rounds"],
  [
    "lorc",
    { format: "trellis2", base: "gptq" },
    "lorc: gptq needs a format of codes and scales, got trellis2",
  ],
  ["lorc", { weighting: "Fisher" }, "lorc: weighting: there is no Fisher; did you mean fisher?"],
  ["lq-lora", {}, "lq-lora: format"],
  ["lq-lora", { format: "int3-g64" }, "rows of 96"],
  ["lplr", { bits: 0.1 }, "lplr: 0.1 bits a weight of 64×96 hold no factors of int4 and int4; give more"],
  ["lplr", { rank: 65 }, "lplr: a rank of 65 is more than 64"],
  ["lplr", { rank: 8, left: "int4-g32" }, "rows of 8"],
  ["int2.1", { rank: 70 }, "int2.1: a rank of 70 is more than 64"],
  ["int2.1", { ranks: 3 }, "int2.1: unknown key ranks; did you mean rank?"],
])("%s refuses %o", (name, options, message) => {
  const method = compressionByName(name) as Decomposition<object>;
  expect(() => decomposition(method, options).check({ rows: 64, cols: 96 })).toThrow(message);
});
