import { expect, it } from "vitest";
import { Tape } from "../autograd/tape.ts";
import type { Backend } from "../backends/backend.ts";
import { openBackend } from "../backends/index.ts";
import { openReference } from "../backends/reference.ts";
import { fillsRow } from "../formats/format.ts";
import { decodeWeight, encodeWeight, formatByName, formats } from "../formats/index.ts";
import { generator, normals } from "../tensor/random.ts";
import { halfEven } from "../tensor/rounding.ts";
import { hostTensor, InputError, matrix, type Tensor } from "../tensor/tensor.ts";
import { onlyPart, partsOf, type Weight } from "../tensor/weight.ts";
import type { Tuned } from "./method.ts";
import { qlora, qloraBase } from "./qlora.ts";
import { sqft, sqftMerge } from "./sqft.ts";
import { withAdapter } from "./tunable.ts";

const [rows, cols] = [24, 256];
const W = matrix(rows, cols, normals(generator(1), rows * cols, 0.05));
const packed = (format: string, of = W): Weight =>
  encodeWeight(formatByName(format), [of.rows, of.cols], of.data);
const backend = openReference();
const native: Backend = await openBackend({ backend: "native", threads: 2 }).catch(() => backend);

const qloraOf = (options: object = {}) => qlora.with(qlora.options.parse(options));
const sqftOf = (options: object = {}) => sqft.with(sqft.options.parse(options));

/** Its first values, with some of them moved. */
function values({ parameters }: Tuned, moved = 0): Map<string, Float32Array> {
  const random = generator(7);
  return new Map(
    [...parameters].map(([path, { data }]) => {
      const noise = normals(random, data.length, moved);
      return [path, Float32Array.from(data as Float32Array, (x, i) => x + noise[i])];
    }),
  );
}

/** The matrix as the layer computes with it: x·Ŵᵀ of the identity, or Ŵ itself where it is whole. */
async function seen(tuned: Tuned, at: ReadonlyMap<string, Float32Array>): Promise<Float32Array> {
  const open = tuned.open(backend);
  const t = backend.scope(() => {
    const tensors = new Map(
      [...at].map(([path, data]) => [
        path,
        backend.upload(hostTensor(tuned.parameters.get(path)!.shape, data)),
      ]),
    );
    return open.tensor(backend, tensors);
  });
  const data = (await backend.read(t)) as Float32Array;
  open.free();
  return data;
}

it("QLoRA's base takes 4.127 bits, and hardly more error than scales of 16 bits", async () => {
  const options = qloraBase.options.parse({});
  const large = matrix(256, 1024, normals(generator(2), 256 * 1024));
  const weight = await qloraBase.decompose(large, { backend }, options);
  let bits = 0;
  for (const [path, part] of partsOf(weight)) if (!path.includes("book")) bits += 8 * part.bytes.length;
  expect(bits / large.data.length).toBeCloseTo(4 + 8 / 64 + 32 / (64 * 256), 10);
  const error = (of: Weight) =>
    decodeWeight(of).data.reduce((sum, w, i) => sum + (w - large.data[i]) ** 2, 0) / large.data.length;
  expect(error(weight)).toBeLessThan(1.02 * error(packed("nf4-g64", large)));
  expect(error(weight)).toBeLessThan(0.00846 * 1.04);
});

it("QLoRA's base keeps zeros, and refuses groups that do not fill a row", async () => {
  const options = qloraBase.options.parse({ bits: 2, group: 32 });
  const zeros = matrix(2, 64);
  zeros.data[3] = 0.5;
  const weight = await qloraBase.decompose(zeros, { backend }, options);
  const decoded = decodeWeight(weight).data;
  expect(decoded[3]).toBeCloseTo(0.5, 3);
  expect(decoded.every((w, i) => i === 3 || w === 0)).toBe(true);
  expect(() => qloraBase.check({ rows: 2, cols: 48 }, options)).toThrow(InputError);
  expect(() => qloraBase.options.parse({ bits: 5 })).toThrow();
});

it.each(["int2-offset-g64", "nf4-g64", "trellis2", "f16"])(
  "an adapter leaves the function of %s as it is, bit for bit, and each matrix draws its own",
  (format) => {
    const weight = packed(format);
    const tuning = qloraOf({ rank: 4, magnitudes: true });
    const tuned = tuning.tuned(weight, "q");
    expect([...tuned.parameters.keys()].sort()).toEqual(["of.terms.1.a", "of.terms.1.b", "scales"]);
    const stored = tuned.stored(values(tuned), backend) as Weight;
    expect(decodeWeight(stored).data).toEqual(decodeWeight(weight).data);
    const b = (name: string) => tuning.tuned(weight, name).parameters.get("of.terms.1.b")!.data;
    expect(b("q")).toEqual(b("q"));
    expect(b("q")).not.toEqual(b("k"));
  },
);

