import { expect, it } from "vitest";
import { openBackend } from "../backends/index.ts";
import { openReference } from "../backends/reference.ts";
import { decodeWeight } from "../formats/index.ts";
import { drawn } from "../kernels/compound.ts";
import { generator, normals } from "../tensor/random.ts";
import { hostTensor, type Matrix, matrix } from "../tensor/tensor.ts";
import {
  bits,
  bitsByUse,
  bytesOf,
  describeWeight,
  type Part,
  partsOf,
  type Weight,
} from "../tensor/weight.ts";
import { decomposition } from "./compressor.ts";
import { type DecoderOptions, decoderCodes } from "./decoder-codes.ts";
import { betterCodes, nearestTo } from "./decoder-search.ts";
import { decoderWithin, encoderFor, initialLayers } from "./decoder-shape.ts";
import { sweepDrawn } from "./decoder-sweep.ts";
import { trainDecoder } from "./decoder-training.ts";
import type { Tried } from "./method.ts";
import { reallm } from "./reallm.ts";
import { outputError, toy } from "./toy.suite.ts";
import { vectorCodes } from "./vector-codes.ts";

const backend = await openBackend("wasm", {}).catch(() => openReference());
const size = 64;
const noise = matrix(size, size, normals(generator(1), size * size));

/** Some waves across each other. */
const smooth = (() => {
  const w = normals(generator(2), 18);
  const m = matrix(size, size);
  for (let at = 0; at < size * size; at++) {
    const [r, c] = [Math.floor(at / size), at % size];
    for (let k = 0; k < 18; k += 3) m.data[at] += Math.sin(0.15 * (w[k] * r + w[k + 1] * c) + 6 * w[k + 2]);
  }
  return m;
})();

const options: DecoderOptions = {
  patch: 16,
  strides: [2, 2],
  codes: 1,
  length: 4,
  entries: 16,
  decoderBits: 1.2,
  width: 48,
  format: "int8",
  group: size,
  steps: 150,
  batch: 8,
};

function away(A: Matrix, w: Weight): number {
  const B = decodeWeight(w).data;
  let [lost, all] = [0, 0];
  for (const [i, a] of A.data.entries()) {
    lost += (a - B[i]) ** 2;
    all += a ** 2;
  }
  return lost / all;
}

const bitsOf = (w: Weight) => (8 * bytesOf(w)) / (w.shape[0] * w.shape[1]);

it("layers begin as the identity where a latent has as many values as there are weights", async () => {
  const shape = { ...options, strides: [2, 3], patch: 12, codes: 36, length: 1, width: 300 };
  const layers = decoderWithin("decoder", shape, 2.6e6);
  const random = generator(3);
  const quiet = (made: readonly { shape: readonly number[]; data: ArrayLike<number> }[]) =>
    made.map(({ shape, data }) =>
      backend.upload(
        hostTensor(
          shape,
          Float32Array.from(data, (x) => Math.trunc(x + Math.sign(x) * 0.5)),
        ),
      ),
    );
  const [weights, biases] = [0, 1].map((odd) =>
    quiet(initialLayers(layers, random, 36)).filter((_, i) => i % 2 === odd),
  );
  // The encoder's order of values: squares of the last stride inside of those of the first.
  const x = normals(generator(4), 2 * 12 * 12);
  const images = backend.upload(hostTensor([24, 12], x));
  const inner = backend.pixelShuffle(images, 12, 12, 1, 3, 1);
  const z = backend.pixelShuffle(inner, 4, 4, 9, 2, 1);
  const made = drawn(
    backend,
    z,
    layers.map((layer, i) => ({ ...layer, weights: weights[i], biases: biases[i] })),
  );
  for (const [i, value] of (await backend.read(made)).entries()) expect(value).toBeCloseTo(x[i], 4);
  expect(encoderFor(shape).map(({ channels, out }) => [channels, out])).toEqual([
    [9, 72],
    [4 * 72, 72],
    [72, 36],
  ]);
});

it("a search takes better codes only, and finds those of a decoder that only looks up", async () => {
  const book = matrix(4, 1, Float32Array.of(-3, -1, 1, 3));
  const layers = [{ side: 8, channels: 1, kernel: 3, stride: 1, out: 1 }];
  const x = normals(generator(5), 3 * 64, 2);
  const m = normals(generator(6), 3 * 64).map(Math.abs);
  const settings = { patch: 8, layers, perPlace: 1, neighbours: nearestTo(book, 3), near: 3 };
  const errorOf = (made: ArrayLike<number>) => x.reduce((sum, v, i) => sum + m[i] * (made[i] - v) ** 2, 0);
  const plain = async (codes: Int32Array) => Float32Array.from(codes, (k) => book.data[k]);
  const found = await betterCodes({ codes: new Int32Array(3 * 64), x, m, draw: plain }, settings);
  for (const [i, k] of found.entries()) {
    for (const v of book.data)
      expect(Math.abs(book.data[k] - x[i])).toBeLessThanOrEqual(Math.abs(v - x[i]) + 1e-6);
  }
  // Neighbours in a row that add to each other.
  const mixed = async (codes: Int32Array) =>
    Float32Array.from(codes, (k, i) => book.data[k] + (i % 8 > 0 ? 0.4 * book.data[codes[i - 1]] : 0));
  const better = await betterCodes({ codes: found, x, m, draw: mixed }, settings);
  expect(errorOf(await mixed(better))).toBeLessThan(0.9 * errorOf(await mixed(found)));
});

