import { describe, expect, test } from "vitest";
import { openReference } from "../backends/reference.ts";
import { linear4, signed4 } from "../kernels/adamw4.ts";
import { signed8, unsigned8 } from "../kernels/adamw8.ts";
import { twoSum } from "../kernels/collage.ts";
import { UNIT } from "../kernels/kernel.ts";
import type { DynamicMap } from "../kernels/moments.ts";
import { roundBf16 } from "../tensor/half.ts";
import { generator, normals } from "../tensor/random.ts";
import { hostTensor, type Tensor } from "../tensor/tensor.ts";
import { openOptimizer } from "./index.ts";
import type { Optimizer, Parameter } from "./optimizer.ts";
import { type OptimizerOptions, optimizerSchema } from "./options.ts";

const names = ["adamw", "adamw8", "adamw4", "collage", "muon"] as const;
const optionsOf = (given: object): OptimizerOptions => optimizerSchema.parse(given);

/**
 * The official construction, value by value: linspace(0.1, 1, n + 1), the means of neighbours, times a power of ten.
 * bitsandbytes functional.create_dynamic_map(signed, 7, 8); lpmm functional.create_dynamic_map(true, 3, 4).
 */
function officialMap(signed: boolean, exponentBits: number): number[] {
  const data = [0, 1];
  for (let i = 0; i < exponentBits; i++) {
    const items = 2 ** (signed ? i : i + 1);
    const boundaries = Array.from({ length: items + 1 }, (_, k) => 0.1 + (0.9 * k) / items);
    for (let k = 0; k < items; k++) {
      const value = 10 ** (i - exponentBits + 1) * ((boundaries[k] + boundaries[k + 1]) / 2);
      data.push(value, ...(signed ? [-value] : []));
    }
  }
  return data.sort((a, b) => a - b);
}

describe("the dynamic data type", () => {
  const maps: [string, DynamicMap, number[], number][] = [
    ["signed 8 bits", signed8, officialMap(true, 7), 256],
    ["unsigned 8 bits", unsigned8, officialMap(false, 7), 256],
    ["signed 4 bits", signed4, officialMap(true, 3), 16],
  ];
  test.each(maps)("%s has the levels of the official construction", (_, map, official, count) => {
    expect(map.levels.length).toBe(count);
    for (const [code, level] of map.levels.entries()) {
      expect(Math.abs(level - official[code])).toBeLessThanOrEqual(2 * UNIT * Math.abs(official[code]));
    }
  });

  test("its 4-bit levels, by hand", () => {
    const positive = [0.0055, 0.0325, 0.0775, 0.2125, 0.4375, 0.6625, 0.8875];
    const expected = [...positive.map((x) => -x).reverse(), 0, ...positive, 1];
    expect([...signed4.levels]).toEqual([...Float32Array.from(expected)]);
  });

  test.each(maps)("%s: every code's level has that code", (_, map) => {
    for (const [code, level] of map.levels.entries()) expect(map.nearest(level)).toBe(code);
  });

  test.each(maps)("%s: the code's level is the nearest one", (_, map) => {
    const random = generator(1);
    const low = map.levels[0];
    for (let draw = 0; draw < 10_000; draw++) {
      const size = draw % 2 ? random() : 10 ** (-9 * random());
      const x = Math.fround(low < 0 && random() < 0.5 ? -size : size);
      const distance = map.levels.reduce((least, level) => Math.min(least, Math.abs(level - x)), 2);
      // Where it turns it may be 2⁻¹⁶ of a step off; a step is at most x itself, or the lowest level.
      const slack = 2 ** -16 * Math.max(Math.abs(x), 1e-6);
      expect(Math.abs(map.levels[map.nearest(x)] - x)).toBeLessThanOrEqual(distance + slack);
    }
  });

  test("no code of the 4-bit second moment stands for 0", () => {
    expect(Array.from({ length: 16 }, (_, code) => linear4(code))).toEqual(
      Array.from({ length: 16 }, (_, code) => (code + 1) / 16),
    );
  });
});

/** A reference backend with parameters of a small model: two matrices, a norm, an embedding. */
function small(seed: number, shapes?: readonly (readonly [readonly number[], Parameter["role"]])[]) {
  const backend = openReference();
  const random = generator(seed);
  const specs = shapes ?? [
    [[80, 64], "embedding"],
    [[64, 64], "linear"],
    [[64], "norm"],
    [[96, 64], "head"],
  ];
  const floats = (shape: readonly number[], scale: number) =>
    backend.keep(
      backend.upload(
        hostTensor(
          shape,
          normals(
            random,
            shape.reduce((a, b) => a * b, 1),
            scale,
          ),
        ),
      ),
    );
  const parameters: Parameter[] = specs.map(([shape, role]) => ({
    tensor: floats(shape, 0.05),
    decays: role !== "norm",
    role,
  }));
  const gradients = (scale = 0.01) => parameters.map(({ tensor }) => floats(tensor.shape, scale));
  return { backend, parameters, gradients };
}