it("a rank that the matrix cannot have is refused", () => {
  expect(() => qloraOf({ rank: 25 }).tuned(packed("int4"), "q")).toThrow("a rank of 25 is more than 24");
  expect(() => sqftOf({ rank: 25 }).tuned(packed("int4"), "q")).toThrow("a rank of 25 is more than 24");
});

it("every format: gradients through a packed base are those through its floats", async () => {
  const [rows, cols] = [8, 256];
  const w = matrix(rows, cols, normals(generator(3), rows * cols, 0.05));
  const tuning = qloraOf({ rank: 2 });
  const moved = [...values(tuning.tuned(packed("f32", w), "a"), 0.05)];
  /** Of Σy²/2 by the adapter's factors and by x, y = x·(Ŵ + A·B)ᵀ. */
  const gradients = async (base: Weight) => {
    const tuned = tuning.tuned(base, "a");
    const keep = (shape: readonly number[], data: Float32Array) =>
      native.keep(native.upload(hostTensor(shape, data)));
    const x = keep([3, cols], normals(generator(5), 3 * cols));
    const factors = moved.map(
      ([path, data]) => [path, keep(tuned.parameters.get(path)!.shape, data)] as const,
    );
    const parameters = [...factors.map(([, t]) => t), x];
    const tape = new Tape(native, parameters);
    const open = tuned.open(native);
    native.scope(() => {
      const y = tape.linear(x, open.tensor(tape, new Map(factors)));
      tape.backward(y, y);
    });
    const found = await Promise.all(parameters.map((t) => native.read(tape.gradients.get(t)!)));
    tape.clear();
    open.free();
    for (const t of parameters) native.free(t);
    return found as Float32Array[];
  };
  const norm = (data: Float32Array) => Math.sqrt(data.reduce((sum, v) => sum + v * v, 0));
  for (const [name, format] of formats) {
    if (!fillsRow(format, cols)) continue;
    const base = packed(name, w);
    const [ours, theirs] = [await gradients(base), await gradients(packed("f32", decodeWeight(base)))];
    for (const [i, gradient] of ours.entries()) {
      const off = gradient.map((v, at) => v - theirs[i][at]);
      expect(norm(off) / norm(theirs[i]), name).toBeLessThan(1e-5);
    }
  }
});

it.skipIf(!native.takePeakBytes)("never more than one matrix of the base is whole", () => {
  const [layers, size] = [8, 512];
  const parameters: Tensor[] = [];
  const square = matrix(size, size, normals(generator(8), size * size, 0.05));
  const one = qloraOf({ rank: 2 }).tuned(packed("nf4-g64", square), "a");
  const maps = Array.from({ length: layers }, () => {
    const map = new Map([...one.parameters].map(([path, t]) => [path, native.keep(native.upload(t))]));
    parameters.push(...map.values());
    return map;
  });
  const opened = maps.map(() => one.open(native));
  const tape = new Tape(native, parameters);
  const x = native.keep(native.upload(hostTensor([1, size], normals(generator(9), size))));
  native.takePeakBytes!();
  const before = native.scope(() => native.zeros([1])) && native.takePeakBytes!();
  native.scope(() => {
    let y: Tensor = x;
    for (const [i, layer] of opened.entries()) y = tape.linear(y, layer.tensor(tape, maps[i]));
    tape.backward(y, y);
  });
  // A few rows and gradients of two factors for each layer stay; eight whole matrices would be 8 MiB.
  const small = layers * 4 * size * (8 + 4 * 2);
  expect(native.takePeakBytes!() - before).toBeLessThan(4 * size * size + small);
  tape.clear();
  for (const t of [...parameters, x]) native.free(t);
  for (const layer of opened) layer.free();
});