it("what is stored is what was trained: its error, its bits", async () => {
  const [w] = await decoderCodes(backend, [{ W: smooth }], { ...options, steps: 40 });
  expect(describeWeight(w)).toBe("scaleGroups(f16, decoder(codebook(f16), 4 × int8))");
  const split = bitsByUse(w);
  expect(split).toMatchObject({ codes: (size / 4) ** 2 * 4, scales: size * 16, codebooks: 16 * 4 * 16 });
  expect(split.decoder).toBeLessThanOrEqual(1.2 * size * size);
  expect(Object.values(split).reduce((a, b) => a + b)).toBe(8 * bytesOf(w));

  const layers = decoderWithin("decoder", options, 1.2 * size * size);
  const x = normals(generator(7), 4 * 256);
  const m = normals(generator(8), 4 * 256).map(Math.abs);
  const found = await trainDecoder(backend, { x, m, layers }, { ...options, steps: 60 });
  // The patches one below the other are a matrix of their own.
  const whole = decodeWeight({
    shape: [64, 16],
    expression: {
      kind: "decoder",
      patch: 16,
      layers: found.layers,
      latent: {
        shape: [4, 16 * 4],
        expression: { kind: "codebook", codes: bytes(found.codes, 4), codeBits: 8, book: found.book },
      },
    },
  });
  const error = whole.data.reduce((sum, value, i) => sum + m[i] * (value - x[i]) ** 2, 0) / x.length;
  expect(error).toBeCloseTo(found.error, 5);
});

it("an image is smaller as what a decoder draws than as codes, at no more bits; noise is not", async () => {
  const codes = { length: 2, entries: 16, group: size };
  const image = await vectorCodes(backend, smooth, codes);
  const [drawing] = await decoderCodes(backend, [{ W: smooth }], {
    ...options,
    decoderBits: 1.5,
    width: 48,
    steps: 700,
  });
  expect(bitsOf(drawing)).toBeLessThan(bitsOf(image));
  expect(away(smooth, drawing)).toBeLessThan(0.8 * away(smooth, image));
  const [drawnNoise] = await decoderCodes(backend, [{ W: noise }], { ...options, steps: 100 });
  expect(away(noise, drawnNoise)).toBeGreaterThan(2 * away(noise, await vectorCodes(backend, noise, codes)));
});

it("matrices that share a decoder and a book have them once", async () => {
  const other = matrix(32, size, smooth.data.slice(0, 32 * size));
  const [a, b] = await decoderCodes(backend, [{ W: smooth }, { W: other }], { ...options, steps: 40 });
  const counted = new Set<Part>();
  const first = bitsByUse(a, counted);
  expect(first.decoder).toBeGreaterThan(0);
  expect(bitsByUse(b, counted)).toEqual({ codes: 8 * 16 * 4, scales: 32 * 16 });
  expect(Object.keys(bits(b, new Set(counted)))).toHaveLength(0);
});

it("with calibration, what counts more is drawn better", async () => {
  const layer = toy(32, 32, 6);
  const settings = { ...options, strides: [2], patch: 8, decoderBits: 0.8, group: 32, steps: 100 };
  const H = layer.H.map((value, i) => (i % 33 === 0 ? value : 0)); // the diagonal alone
  for (let i = 0; i < 32; i++) H[i * 33] *= i % 2 === 0 ? 100 : 1;
  const [weighted] = await decoderCodes(
    backend,
    [{ W: layer.W, h: Float32Array.from({ length: 32 }, (_, i) => H[i * 33]) }],
    settings,
  );
  const [plain] = await decoderCodes(backend, [{ W: layer.W }], settings);
  const errorOf = (w: Weight) => outputError({ W: layer.W, H }, decodeWeight(w).data);
  expect(errorOf(weighted)).toBeLessThan(0.9 * errorOf(plain));
});

it("codes chosen strip after strip, errors spread over the columns to come, lose less at the output", async () => {
  const layer = toy(64, 64, 7);
  const settings = { ...options, strides: [2], patch: 8, decoderBits: 0.8, group: 64, steps: 100 };
  const h = Float32Array.from({ length: 64 }, (_, i) => layer.H[i * 65]);
  const [before] = await decoderCodes(backend, [{ W: layer.W, h }], settings);
  const after = await sweepDrawn(backend, layer.W, before, layer.H, { damping: 0.01 });
  const errorOf = (w: Weight) => outputError(layer, decodeWeight(w).data);
  expect(errorOf(after)).toBeLessThan(0.8 * errorOf(before));
  expect(bitsByUse(after)).toEqual(bitsByUse(before));
  const parts = (w: Weight) => new Map([...partsOf(w)].filter(([path]) => !path.endsWith("codes")));
  expect(parts(after)).toEqual(parts(before));
});