async function everything(
  backend: ReturnType<typeof openReference>,
  parameters: readonly Parameter[],
  optimizer: Optimizer,
) {
  const values = [];
  for (const [i, { tensor }] of parameters.entries()) {
    values.push(await backend.read(tensor));
    for (const [, t] of optimizer.state(i)) values.push(await backend.read(t));
  }
  return values;
}

describe.each(names)("%s", (name) => {
  test("a norm that is not finite leaves parameters and states untouched", async () => {
    const { backend, parameters, gradients } = small(2);
    const optimizer = openOptimizer(backend, parameters, optionsOf({ name }));
    optimizer.step(gradients(), 1, 0.01, 0.1);
    for (const bad of [Number.NaN, Number.POSITIVE_INFINITY]) {
      const before = await everything(backend, parameters, optimizer);
      const wrong = gradients();
      const data = await backend.read(wrong[2]);
      data[5] = bad;
      backend.write(wrong[2], data);
      optimizer.step(wrong, 2, 0.01, 0.1);
      expect(await everything(backend, parameters, optimizer)).toEqual(before);
    }
  });

  test("clips by the norm over all parameters: gradients beyond it count like their shortened ones", async () => {
    const results: Awaited<ReturnType<typeof everything>>[] = [];
    for (const [scale, clip] of [
      [100, 1],
      [1, 0],
    ]) {
      const { backend, parameters } = small(3);
      const optimizer = openOptimizer(backend, parameters, optionsOf({ name, clip }));
      // Of norm 1 times scale: 2⁻⁷ at 16384 places in all would be; here by division.
      const size = parameters.reduce((sum, { tensor }) => sum + tensor.shape.reduce((a, b) => a * b, 1), 0);
      const gradients = parameters.map(({ tensor }, i) => {
        const t = backend.zeros(tensor.shape);
        backend.fill(t, ((i % 2 ? -1 : 1) * scale) / Math.sqrt(size));
        return t;
      });
      optimizer.step(gradients, 1, 0.01, 0.1);
      results.push(await everything(backend, parameters, optimizer));
      expect(Math.sqrt((await backend.read(optimizer.squaredNorm))[0])).toBeCloseTo(scale, 3);
    }
    for (const [i, values] of results[0].entries()) {
      if (values instanceof Int32Array) continue; // codes of numbers that are near one another
      expect(Math.max(...values.map((value, at) => Math.abs(value - results[1][i][at])))).toBeLessThan(1e-5);
    }
  });

  test("reset forgets everything, dispose gives the memory back, and bytes are those of the states", async () => {
    const { backend, parameters, gradients } = small(4);
    const steps = [gradients(), gradients()];
    const start = await Promise.all(parameters.map(({ tensor }) => backend.read(tensor)));
    const before = backend.bytesInUse();
    const optimizer = openOptimizer(backend, parameters, optionsOf({ name }));
    const size = parameters.reduce((sum, { tensor }) => sum + tensor.shape.reduce((a, b) => a * b, 1), 0);
    expect(optimizer.bytesPerParameter * size).toBeCloseTo(backend.bytesInUse() - before, 6);
    const run = async () => {
      for (const [i, step] of steps.entries()) optimizer.step(step, i + 1, 0.01, 0.1);
      return everything(backend, parameters, optimizer);
    };
    const first = await run();
    for (const [i, { tensor }] of parameters.entries()) backend.write(tensor, start[i]);
    optimizer.reset();
    expect((await run()).flatMap((values) => [...values])).toEqual(first.flatMap((values) => [...values]));
    optimizer.dispose();
    expect(backend.bytesInUse()).toBe(before);
  });

  test("ends near the minimum of a bowl", async () => {
    const shapes = [[[64, 64], "linear"] as const, [[64], "norm"] as const];
    const { backend, parameters } = small(5, shapes);
    const optimizer = openOptimizer(backend, parameters, optionsOf({ name, clip: 0 }));
    const targets = normals(generator(13), 64 * 64, 0.1);
    const steps = 120;
    for (let step = 1; step <= steps; step++) {
      const gradients: Tensor[] = [];
      for (const { tensor } of parameters) {
        const w = await backend.read(tensor);
        gradients.push(
          backend.upload(
            hostTensor(
              tensor.shape,
              Float32Array.from(w, (x, i) => x - targets[i]),
            ),
          ),
        );
      }
      optimizer.step(gradients, step, 0.05 * (1 - (step - 1) / steps), 0);
      for (const t of gradients) backend.free(t);
    }
    for (const { tensor } of parameters) {
      const w = (await backend.read(tensor)) as Float32Array;
      const square = w.reduce((sum, x, i) => sum + (x - targets[i]) ** 2, 0) / w.length;
      expect(Math.sqrt(square)).toBeLessThan(0.03);
    }
  });
});