it.each(["int4-g32", "int2-offset-g64", "nf4-g64", "int8", "tq2_0", "iq4_nl"])(
  "sqft: what was trained on %s is what is stored, on the base's own grid",
  async (format) => {
    const weight = packed(format);
    const tuned = sqftOf({ rank: 4 }).tuned(weight, "q");
    const { parts } = onlyPart(weight);
    const same = onlyPart(await tuned.stored(values(tuned), backend));
    expect(same).toMatchObject({ format, parts });

    const moved = values(tuned, 0.1);
    const stored = await tuned.stored(moved, backend);
    const own = onlyPart(stored);
    expect(own.format).toBe(format);
    expect(own.parts.codes.bytes).not.toEqual(parts.codes.bytes);
    if (parts.scales) expect(own.parts.scales).toEqual(parts.scales);
    expect(await seen(tuned, moved)).toEqual(decodeWeight(stored).data);
  },
);

it("sqft: no value of the grid is nearer to base and adapter together", async () => {
  const weight = packed("int3-g32");
  const tuned = sqftOf({ rank: 4 }).tuned(weight, "q");
  const moved = values(tuned, 0.1);
  const [a, b] = [moved.get("a")!, moved.get("b")!];
  const base = decodeWeight(weight).data;
  const stored = decodeWeight(await tuned.stored(moved, backend)).data;
  for (let at = 0; at < base.length; at++) {
    const [r, c] = [Math.floor(at / cols), at % cols];
    let target = base[at];
    for (let k = 0; k < 4; k++) target += a[r * 4 + k] * b[c * 4 + k];
    const group = base.slice(at - (c % 32), at - (c % 32) + 32);
    const step = Math.max(...group.map(Math.abs)) / 3; // its largest weight stands at ±3
    const nearest = Math.max(-4, Math.min(3, halfEven(target / step))) * step;
    expect(Math.abs(stored[at] - target)).toBeLessThan(Math.abs(nearest - target) + 1e-6);
  }
});

it("sqft keeps the zeros of a sparse base, and moves them otherwise", async () => {
  const half = matrix(
    rows,
    cols,
    W.data.map((w, i) => (i % 2 === 0 ? 0 : w)),
  );
  const weight = packed("int4-g32", half);
  for (const sparse of [true, false]) {
    const tuned = sqftOf({ rank: 4, sparse }).tuned(weight, "q");
    const stored = decodeWeight(await tuned.stored(values(tuned, 0.2), backend)).data;
    const base = decodeWeight(weight).data;
    const kept = stored.every((w, i) => base[i] !== 0 || w === 0);
    expect(kept).toBe(sparse);
    expect(stored).not.toEqual(base);
  }
});

it("sqft refuses what has no codes and scales of groups, by the matrix' name", async () => {
  const coded = await qloraBase.decompose(W, { backend }, qloraBase.options.parse({}));
  for (const weight of [coded, packed("trellis2"), packed("f16"), packed("q4_k")])
    expect(() => sqftOf().tuned(weight, "model.q_proj")).toThrow(/^sqft: model\.q_proj is stored as /);
});

it("merging afterwards: nothing happens without an adapter, and with one it is the nearest on the grid", async () => {
  const weight = packed("int3-g32");
  const merge = (of: Weight, sparse = false) =>
    sqftMerge.decompose(decodeWeight(of), { backend, name: "q", stored: async () => of }, { sparse });
  const adapter = { rank: 2, factors: "f16", magnitudes: true, seed: 1 } as const;
  expect(await merge(weight)).toEqual(weight);
  expect(await merge(withAdapter(weight, adapter))).toEqual(weight);

  const tuned = qloraOf(adapter).tuned(weight, "q");
  const own = (await tuned.stored(values(tuned, 0.1), backend)) as Weight;
  const [target, merged] = [decodeWeight(own).data, await merge(own)];
  expect(onlyPart(merged).format).toBe("int3-g32");
  const [found, base] = [decodeWeight(merged).data, decodeWeight(weight).data];
  for (let g = 0; g < found.length; g += 32) {
    // The largest weight of a group stood at ±3: of its row, times its magnitude now.
    const row = Math.floor(g / cols);
    const m =
      own.expression.kind === "scaleRows"
        ? new Float16Array(own.expression.scales.bytes.slice().buffer)[row]
        : 1;
    const step = (m * Math.max(...base.slice(g, g + 32).map(Math.abs))) / 3;
    for (let at = g; at < g + 32; at++) {
      const inside = Math.max(-4 * step, Math.min(3 * step, target[at]));
      expect(Math.abs(found[at] - inside)).toBeLessThan(0.5 * Math.abs(step) * 1.01);
    }
  }
  const zeros = decodeWeight(await merge(own, true)).data;
  expect(zeros.every((w, at) => base[at] !== 0 || w === 0)).toBe(true);
  await expect(merge(packed("trellis2"))).rejects.toThrow("q is stored as trellis2");
});
