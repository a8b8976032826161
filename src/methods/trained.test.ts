import { existsSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Tape } from "../autograd/tape.ts";
import type { Backend } from "../backends/backend.ts";
import { native } from "../backends/native.ts";
import { openReference } from "../backends/reference.ts";
import type { GroupFormat } from "../formats/format.ts";
import { decodeWeight, formatByName } from "../formats/index.ts";
import { narrowed } from "../formats/narrow.ts";
import { roundF16 } from "../tensor/half.ts";
import { generator, normals } from "../tensor/random.ts";
import { type HostTensor, hostTensor, type Matrix, matrix } from "../tensor/tensor.ts";
import { bits as storedBits } from "../tensor/weight.ts";
import { randomTrits } from "./frozen-ternary.ts";
import { trainedMethods } from "./index.ts";
import type { Moment, TrainedMethod, TrainedRounding } from "./method.ts";
import { rampAt } from "./ramp.ts";
import { rankOne } from "./rank-one.ts";

/** Every method with every value of its options that changes what is stored. */
const variants: [name: keyof typeof trainedMethods, options: object][] = [
  ["trilm", {}],
  ["bilm", {}],
  ["bitnet-b1.58-median", {}],
  ["bitnet-b1.58-median", { ramp: 10, activations: false }],
  ["onebit", {}],
  ["fbi", {}],
  ...([1, 1.58, 2, 3, 4] as const).map((bits): ["paretoq", object] => ["paretoq", { bits }]),
  ["matquant", {}],
  ["double-rounding", { widths: [{ bits: 8 }, { bits: 3 }] }],
  ["continual", { from: 5, ramp: 3 }],
  ["continual", { from: 0, optimizer: "reset" }],
  ["frozen-ternary", { seed: 7, density: 0.3 }],
];

const END: Moment = { step: 100, steps: 100 };

function open(name: keyof typeof trainedMethods, options: object): TrainedRounding {
  const method: TrainedMethod = trainedMethods[name];
  return method.with(method.options.parse(options));
}

function random(rows: number, cols: number, seed = 1, scale = 0.05): Matrix {
  const W = matrix(rows, cols, normals(generator(seed), rows * cols, scale));
  if (rows > 2) W.data.fill(0, cols, 2 * cols);
  return W;
}

/** As after some training: what the start says, and then other numbers. */
function trained(
  rounding: TrainedRounding,
  W: Matrix,
): { W: Matrix; parameters: Record<string, HostTensor> } {
  const start = rounding.start?.(W, "a.weight") ?? { W, parameters: {} };
  if (rounding.frozen) return { W: start.W, parameters: { ...start.parameters } };
  const shifts = normals(generator(9), 10_000, 0.03);
  const moved = ({ shape, data }: HostTensor) =>
    hostTensor(
      shape,
      (data as Float32Array).map((x, i) => x * (1 + shifts[i])),
    );
  return {
    W: matrix(
      W.rows,
      W.cols,
      start.W.data.map((x, i) => x + shifts[i % 10_000] / 3),
    ),
    parameters: Object.fromEntries(Object.entries(start.parameters).map(([name, t]) => [name, moved(t)])),
  };
}

/** The plain reference, and the native one where the addon is built. */
const backends: [name: string, open: () => Backend | Promise<Backend>][] = [["the reference", openReference]];
if (existsSync(join(import.meta.dirname, "../../build/Release/lowbit.node"))) {
  backends.push(["native", () => native({ threads: 2 })]);
}