test("states of the smallest Spectra model: bytes per parameter", () => {
  const linear = [
    [64, 64],
    [64, 64],
    [64, 64],
    [64, 64],
    [192, 64],
    [192, 64],
    [64, 192],
  ];
  const norm = [[64], "norm"] as const;
  const block = [norm, ...linear.map((shape) => [shape, "linear"] as const), norm];
  const shapes = [
    [[2048, 64], "embedding"] as const,
    ...block,
    ...block,
    norm,
    [[2048, 64], "head"] as const,
  ];
  const { backend, parameters } = small(6, shapes);
  const bytes = (given: object) => openOptimizer(backend, parameters, optionsOf(given)).bytesPerParameter;
  expect(bytes({})).toBeCloseTo(8, 3);
  expect(bytes({ name: "adamw4" })).toBeLessThan(1.2);
  expect(bytes({ name: "adamw8", stableEmbedding: false })).toBeLessThan(2.05);
  // 131072 of 368960 parameters are the embedding's.
  expect(bytes({ name: "adamw8" })).toBeCloseTo((131072 * 8 + (368960 - 131072) * 2.03) / 368960, 1);
  expect(bytes({ name: "adamw4", stableEmbedding: true })).toBeCloseTo(
    (131072 * 8 + (368960 - 131072) * 1.1) / 368960,
    1,
  );
  expect(bytes({ name: "collage", variant: "light" })).toBeCloseTo(6, 2);
  expect(bytes({ name: "collage" })).toBeCloseTo(8, 2);
  expect(bytes({ name: "muon" })).toBeCloseTo(8 - (4 * 106496) / 368960, 2);
});