it("reallm draws what its low-rank part leaves", async () => {
  const decoder = { patch: 16, strides: [2, 2], entries: 16, bits: 1.2, steps: 40, batch: 8 };
  const method = decomposition(reallm, { path: "decoder", decoder, rank: 2 });
  const weight = await method.compress(smooth, { backend });
  expect(describeWeight(weight)).toBe(
    "sum(scaleGroups(f16, decoder(codebook(f16), 4 × int8)), lowRank(f16, f16))",
  );
  expect(away(smooth, weight)).toBeLessThan(0.5);
});

it("reallm with one decoder for all: what is seen is put together at once, and its decoder stored once", async () => {
  const decoder = { patch: 16, strides: [2, 2], entries: 16, bits: 0.8, steps: 40, batch: 8 };
  const method = decomposition(reallm, { path: "decoder", decoder, rank: 2, share: true });
  const survey = method.survey!();
  const all = { a: smooth, b: matrix(32, size, smooth.data.slice(0, 32 * size)) };
  for (const [name, W] of Object.entries(all)) await survey.see(W, { backend, name });
  const chosen = await survey.choose();
  const counted = new Set<Part>();
  const splits: object[] = [];
  for (const [name, W] of Object.entries(all)) {
    const weight = await chosen.compress(W, { backend, name });
    expect(weight.shape).toEqual([W.rows, W.cols]);
    expect(away(W, weight)).toBeLessThan(0.5);
    splits.push(bitsByUse(weight, counted));
  }
  expect(Object.keys(splits[0])).toContain("decoder");
  expect(Object.keys(splits[1]).sort()).toEqual(["codes", "low rank", "scales"]);
});

it("reallm tries decoders of two widths where it looks for the best shape, and says why one was left out", async () => {
  const tried = async (W: Matrix, share: boolean) => {
    const decoder = { patch: 16, strides: [2, 2], codes: 4, length: 2, bits: 8, steps: 40 };
    const options = { path: "decoder", decoder, shape: "auto", bits: 2.4, rounds: 1, share };
    const survey = decomposition(reallm, options).survey?.();
    const names = Array.from({ length: 64 }, (_, i) => `m${i}`);
    await survey?.see(W, { backend, name: "m0" }, names);
    const told: { shapes: readonly Tried[]; left: readonly string[] }[] = [];
    const context = {
      backend,
      name: "m0",
      tried: (shapes: readonly Tried[], left: readonly string[]) => told.push({ shapes, left }),
    };
    const compressor = survey ? await survey.choose() : decomposition(reallm, options);
    return { weight: await compressor.compress(W, context), ...told[0] };
  };
  const { weight, shapes } = await tried(smooth, true);
  const drawn = shapes.filter(({ name }) => name.startsWith("decoder"));
  expect(drawn.map(({ name }) => name)).toEqual(
    [8, 16].map((width) => `decoder of ${width} channels, 256 entries`),
  );
  for (const { bits } of drawn) expect(bits).toBeLessThanOrEqual(2.4);
  const least = Math.min(...shapes.map(({ error }) => error));
  expect(away(smooth, weight) * smooth.data.reduce((sum, w) => sum + w * w, 0)).toBeCloseTo(least, 2);
  const alone = await tried(smooth, false);
  expect(alone.left).toContain(
    "decoder of 8 channels, 256 entries: its book takes more than 5 % of its codes",
  );
  expect(describeWeight(alone.weight)).not.toContain("decoder");
}, 60_000);

it.each([
  [{ patch: 24 }, "patches of 24 do not fill 64×96; take 1, 2, 4, 8, 16, 32"],
  [{ strides: [3, 2] }, "strides of 3, 2 come to 6, which does not divide patches of 8"],
  [{ bits: 0.001 }, "a decoder needs 328 bits at the least, and may have 6"],
  [{ entries: 4096 }, "a book of 4096 entries is larger than the 1536 codes of 64×96"],
  [{ weights: "int5" }, "decoder.weights"],
])("reallm refuses a decoder of %o", (decoder, message) => {
  const work = () => decomposition(reallm, { path: "decoder", decoder }).check({ rows: 64, cols: 96 });
  expect(work).toThrow(message);
});

it("stops when it is told to", async () => {
  const job = { signal: AbortSignal.abort(new Error("enough")) };
  await expect(decoderCodes(backend, [{ W: smooth }], options, job)).rejects.toThrow("enough");
});

/** Codes of a byte, some rows of them. */
function bytes(codes: Int32Array, rows: number) {
  return { dtype: "u8", shape: [rows, codes.length / rows], bytes: Uint8Array.from(codes) } as const;
}