describe.each(backends)("trained roundings on %s", (_name, openHere) => {
  let backend: Backend;
  beforeAll(async () => {
    backend = await openHere();
  });
  afterAll(() => backend.dispose());

  /** Ŵ and the gradients of W and of what is trained beside it, for a gradient dŴ. */
  async function run(
    rounding: TrainedRounding,
    { W, parameters }: { W: Matrix; parameters: Readonly<Record<string, HostTensor>> },
    at: Moment,
    dŴ = normals(generator(3), W.data.length),
  ) {
    const w = backend.upload(hostTensor([W.rows, W.cols], W.data));
    const beside = Object.fromEntries(
      Object.entries(parameters).map(([name, t]) => [name, backend.upload(t)]),
    );
    const tape = new Tape(backend, [w, ...Object.values(beside)]);
    const Ŵ = rounding.forward(tape, w, beside, at);
    const values = (await backend.read(Ŵ)) as Float32Array;
    const gradients =
      Ŵ === w
        ? new Map([[w, backend.upload(hostTensor([W.rows, W.cols], dŴ))]])
        : tape.backward(Ŵ, backend.upload(hostTensor([W.rows, W.cols], dŴ)));
    const read = async (t: typeof w) => (await backend.read(gradients.get(t)!)) as Float32Array;
    const dW = await read(w);
    const others: Record<string, Float32Array> = {};
    for (const [name, t] of Object.entries(beside)) others[name] = await read(t);
    return { Ŵ: values, dW, others, dŴ };
  }

  describe.each(variants)("%s %o", (name, options) => {
    const rounding = open(name, options);

    it("exports what forward gives, in every format that it names", async () => {
      for (const [rows, cols] of [
        [5, 256],
        [4, 77],
        [1, 1],
      ]) {
        const state = trained(rounding, random(rows, cols));
        for (const bits of rounding.widths?.map((width) => width.bits) ?? [undefined]) {
          const at = { ...END, bits };
          const { Ŵ } = await run(rounding, state, at);
          for (const formatName of rounding.formats) {
            const format = formatByName(formatName) as GroupFormat;
            if ("size" in format.groupShape && cols % format.groupShape.size !== 0) continue;
            const weight = await rounding.export(state.W, format, { backend }, state.parameters, at);
            expect(weight.shape).toEqual([rows, cols]);
            expect(decodeWeight(weight).data, `${formatName}, ${rows}×${cols}`).toEqual(
              plusZero(Ŵ, decodeWeight(weight).data),
            );
          }
        }
      }
    });

    it("refuses a format without its levels, or one whose groups do not fit", async () => {
      const state = trained(rounding, random(3, 64));
      const format = formatByName("q4_k") as GroupFormat;
      await expect(rounding.export(state.W, format, { backend }, state.parameters, END)).rejects.toThrow(
        "q4_k",
      );
    });

    it("exports as many bits as it says", async () => {
      const state = trained(rounding, random(64, 256));
      const format = formatByName(rounding.formats[0]) as GroupFormat;
      const weight = await rounding.export(state.W, format, { backend }, state.parameters, END);
      const total = Object.values(storedBits(weight)).reduce((sum, bits) => sum + bits, 0) / (64 * 256);
      expect(total).toBeLessThanOrEqual(format.codeBits + 0.75);
    });
  });

  it("bilm is α·sign(W − mean W), straight through", async () => {
    const W = random(6, 40);
    for (const [i, w] of W.data.entries()) W.data[i] = w + 0.02;
    const { Ŵ, dW, dŴ } = await run(open("bilm", {}), { W, parameters: {} }, END);
    const mean = W.data.reduce((sum, w) => sum + w, 0) / 240;
    const α = roundF16(W.data.reduce((sum, w) => sum + Math.abs(w), 0) / 240);
    for (const [i, w] of W.data.entries()) expect(Ŵ[i]).toBe(w >= mean ? α : -α);
    expect(dW).toEqual(dŴ);
  });

  it("bitnet-b1.58-median scales by torch's median of |W|", async () => {
    const W = matrix(2, 3, Float32Array.of(-0.5, 0.25, 3, -0.125, 0.0625, 0.3125));
    // |W| ascending: .0625 .125 .25 .3125 .5 3; the lower of the two in the middle is .25.
    const { Ŵ, dW, dŴ } = await run(open("bitnet-b1.58-median", {}), { W, parameters: {} }, END);
    expect([...Ŵ].map((x) => x + 0)).toEqual([-0.25, 0.25, 0.25, 0, 0, 0.25]);
    expect(dW).toEqual(dŴ);
  });

  it("λ ramps run from the first step after the switch to 1", () => {
    expect([3, 4, 5, 6, 7, 8].map((step) => rampAt(step, 4, 4))).toEqual([0, 0.25, 0.5, 0.75, 1, 1]);
    expect([3, 4].map((step) => rampAt(step, 4, 0))).toEqual([0, 1]);
  });

  it("a ramp mixes weights and passes the gradient whole", async () => {
    const W = random(4, 33);
    const rounding = open("continual", { from: 2, ramp: 4 });
    const at = (step: number) => run(rounding, { W, parameters: {} }, { step, steps: 50 });
    expect((await at(1)).Ŵ).toEqual(W.data);
    const end = await at(5);
    const half = await at(3);
    for (const [i, w] of W.data.entries()) {
      expect(half.Ŵ[i]).toBeCloseTo(0.5 * w + 0.5 * end.Ŵ[i], 7);
      expect(half.dW[i]).toBeCloseTo(half.dŴ[i], 6);
    }
  });

  it("onebit: the published gradients of latent weights and of both vectors", async () => {
    const rounding = open("onebit", {});
    const start = rounding.start!(random(5, 12), "x");
    const W = matrix(5, 12, normals(generator(5), 60, 0.8));
    const state = { W, parameters: start.parameters };
    const { Ŵ, dW, others, dŴ } = await run(rounding, state, END);
    const [h, g] = ["h", "g"].map((name) => (start.parameters[name].data as Float32Array).map(roundF16));
    const sign = (w: number) => (w < 0 ? -1 : 1);
    const [dh, dg] = [new Float64Array(5), new Float64Array(12)];
    for (const [i, w] of W.data.entries()) {
      const [r, c] = [Math.floor(i / 12), i % 12];
      expect(Ŵ[i]).toBe(Math.fround(h[r] * sign(w) * g[c]));
      expect(dW[i]).toBeCloseTo(h[r] * g[c] * dŴ[i] * (1.001 - Math.tanh(w) ** 2), 6);
      dh[r] += dŴ[i] * sign(w) * g[c];
      dg[c] += dŴ[i] * sign(w) * h[r];
    }
    for (const [r, d] of dh.entries()) expect(others.h[r]).toBeCloseTo(d, 5);
    for (const [c, d] of dg.entries()) expect(others.g[c]).toBeCloseTo(d, 5);
  });

  it("onebit starts at the best approximation of |W| of rank one", () => {
    const W = random(9, 14, 4, 1);
    const { parameters, W: latent } = open("onebit", {}).start!(W, "x");
    const [h, g] = ["h", "g"].map((name) => parameters[name].data as Float32Array);
    expect(h.every((x) => x >= 0) && g.every((x) => x >= 0)).toBe(true);
    expect(latent.data).toEqual(W.data.map((w) => (w < 0 ? -0.01 : 0.01)));
    const error = (h: ArrayLike<number>, g: ArrayLike<number>) =>
      W.data.reduce((sum, w, i) => sum + (Math.abs(w) - h[Math.floor(i / 14)] * g[i % 14]) ** 2, 0);
    const least = error(h, g);
    // |W|² − σ₁², and no step in any direction makes it smaller.
    const sigma = h.reduce((sum, x) => sum + x * x, 0);
    expect(least).toBeCloseTo(W.data.reduce((sum, w) => sum + w * w, 0) - sigma ** 2, 4);
    const other = normals(generator(8), 23, 1e-3);
    expect(
      error(
        h.map((x, r) => x + other[r]),
        g.map((x, c) => x + other[9 + c]),
      ),
    ).toBeGreaterThan(least);
  });

  it("rank one of zeros, of one number and of a matrix that is of rank one", () => {
    expect(rankOne(matrix(2, 3)).left).toEqual(new Float32Array(2));
    const { left, right } = rankOne(matrix(1, 1, Float32Array.of(4)));
    expect([left[0], right[0]]).toEqual([2, 2]);
    const product = rankOne(matrix(2, 2, Float32Array.of(2, 4, 3, 6)));
    for (const [i, value] of [2, 4, 3, 6].entries()) {
      expect(product.left[i >> 1] * product.right[i & 1]).toBeCloseTo(value, 5);
    }
  });

  it("fbi: α_c·sign(W) + β_c, started by columns, with gradients to both", async () => {
    const rounding = open("fbi", {});
    const W = random(7, 9);
    const state = rounding.start!(W, "x");
    const column = (c: number) => Array.from({ length: 7 }, (_, r) => W.data[r * 9 + c]);
    const mean = (values: number[]) => values.reduce((sum, x) => sum + x, 0) / values.length;
    const { Ŵ, dW, others, dŴ } = await run(rounding, state, END);
    for (let c = 0; c < 9; c++) {
      const β = mean(column(c));
      const α = mean(column(c).map((w) => Math.abs(w - β)));
      expect(state.parameters.beta.data[c]).toBeCloseTo(β, 7);
      expect(state.parameters.alpha.data[c]).toBeCloseTo(α, 7);
      let [dα, dβ] = [0, 0];
      for (let r = 0; r < 7; r++) {
        const sign = W.data[r * 9 + c] < 0 ? -1 : 1;
        const a = roundF16(state.parameters.alpha.data[c]);
        expect(Ŵ[r * 9 + c]).toBe(Math.fround(a * sign + roundF16(state.parameters.beta.data[c])));
        expect(dW[r * 9 + c]).toBeCloseTo(a * dŴ[r * 9 + c], 6);
        dα += sign * dŴ[r * 9 + c];
        dβ += dŴ[r * 9 + c];
      }
      expect(others.alpha[c]).toBeCloseTo(dα, 5);
      expect(others.beta[c]).toBeCloseTo(dβ, 5);
    }
  });

  // Two of torch's lines each: LsqBinaryTernaryExtension and StretchedElasticQuant of ParetoQ, at scales that fp16 keeps.
  describe.each([1, 1.58, 2, 3, 4] as const)("paretoq, %f bits", (bits) => {
    const rounding = open("paretoq", { bits });
    const W = random(4, 50, 6, 1);
    const scales = [0.75, 0.5, 1.25, 0.3125];
    const parameters = { scale: hostTensor([4], Float32Array.from(scales)) };

    it("gives the published levels and gradients", async () => {
      const { Ŵ, dW, others, dŴ } = await run(rounding, { W, parameters }, END);
      const even = (x: number) => {
        const below = Math.floor(x);
        return x - below > 0.5 || (x - below === 0.5 && below % 2 !== 0) ? below + 1 : below;
      };
      const top = bits > 2 ? 2 ** (bits - 1) - 1 : 1;
      const dscale = new Float64Array(4);
      for (const [i, w] of W.data.entries()) {
        const r = Math.floor(i / 50);
        const q = w / scales[r];
        let level: number;
        let slope: number;
        let inside: boolean;
        if (bits === 1) {
          [level, inside] = [w < 0 ? -1 : 1, Math.abs(q) <= 1];
          slope = level;
        } else if (bits > 2) {
          level = Math.min(top, Math.max(-top - 1, even(q)));
          inside = q >= -top - 1 && q <= top;
          slope = inside ? even(q) - q : q < 0 ? -top - 1 : top;
        } else {
          const [levels, shift] = bits === 2 ? [2, 0.5] : [1.5, 0];
          const end = (levels - shift) / levels;
          level = (even(Math.min(0.99, Math.max(-0.99, q)) * levels - shift) + shift) / levels;
          inside = Math.abs(q) <= 0.99;
          slope = inside ? level - q : q < 0 ? -end : end;
        }
        expect(Math.abs(Ŵ[i] - level * scales[r])).toBeLessThanOrEqual(2 ** -10 * scales[r]);
        expect(dW[i]).toBe(inside ? dŴ[i] : 0);
        dscale[r] += (dŴ[i] * slope) / Math.sqrt(200 * top);
      }
      for (const [r, d] of dscale.entries()) expect(others.scale[r]).toBeCloseTo(d, 5);
    });

    it("starts with the published scales", () => {
      const start = rounding.start!(W, "x").parameters.scale.data;
      for (let r = 0; r < 4; r++) {
        const row = [...W.data.subarray(r * 50, (r + 1) * 50)].map(Math.abs);
        const largest = Math.max(...row);
        const expected =
          bits === 1
            ? row.reduce((a, b) => a + b) / 50
            : bits > 2
              ? largest / (2 ** (bits - 1) - 1)
              : largest;
        expect(start[r]).toBeCloseTo(expected, 6);
      }
    });
  });

  it("matquant: at fewer bits the top bits, rounded half up, of one 8-bit code", async () => {
    const W = random(3, 60);
    for (const bits of [2, 3, 4, 6, 8]) {
      const { Ŵ, dW, dŴ } = await run(open("matquant", {}), { W, parameters: {} }, { ...END, bits });
      for (let r = 0; r < 3; r++) {
        const row = W.data.subarray(r * 60, (r + 1) * 60);
        const [low, high] = [Math.min(...row), Math.max(...row)];
        const scale = roundF16(Math.fround(Math.fround(high - low) / 255));
        for (const [c, w] of row.entries()) {
          const position = scale === 0 ? 0 : Math.fround(Math.fround(w - roundF16(low)) / scale);
          const code = Math.max(0, Math.min(255, Math.floor(position + 0.5))); // no ties among random numbers
          const shift = 8 - bits;
          const roundBit = shift === 0 ? 0 : (code >> (shift - 1)) & 1;
          const slice = Math.min(2 ** bits - 1, (code >> shift) + roundBit) << shift;
          expect(Ŵ[r * 60 + c]).toBe(Math.fround(scale * slice + roundF16(low)));
        }
      }
      expect(dW).toEqual(dŴ);
    }
  });

  it("double-rounding rounds the 8-bit code again, ties to even", async () => {
    // A scale of 1: the weights are their codes.
    const W = matrix(1, 8, Float32Array.of(127, -127, 24, 8, -8, 40, 100, -0.4));
    const { Ŵ, dW, dŴ } = await run(open("double-rounding", {}), { W, parameters: {} }, { ...END, bits: 4 });
    // In sixteenths: 7.94 → 7 (the top), −7.94 → −8, 1.5 → 2, 0.5 → 0, −0.5 → 0, 2.5 → 2, 6.25 → 6, 0.
    expect([...Ŵ].map((x) => x + 0)).toEqual([112, -128, 32, 0, 0, 32, 96, 0]);
    expect(dW).toEqual(dŴ);
  });

  it.each(["matquant", "double-rounding"] as const)(
    "%s: the stored 8-bit matrix, read at fewer bits, is what was trained at that width",
    async (name) => {
      const rounding = open(name, {});
      const W = random(5, 91);
      const format = formatByName(rounding.formats[0]) as GroupFormat;
      const stored = await rounding.export(W, format, { backend }, {}, END);
      for (const bits of [8, 6, 4, 3, 2] as const) {
        const { Ŵ } = await run(rounding, { W, parameters: {} }, { ...END, bits });
        const weight = narrowed(stored, bits);
        expect(decodeWeight(weight).data).toEqual(plusZero(Ŵ, decodeWeight(weight).data));
        const small = formatByName(`int${bits}${name === "matquant" ? "-offset" : ""}`) as GroupFormat;
        expect(await rounding.export(W, small, { backend }, {}, { ...END, bits })).toEqual(weight);
      }
    },
  );

  it("the shares of widths add up to 1", () => {
    for (const name of ["matquant", "double-rounding"] as const) {
      const { widths } = open(name, {});
      expect(widths!.reduce((sum, { share }) => sum + share, 0)).toBeCloseTo(1, 12);
    }
    expect(open("matquant", {}).widths![2].share).toBeCloseTo(10 / 12, 12);
  });

  it("continual says when the optimizer begins anew", () => {
    expect(open("continual", { from: 4 }).resetsOptimizerAt).toBeUndefined();
    expect(open("continual", { from: 4, optimizer: "reset" }).resetsOptimizerAt).toBe(4);
    expect(trainedMethods.continual.options.safeParse({}).success).toBe(false);
  });

  it("frozen-ternary gives the same matrix for seed and name, of the wanted density and variance", () => {
    const W = random(200, 100, 2);
    const start = (seed: number, name: string) =>
      open("frozen-ternary", { seed, density: 0.4 }).start!(W, name).W.data;
    expect(start(1, "a")).toEqual(start(1, "a"));
    expect(start(1, "a")).not.toEqual(start(1, "b"));
    expect(start(1, "a")).not.toEqual(start(2, "a"));
    const trits = randomTrits(1, "a", 20_000, 0.4);
    const share = (t: number) => trits.filter((trit) => trit === t).length / 20_000;
    for (const t of [-1, 1]) expect(Math.abs(share(t) - 0.2)).toBeLessThan(4 * Math.sqrt(0.16 / 20_000)); // 4 σ
    const square = (data: Float32Array) => data.reduce((sum, w) => sum + w * w, 0) / data.length;
    expect(square(start(1, "a")) / square(W.data)).toBeCloseTo(share(1) / 0.4 + share(-1) / 0.4, 2);
  });
});

/** Zeros with the signs that `like` has: files keep none. */
function plusZero(values: Float32Array, like: Float32Array): Float32Array {
  return values.map((value, i) => (value === 0 && like[i] === 0 ? like[i] : value));
}