describe("moments of few bits beside an independent AdamW in 64 bits", () => {
  const [rate, beta1, beta2, epsilon, decay] = [0.01, 0.9, 0.95, 1e-8, 0.1];

  // From the same codes, the moments differ by float32's roundings and then by half a gap of levels.
  test.each([
    ["adamw8", signed8, (scale: number) => (unsigned8Gap() * scale) / 2],
    // Below its lowest level the second moment is that level.
    ["adamw4", signed4, (scale: number, v: number) => (v < scale / 16 ? scale / 16 : scale / 32)],
  ] as const)("%s", async (name, map, reachOfSecond) => {
    const { backend, parameters, gradients } = small(7, [[[64, 80], "linear"]]);
    const optimizer = openOptimizer(backend, parameters, optionsOf({ name, clip: 0 }));
    const w = parameters[0].tensor;
    const size = 64 * 80;
    for (let step = 1; step <= 3; step++) {
      const [gradient] = gradients(step === 2 ? 1e-4 : 0.01);
      const g = await backend.read(gradient);
      const before = await backend.read(w);
      const { m, v } = await decoded(name, backend, optimizer);
      optimizer.step([gradient], step, rate, decay);
      const after = await backend.read(w);
      const kept = await decoded(name, backend, optimizer);
      const worst = { w: 0, m: 0, v: 0, least: Infinity };
      const widest = Math.max(...map.levels.slice(1).map((level, i) => level - map.levels[i]));
      for (let i = 0; i < size; i++) {
        const first = beta1 * m[i] + (1 - beta1) * g[i];
        const second = beta2 * v[i] + (1 - beta2) * g[i] ** 2;
        const direction = first / (1 - beta1 ** step) / (Math.sqrt(second / (1 - beta2 ** step)) + epsilon);
        const expected = before[i] - rate * (direction + decay * before[i]);
        // 30 roundings as in the bound of adamw, of terms that may cancel in the first moment.
        const terms =
          (Math.abs(beta1 * m[i]) + Math.abs((1 - beta1) * g[i])) / Math.max(Math.abs(first), 1e-30);
        const reach =
          40 *
          UNIT *
          (rate * (Math.abs(direction) * terms + Math.abs(decay * before[i])) + Math.abs(before[i]));
        const slack = 2 ** -14;
        worst.w = Math.max(worst.w, Math.abs(after[i] - expected) / reach);
        worst.m = Math.max(worst.m, Math.abs(kept.m[i] - first) / ((widest / 2 + slack) * kept.scaleM[i]));
        const reachOfV = reachOfSecond(kept.scaleV[i], second) + slack * kept.scaleV[i];
        worst.v = Math.max(worst.v, Math.abs(kept.v[i] - second) / reachOfV);
        worst.least = Math.min(worst.least, kept.v[i]);
      }
      // Shares of what each may be off.
      for (const share of [worst.w, worst.m, worst.v]) expect(share).toBeLessThanOrEqual(1);
      if (name === "adamw4") expect(worst.least).toBeGreaterThan(0);
    }
  });

  function unsigned8Gap(): number {
    return Math.max(...unsigned8.levels.slice(1).map((level, i) => level - unsigned8.levels[i]));
  }

  /** Moments as the codes say, read by shifts of 32-bit words: nothing of the kernels is used but the levels. */
  async function decoded(
    name: "adamw8" | "adamw4",
    backend: ReturnType<typeof openReference>,
    optimizer: Optimizer,
  ) {
    const states = new Map(optimizer.state(0));
    const read = (key: string) => backend.read(states.get(key)!);
    const [first, firstScale, second, secondScale] = await Promise.all(
      ["first", "firstScale", "second", "secondScale"].map(read),
    );
    const [m, v, scaleM, scaleV] = [0, 1, 2, 3].map(() => new Float64Array(64 * 80));
    const bits = name === "adamw8" ? 8 : 4;
    const code = (words: ArrayLike<number>, i: number) =>
      (words[Math.floor((i * bits) / 32)] >>> ((i * bits) % 32)) & (2 ** bits - 1);
    for (let i = 0; i < m.length; i++) {
      scaleM[i] = firstScale[Math.floor(i / (name === "adamw8" ? 256 : 128))];
      const rank1 = Math.min(secondScale[Math.floor(i / 80)], secondScale[64 + (i % 80)]);
      scaleV[i] = name === "adamw8" ? secondScale[Math.floor(i / 256)] : rank1;
      m[i] = scaleM[i] * (name === "adamw8" ? signed8 : signed4).levels[code(first, i)];
      v[i] = scaleV[i] * (name === "adamw8" ? unsigned8.levels[code(second, i)] : linear4(code(second, i)));
    }
    return { m, v, scaleM, scaleV };
  }
});

describe("collage", () => {
  test("the sum of two bf16 numbers and its error are exact", () => {
    const random = generator(8);
    for (let draw = 0; draw < 5000; draw++) {
      const [a, b] = normals(random, 2).map((x, i) =>
        roundBf16(x * 2 ** (i * Math.floor(24 * random() - 12))),
      );
      const [s, e] = twoSum(a, b);
      expect([s + e, s, e]).toEqual([a + b, roundBf16(a + b), roundBf16(e)]);
    }
  });

  test("weights are bf16 numbers, and steps too small for them arrive all the same", async () => {
    for (const variant of ["light", "plus"] as const) {
      const { backend, parameters } = small(9, [[[8, 16], "linear"]]);
      const w = parameters[0].tensor;
      backend.fill(w, 1);
      const optimizer = openOptimizer(backend, parameters, optionsOf({ name: "collage", variant, clip: 0 }));
      const gradient = backend.zeros([8, 16]);
      backend.fill(gradient, 0.5);
      // bf16 numbers below 1 are 2⁻⁸ apart; steps of 10⁻⁴ vanish, 200 of them make 0.02.
      let plain = 1;
      for (let step = 1; step <= 200; step++) {
        optimizer.step([gradient], step, 1e-4, 0);
        plain = roundBf16(plain - 1e-4);
        expect((await backend.read(w)).every((x) => x === roundBf16(x))).toBe(true);
      }
      expect(plain).toBe(1);
      // m and v are rounded to bf16, and with them the step, by up to 2⁻⁸ each.
      const [x] = await backend.read(w);
      expect(Math.abs(x - 0.98)).toBeLessThan(2 ** -9 + 0.02 * 2 ** -6);
      const { lostUpdates, lostInBf16 } = await optimizer.measures();
      expect(lostUpdates).toBe(0);
      expect(lostInBf16).toBeGreaterThan(0.95);
    }
  });

  test("plus lets the second moment decay where bf16 rounds β₂ to 1", async () => {
    const kept: Record<string, number> = {};
    for (const variant of ["light", "plus"] as const) {
      const { backend, parameters } = small(10, [[[4, 4], "linear"]]);
      const options = optionsOf({ name: "collage", variant, beta2: 0.999, clip: 0 });
      const optimizer = openOptimizer(backend, parameters, options);
      const gradient = backend.zeros([4, 4]);
      backend.fill(gradient, 1);
      optimizer.step([gradient], 1, 0, 0);
      backend.fill(gradient, 0);
      for (let step = 2; step <= 500; step++) optimizer.step([gradient], step, 0, 0);
      const states = new Map(optimizer.state(0));
      const [word] = await backend.read(states.get("second")!);
      const bits = new Int32Array([(word & 0xffff) << 16]);
      kept[variant] = new Float32Array(bits.buffer)[0] / 0.001;
    }
    expect(kept.light).toBeGreaterThan(0.99);
    expect(Math.abs(kept.plus - 0.999 ** 499)).toBeLessThan(0.03);
  });
});

describe("muon", () => {
  test("an update has all singular values near 1, and the signs and vectors of the momentum", async () => {
    const backend = openReference();
    const random = generator(11);
    for (const [rows, cols] of [
      [24, 24],
      [16, 40],
      [40, 16],
    ]) {
      const gradient = hostTensor([rows, cols], normals(random, rows * cols));
      const x = backend.upload(gradient);
      backend.orthogonalize(x, 5);
      const values = await singularValues(backend, await backend.read(x), rows, cols);
      // What the quintic keeps everything in that has come above 0.06: see kernels/orthogonalize.ts.
      expect(Math.min(...values)).toBeGreaterThan(0.68);
      expect(Math.max(...values)).toBeLessThan(1.2025);
      // ⟨G, O⟩ is the sum of S·S′, all positive.
      const O = (await backend.read(x)) as Float32Array;
      const inner = O.reduce((sum, o, i) => sum + o * gradient.data[i], 0);
      const of = await singularValues(backend, gradient.data, rows, cols);
      const whole = of.reduce((sum, s) => sum + s, 0);
      expect(inner).toBeGreaterThan(0.68 * whole);
      expect(inner).toBeLessThan(1.2025 * whole);
    }
  });

  async function singularValues(
    backend: ReturnType<typeof openReference>,
    data: ArrayLike<number>,
    rows: number,
    cols: number,
  ) {
    const tall = Float32Array.from(data);
    if (rows < cols) {
      for (let r = 0; r < rows; r++) for (let c = 0; c < cols; c++) tall[c * rows + r] = data[r * cols + c];
    }
    const [m, n] = rows < cols ? [cols, rows] : [rows, cols];
    const [u, s, v] = [backend.upload(hostTensor([m, n], tall)), backend.zeros([n]), backend.zeros([n, n])];
    backend.svd(u, s, v);
    return (await backend.read(s)) as Float32Array;
  }

  test("moves hidden matrices alone, by 0.2·√max(rows, cols) times an orthogonal matrix; the others as AdamW does", async () => {
    const moved = [];
    for (const name of ["muon", "adamw"] as const) {
      const { backend, parameters, gradients } = small(12);
      const before = await Promise.all(parameters.map(({ tensor }) => backend.read(tensor)));
      const optimizer = openOptimizer(backend, parameters, optionsOf({ name }));
      optimizer.step(gradients(), 1, 0.01, 0.1);
      const after = await Promise.all(parameters.map(({ tensor }) => backend.read(tensor)));
      moved.push({ before, after });
      if (name === "muon") {
        expect([...optimizer.state(0)].map(([state]) => state)).toEqual(["first", "second"]);
        expect([...optimizer.state(1)].map(([state]) => state)).toEqual(["momentum"]);
      }
    }
    for (const i of [0, 2, 3]) expect(moved[0].after[i]).toEqual(moved[1].after[i]);
    // Without decay the mean square of the step is (0.2·rate)², as an orthogonal matrix of 64 has elements of 1/√64.
    const { before, after } = moved[0];
    const square = (after[1] as Float32Array).reduce((sum, x, i) => {
      const step = x - before[1][i] * (1 - 0.01 * 0.1);
      return sum + step ** 2;
    }, 0);
    const size = Math.sqrt(square / after[1].length) / 0.01;
    expect(size).toBeGreaterThan(0.2 * 0.68);
    expect(size).toBeLessThan(0.2 * 1.2025);
  });
});
