import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { nearestE8P, pointOfE8P } from "../formats/e8p.ts";
import { decodeWeight, encode, formatByName } from "../formats/index.ts";
import { activationGroup } from "../formats/levels.ts";
import { trellisValue } from "../formats/trellis.ts";
import { type KernelName, kernels, type ProcedureName, procedures } from "../kernels/index.ts";
import { gamma, type Kernel, type Procedure, TINY, UNIT, type View } from "../kernels/kernel.ts";
import { decodedView, elementsView, packedView } from "../kernels/view.ts";
import { generator, normals } from "../tensor/random.ts";
import {
  type Elements,
  type HostTensor,
  hostTensor,
  InputError,
  matrix,
  ShapeError,
  sizeOf,
  type Tensor,
} from "../tensor/tensor.ts";
import { onlyPart, packedWeight, type Weight } from "../tensor/weight.ts";
import type { Backend, BackendOptions } from "./backend.ts";
import {
  bf16Cases,
  type Case,
  cacheCases,
  cacheFormats,
  cacheRows,
  codebookCases,
  type HostArgument,
  int8Cases,
  kernelCases,
  largeSteps,
  nonFiniteCases,
  normalTensor,
  packedCases,
  packedFormats,
  procedureCases,
  vectorSizes,
  wrongShapes,
} from "./cases.suite.ts";
import { compounds } from "./compound.suite.ts";
import { integerKernels } from "./kernel-choice.ts";
import { openReference } from "./reference.ts";

/**
 * What every backend must do: every operation and procedure × format × size
 * within the bounds that their kernels derive, element by element, and the same
 * bits whatever the number of threads. `open` must give a fresh backend.
 */
export function backendSuite(name: string, open: (options: BackendOptions) => Promise<Backend>): void {
  describe(`backend ${name}`, () => {
    let backend: Backend;
    beforeAll(async () => {
      backend = await open({ threads: 2 });
    });
    afterAll(() => backend.dispose());

    for (const [kernel, cases] of byName(kernelCases())) {
      test(`${kernel}, forward and backward`, async () => {
        for (const one of cases) await checkKernel(backend, one);
      });
    }

    for (const format of packedFormats) {
      test(`${format} matrices`, async () => {
        for (const one of packedCases(format)) {
          expect(backend.supports(one.name, format), `supports ${one.name} × ${format}`).toBe(true);
          await checkKernel(backend, one);
        }
      });
    }

    test("matrices of codes with a book", async () => {
      const tables = await open({ integerKernel: "table", threads: 2 });
      for (const one of codebookCases()) {
        await checkKernel(backend, one);
        await checkKernel(tables, one);
      }
      tables.dispose();
    });

    compounds(() => backend);

    for (const format of cacheFormats) {
      test(`attention over a cache in ${format}`, async () => {
        expect(backend.supports("attention", format)).toBe(true);
        for (const one of cacheCases(format)) await checkKernel(backend, one);
      });

      test(`a cache in ${format} stores the same values on every backend`, async () => {
        const reference = openReference();
        const expected = await cacheContents(reference, format);
        const got = await cacheContents(backend, format);
        expect(got).toEqual(expected);
        reference.dispose();
      });
    }

    test("up to eight queries get the same bits, however many are computed together", async () => {
      for (const format of ["f32", ...cacheFormats]) await checkTogether(backend, format);
    });

    for (const format of packedFormats.filter((name) => activationGroup(formatByName(name)) > 0)) {
      test(`${format} matrices, int8 activations`, async () => {
        await checkInt8(backend, format);
      });
    }

    test("few rows of x give what each of them gives alone", async () => {
      for (const [w, cols] of [
        [normalTensor(generator(10), [37, 1030], 1), 1030],
        [packedCases("int4-g32").find((one) => one.args[0] && one.name === "linear")!.args[1], 256],
      ] as const) {
        const W = backend.upload(w as HostTensor | Weight);
        const x = backend.upload(normalTensor(generator(11), [8, cols], 1));
        await sameRows(backend, x, W, [1, 2, 3, 4, 5, 6, 7]);
      }
    });

    for (const [kernel, cases] of byName(bf16Cases())) {
      test(`${kernel}, where BF16 is allowed`, async () => {
        for (const one of cases) await checkKernel(backend, one);
      });
    }

    test("BF16 is used where the description says so, and nowhere else", async () => {
      const random = generator(18);
      const [x, w, dy] = [
        [40, 70],
        [50, 70],
        [40, 50],
      ].map((shape) => backend.upload(normalTensor(random, shape, 1)));
      const uses = backend.description.includes("BF16");
      const both = await Promise.all([0, 1].map((precision) => productsOf(backend, x, w, dy, precision)));
      for (const [i, product] of both[0].entries()) expect(sameBits(product, both[1][i])).toBe(!uses);
      const packed = packedCases("int4-g32").find(
        (one) => one.name === "linear" && one.label.includes("33×70"),
      )!;
      const [floats, matrix] = upload(backend, packed.args) as Tensor[];
      const [plain, allowed] = await Promise.all(
        [0, 1].map((precision) => backend.read(backend.linear(floats, matrix, precision))),
      );
      expect(sameBits(plain, allowed), "a packed matrix").toBe(true);
    });

    // Every operand is a BF16 number and every sum below 2²⁴, so that nothing is ever rounded.
    test("products of small whole numbers are exact in BF16", async () => {
      const random = generator(19);
      for (const [rows, out, cols] of [
        [100, 64, 64],
        [99, 49, 81],
        [300, 97, 520],
        [30, 15, 1031],
        [2100, 20, 30],
      ]) {
        const whole = (shape: readonly number[]) =>
          hostTensor(
            shape,
            Float32Array.from({ length: sizeOf(shape) }, () => Math.floor(random() * 41) - 20),
          );
        const [x, w, dy] = [
          [rows, cols],
          [out, cols],
          [rows, out],
        ].map((shape) => backend.upload(whole(shape)));
        const [exact, bf16] = [
          await productsOf(backend, x, w, dy, 0),
          await productsOf(backend, x, w, dy, 1),
        ];
        for (const [i, product] of exact.entries())
          expect(bf16[i], `${rows}×${out}×${cols}`).toEqual(product);
      }
    });

    test("a row's product in BF16 does not depend on the other rows", async () => {
      for (const [out, cols] of [
        [64, 257],
        [48, 96],
        [33, 520],
      ]) {
        const [x, w] = [
          [130, cols],
          [out, cols],
        ].map((shape) => backend.upload(normalTensor(generator(20), shape, 1)));
        await sameRows(backend, x, w, [9, 12, 13, 48, 49, 100], 1);
      }
    });

    for (const [kernel, cases] of byName(nonFiniteCases())) {
      test(`${kernel}, NaN and infinity`, async () => {
        for (const one of cases) await checkKernel(backend, one);
      });
    }

    for (const [procedure, cases] of byName(procedureCases())) {
      test(procedure, async () => {
        for (const one of cases) await checkProcedure(backend, one);
      });
    }

    linearAlgebra(() => backend);
    memory(() => backend);

    test("attention over a cache equals attention over the whole", async () => {
      const random = generator(5);
      const [time, heads, kvHeads, headDim] = [70, 4, 2, 16];
      const q = normalTensor(random, [time, heads * headDim], 2);
      const k = normalTensor(random, [time, kvHeads * headDim], 1);
      const v = normalTensor(random, [time, kvHeads * headDim], 1);
      const [Q, K, V] = [q, k, v].map((t) => backend.upload(t));
      const whole = await backend.read(backend.attention(Q, K, V, heads, kvHeads, 1, 0));
      const [keys, values] = [k, v].map((t) => backend.zeros([time + 10, t.shape[1]]));
      const cached: number[] = [];
      for (const [from, to] of [
        [0, 64],
        [64, 69],
        [69, 70],
      ]) {
        backend.cacheAppend(keys, backend.rows(K, from, to), from);
        backend.cacheAppend(values, backend.rows(V, from, to), from);
        const seen = [keys, values].map((cache) => backend.rows(cache, 0, to));
        const part = backend.attention(backend.rows(Q, from, to), seen[0], seen[1], heads, kvHeads, 1, from);
        cached.push(...(await backend.read(part)));
      }
      const { expected, bounds } = referenceForward({
        name: "attention",
        label: "",
        args: [q, k, v, heads, kvHeads, 1, 0],
      });
      compare("whole", whole, expected[0].data, bounds[0]);
      compare("cached", Float32Array.from(cached), expected[0].data, bounds[0]);
    });

    test("wrong shapes are refused", () => {
      for (const { name, label, args } of wrongShapes()) {
        const call = backend[name] as (...args: unknown[]) => unknown;
        expect(() => call.apply(backend, upload(backend, args)), `${name} of ${label}`).toThrow(ShapeError);
      }
    });
  });

  test(`backend ${name} gives the same bits by dot products, tables and planes of bits`, async () => {
    const backends: Backend[] = [];
    for (const integerKernel of integerKernels) backends.push(await open({ integerKernel, threads: 2 }));
    for (const format of packedFormats.filter(hasPlanes)) {
      for (const one of int8Cases(format)) {
        const [dot, ...others] = await Promise.all(backends.map((backend) => resultsOf(backend, one)));
        for (const [i, other] of others.entries()) {
          const same = other.every((result, j) => sameBits(result, dot[j]));
          expect(same, `${one.label}, ${one.name}, ${integerKernels[i + 1]}`).toBe(true);
        }
      }
    }
    for (const backend of backends) backend.dispose();
  });

  test(`backend ${name} looks up sums for codes with a book: the same bits for any number of rows and threads`, async () => {
    const [dot, table, alone] = await Promise.all(
      (["dot", "table", "table"] as const).map((integerKernel, i) =>
        open({ integerKernel, threads: i < 2 ? 2 : 1 }),
      ),
    );
    const looked = [0, 0];
    for (const { args, label } of codebookCases().filter((one) => one.name === "linear")) {
      const w = args[1] as Weight;
      const x = normalTensor(generator(26), [8, w.shape[1]], 1);
      const [decoded, two, one] = await Promise.all(
        [dot, table, alone].map(async (backend) => {
          const [X, W] = [x, w].map((t) => backend.upload(t));
          await sameRows(backend, X, W, [1, 2, 3, 4, 5, 6, 7]);
          return backend.read(backend.linear(X, W));
        }),
      );
      expect(sameBits(one, two), label).toBe(true);
      looked[sameBits(decoded, two) ? 0 : 1]++;
    }
    // Rows of whole bytes, and the others, which are decoded everywhere.
    if ("integerKernel" in dot) expect(looked).toEqual([11, 16]);
    for (const backend of [dot, table, alone]) backend.dispose();
  });

  test(`backend ${name} gives the same bits on one, two, three and five threads`, async () => {
    const results: Elements[][] = [];
    for (const threads of [1, 2, 3, 5]) {
      const backend = await open({ threads });
      const has = threads <= backend.threads; // else it has one thread whatever is wanted
      if (has) results.push(await largeResults(backend));
      backend.dispose();
      if (!has) break;
    }
    for (const others of results.slice(1)) {
      for (const [i, one] of results[0].entries()) expect(sameBits(one, others[i]), `result ${i}`).toBe(true);
    }
  });
}

/** Products of a format with int8 activations: within their bounds, and the same bits however many rows x has. */
export async function checkInt8(backend: Backend, format: string): Promise<void> {
  for (const one of int8Cases(format)) await checkKernel(backend, one);
  const { args } = packedCases(format).find((one) => one.name === "linear" && one.label.includes("33×70"))!;
  const w = backend.upload(args[1] as Weight, { activations: "int8" });
  expect(w.activations).toBe("int8");
  const x = backend.upload(args[0] as HostTensor);
  await sameRows(backend, x, w, [1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 24, 25]);
  for (const t of [x, w]) backend.free(t);
}

/** Whether codes have so few bits that kernels other than dot products take them. */
function hasPlanes(name: string): boolean {
  const format = formatByName(name);
  return format.kind === "group" && format.codeCount <= 16 && activationGroup(format) > 0;
}

/** Outputs of a case, and the gradient of its first argument where that is a plain tensor. */
async function resultsOf(backend: Backend, one: Case): Promise<Elements[]> {
  const args = upload(backend, one.args, one.activations);
  const results = backend.forward(one.name, args);
  if (one.name === "linear") {
    const dy = backend.upload(normalTensor(generator(15), results[0].shape, 1));
    results.push(...backend.backward(one.name, args, results, dy, [true, false]).filter((t) => t !== null));
  }
  const read = await Promise.all(results.map((t) => backend.read(t)));
  for (const t of [...results, ...args]) if (typeof t === "object") backend.free(t as Tensor);
  return read;
}

/** The first rows of x times w are the first rows of the whole product, bit for bit. */
async function sameRows(
  backend: Backend,
  x: Tensor,
  w: Tensor,
  counts: readonly number[],
  precision = 0,
): Promise<void> {
  const whole = await backend.read(backend.linear(x, w, precision));
  for (const count of counts) {
    const part = await backend.read(backend.linear(backend.rows(x, 0, count), w, precision));
    expect(sameBits(part, whole.subarray(0, part.length)), `${w.format}, ${count} rows`).toBe(true);
  }
}

/** y = x·Wᵀ and both gradients. */
async function productsOf(
  backend: Backend,
  x: Tensor,
  w: Tensor,
  dy: Tensor,
  precision: number,
): Promise<Elements[]> {
  const tensors = backend.scope(() => {
    const outputs = backend.forward("linear", [x, w, precision]);
    return [
      ...outputs,
      ...backend.backward("linear", [x, w, precision], outputs, dy, [true, true]),
    ] as Tensor[];
  });
  return Promise.all(tensors.map((t) => backend.read(t)));
}

function byName<Name>(cases: readonly Case<Name>[]): Map<Name, Case<Name>[]> {
  return Map.groupBy(cases, (one) => one.name);
}

/** Tensor arguments moved to a backend, numbers as they are. */
function upload(backend: Backend, args: readonly HostArgument[], activations?: "int8"): unknown[] {
  return args.map((a) => (typeof a === "number" ? a : backend.upload(a, { activations })));
}

function isTensorArgument(argument: HostArgument): argument is HostTensor | Weight {
  return typeof argument !== "number";
}

/** What the reference computes on; `copy` protects what a procedure writes. */
function viewOf(argument: HostTensor | Weight, copy = false): View {
  if ("data" in argument) {
    return elementsView(argument.shape, copy ? argument.data.slice() : argument.data);
  }
  if (argument.expression.kind !== "packed")
    return decodedView(argument.shape, "codebook", () => decodeWeight(argument).data);
  const { format, parts } = onlyPart(argument);
  return packedView(argument.shape, format, parts);
}

/** The arguments as `outputs` and `numbers` see them: with shape and format. */
function described(args: readonly HostArgument[], activations?: "int8"): unknown[] {
  return args.map((a) =>
    isTensorArgument(a) && !("data" in a) ? { shape: a.shape, format: viewOf(a).format, activations } : a,
  );
}

function zeroView(shape: readonly number[], format: "f32" | "i32" = "f32"): View {
  return elementsView(
    shape,
    format === "f32" ? new Float32Array(sizeOf(shape)) : new Int32Array(sizeOf(shape)),
  );
}

/** What the reference gives for a case, made once for all backends of a process. */
function referenceForward(one: Case): Reference {
  const known = references.get(one) ?? newReference(one);
  references.set(one, known);
  return known;
}

type Reference = ReturnType<typeof newReference>;
const references = new WeakMap<Case, Reference>();

function newReference({ name, args, activations }: Case) {
  const kernel = kernels[name] as Kernel;
  const inputs = args.filter(isTensorArgument).map((a) => viewOf(a));
  const numbers = kernel.numbers(...described(args, activations));
  const expected = kernel.outputs(...described(args)).map(({ shape, format }) => zeroView(shape, format));
  kernel.forward(inputs, expected, numbers);
  return { kernel, inputs, numbers, expected, bounds: kernel.bound(inputs, expected, numbers) };
}

/** What a cache holds after rows were appended, and after it moved into a larger one of its format. */
async function cacheContents(backend: Backend, format: string): Promise<Float32Array> {
  const host = cacheRows();
  const [count, width] = host.shape;
  const tensors = backend.scope(() => {
    const small = backend.zeros([count + 1, width], format);
    const rows = backend.upload(host);
    backend.cacheAppend(small, backend.rows(rows, 0, 2), 1);
    backend.cacheAppend(small, backend.rows(rows, 1, count), 2);
    const large = backend.zeros([count + 5, width], format);
    backend.cacheAppend(large, small, 3);
    const places = Int32Array.from({ length: count + 5 }, (_, i) => i);
    return backend.embedding(large, backend.upload(hostTensor([count + 5], places)));
  });
  // A weight of 0 may be −0 where nothing was written.
  return (await backend.read(tensors)).map((value) => value + 0) as Float32Array;
}

/** Attention of 1, 3 and 8 queries at once, across the end of a chunk of keys. */
async function checkTogether(backend: Backend, format: string): Promise<void> {
  const random = generator(11);
  const [time, heads, kvHeads, headDim, from] = [8, 4, 2, 48, 252];
  const [q, k, v] = [heads, kvHeads, kvHeads].map((count, i) =>
    backend.upload(normalTensor(random, [i === 0 ? time : from + time, count * headDim], 1)),
  );
  const [keys, values] = [k, v].map((rows) => {
    const cache = backend.zeros([300, kvHeads * headDim], format);
    backend.cacheAppend(cache, rows, 0);
    return cache;
  });
  const results: Elements[] = [];
  for (const step of [1, 3, 8]) {
    const parts: number[] = [];
    for (let t = 0; t < time; t += step) {
      const some = backend.rows(q, t, Math.min(t + step, time));
      parts.push(...(await backend.read(backend.attention(some, keys, values, heads, kvHeads, 1, from + t))));
    }
    results.push(Float32Array.from(parts));
  }
  expect(sameBits(results[0], results[1]), `${format}: one and three`).toBe(true);
  expect(sameBits(results[0], results[2]), `${format}: one and eight`).toBe(true);
}

/** Runs a case forward and backward on the backend and compares with the reference. */
export async function checkKernel(backend: Backend, one: Case): Promise<void> {
  const where = `${one.name}, ${one.label}`;
  const { kernel, inputs, numbers, expected, bounds } = referenceForward(one);
  const { args, outputs } = backend.scope(() => {
    const args = upload(backend, one.args, one.activations);
    return { args, outputs: backend.forward(one.name, args) };
  });
  expect(outputs.map((t) => [...t.shape])).toEqual(expected.map((t) => [...t.shape]));
  for (const [i, output] of outputs.entries()) {
    compare(`${where}: output ${i}`, await backend.read(output), expected[i].data, bounds[i]);
  }

  const dy = normalTensor(generator(6), expected[0].shape, 1);
  const wantedSets = kernel.differentiable.map((i) => inputs.map((_, j) => i === j));
  wantedSets.push(inputs.map((_, i) => kernel.differentiable.includes(i)));
  for (const asked of wantedSets) {
    const wanted = asked.map((want, i) => want && inputs[i].format === "f32");
    const gradients = inputs.map((input, i) => (wanted[i] ? zeroView(input.shape) : null));
    const dyView = viewOf(dy);
    kernel.backward(inputs, expected, dyView, gradients, numbers);
    const gradientBounds = kernel.boundBackward(inputs, expected, dyView, gradients, numbers);
    const got = backend.scope(() => {
      const made = expected.map((t) => backend.upload(hostTensor(t.shape, t.data)));
      return backend.backward(one.name, args, made, backend.upload(dy), wanted);
    });
    for (const [i, gradient] of got.entries()) {
      expect(gradient !== null, `${where}: gradient ${i} was ${wanted[i] ? "" : "not "}asked for`).toBe(
        wanted[i],
      );
      if (!gradient) continue;
      compare(
        `${where}: gradient ${i}`,
        await backend.read(gradient),
        gradients[i]!.data,
        gradientBounds[i]!,
      );
      backend.free(gradient);
    }
  }
  for (const t of outputs) backend.free(t);
}

async function checkProcedure(backend: Backend, { name, label, args }: Case<ProcedureName>): Promise<void> {
  const procedure = procedures[name] as Procedure;
  const before = args.filter(isTensorArgument).map((a) => viewOf(a));
  const after = args.filter(isTensorArgument).map((a) => viewOf(a, true));
  const numbers = procedure.numbers(...described(args));
  procedure.run(after, numbers);
  const bounds = procedure.bound!(before, after, numbers);
  const uploaded = upload(backend, args);
  (backend[name] as (...args: unknown[]) => void)(...uploaded);
  for (const [i, t] of procedure.writes.entries()) {
    const got = await backend.read(uploaded[t] as Tensor);
    if (after[t].format === "i32") expect(got, `${name}, ${label}: tensor ${t}`).toEqual(after[t].ids);
    else compare(`${name}, ${label}: tensor ${t}`, got, after[t].data, bounds[i]);
  }
}

/**
 * Every element within its bound of the reference, which was rounded to float32
 * itself; NaN where it is NaN, and the same infinities.
 */
function compare(where: string, got: Elements, expected: Float32Array, bounds: Float64Array): void {
  expect(got.length, where).toBe(expected.length);
  for (let i = 0; i < expected.length; i++) {
    const within = Number.isFinite(expected[i])
      ? Math.abs(got[i] - expected[i]) <= bounds[i] + UNIT * Math.abs(expected[i]) + TINY
      : Object.is(got[i], expected[i]);
    if (!within) {
      throw new Error(
        `${where}: element ${i} needs ${expected[i]} ± ${bounds[i].toExponential(2)}, got ${got[i]}`,
      );
    }
  }
}

function sameBits(a: Elements, b: Elements): boolean {
  const [first, second] = [a, b].map((t) => new Int32Array(t.buffer, t.byteOffset, t.length));
  return first.length === second.length && first.every((bits, i) => bits === second[i]);
}

/** Outputs and gradients of operations large enough to be cut into many tasks. */
async function largeResults(backend: Backend): Promise<Elements[]> {
  const random = generator(7);
  const floats = (shape: readonly number[], scale = 1) => normalTensor(random, shape, scale);
  const some = hostTensor(
    [300],
    Int32Array.from({ length: 300 }, (_, i) => (i * 37) % 513),
  );
  const cases: [KernelName, ...HostArgument[]][] = [
    ["add", floats([300, 255]), floats([300, 255])],
    ["swiglu", floats([300, 255]), floats([300, 255])],
    ["rmsNorm", floats([300, 255]), floats([255]), 1e-5],
    ["rope", floats([300, 64]), floats([310, 16]), 16, 300, 7, 1],
    ["attention", floats([300, 64]), floats([300, 32]), floats([300, 32]), 4, 2, 2, 0],
    ["attention", floats([1, 64]), floats([700, 32]), floats([700, 32]), 4, 2, 1, 699],
    ["attention", floats([7, 256]), floats([700, 128]), floats([700, 128]), 4, 2, 1, 693],
    ["linear", floats([300, 257]), floats([513, 257])],
    ["linear", floats([1, 257]), floats([513, 257])],
    ["embedding", floats([513, 65]), some],
    ["crossEntropy", floats([300, 65]), floats([513, 65], 0.2), some],
    ["linear", floats([300, 257]), floats([513, 257]), 1],
    ["linear", floats([1500, 64]), floats([96, 64]), 1],
    ["crossEntropy", floats([300, 65]), floats([513, 65], 0.2), some, 1],
    ["ternary", floats([513, 257]), 1e-5],
    ["ternary", floats([513, 257]), 1e-5, 1],
    ["binary", floats([513, 257])],
    ["sign", floats([513, 257]), 1],
    ["half", floats([100_003])],
    ["scaleRows", floats([513, 257]), floats([513])],
    ["scaleColumns", floats([513, 257]), floats([257])],
    ["join", floats([513, 257]), floats([513, 65])],
    [
      "lookUp",
      floats([16, 4]),
      hostTensor(
        [513, 65],
        Int32Array.from({ length: 513 * 65 }, (_, i) => (i * 7) % 16),
      ),
      floats([513, 5]),
      floats([513, 5]),
    ],
    [
      "snap",
      floats([513, 260]),
      hostTensor(
        [513, 260],
        Int32Array.from({ length: 513 * 260 }, (_, i) => (i * 7) % 16),
      ),
      floats([16]),
      floats([513, 5]),
      floats([513, 5]),
      1,
    ],
    ["addRow", floats([513, 257]), floats([257])],
    ["combine", floats([513, 257]), floats([513, 257]), 0.3, 0.7],
    ["learnedStep", floats([513, 257]), floats([513]), 2],
    ["learnedStep", floats([513, 257]), floats([513]), 3],
    ["nested", floats([513, 257]), 3, 0],
    ["layerNorm", floats([300, 255]), 1e-5],
    ["relu2glu", floats([300, 255]), floats([300, 255])],
    ["roundRows", floats([300, 256]), 4, 1, 64, 0.5, 0],
    ["softLoss", floats([300, 513]), floats([300, 513]), 2, 20],
    ["matchStates", floats([300, 255]), floats([300, 255])],
    ["gelu", floats([300, 255])],
    ["neighbourhoods", floats([30, 10 * 17, 7]), 10, 17, 7, 3],
    ["neighbourSums", floats([30, 10 * 17 * 9]), 10, 17, 1, 3],
    ["pixelShuffle", floats([1200, 64]), 30, 40, 64, 2, 1],
    ["binary", floats([513, 257])],
  ];
  for (const format of ["int4-g32", "int8-offset", "tq2_0"]) {
    const linear = packedCases(format).filter((one) => one.name === "linear");
    cases.push(...linear.map((one): [KernelName, ...HostArgument[]] => ["linear", ...one.args]));
  }
  const results: Elements[] = [];
  for (const [name, ...args] of cases) {
    const tensors = backend.scope(() => {
      const uploaded = upload(backend, args);
      const outputs = backend.forward(name, uploaded);
      const dy = backend.upload(normalTensor(generator(8), outputs[0].shape, 1));
      const wanted = args.filter(isTensorArgument).map((a, i) => {
        return "data" in a && a.format === "f32" && kernels[name].differentiable.includes(i);
      });
      const gradients = backend.backward(name, uploaded, outputs, dy, wanted);
      return [...outputs, ...gradients.filter((t) => t !== null)];
    });
    for (const t of tensors) results.push(await backend.read(t));
  }
  for (const format of ["int4-g32", "int8-offset", "tq2_0"]) {
    const W = matrix(300, 512, normals(generator(13), 300 * 512));
    const parts = encode(formatByName(format), W);
    const w = backend.upload(packedWeight([300, 512], format, parts), { activations: "int8" });
    for (const rows of [1, 7, 200]) {
      results.push(await backend.read(backend.linear(backend.upload(floats([rows, 512])), w)));
    }
  }
  const norm = backend.zeros([1]);
  backend.squaredNorm(norm, backend.upload(floats([100_003])), 0);
  results.push(await backend.read(norm));
  const gram = backend.zeros([257, 257]);
  backend.addGram(gram, backend.upload(floats([300, 257])), 2);
  backend.accumulate(gram, backend.upload(eye(257)), 1);
  results.push(await backend.read(gram));
  backend.cholesky(gram, backend.zeros([2]), 0, 257);
  results.push(await backend.read(gram));
  const [solved, errors] = [backend.upload(floats([257, 130])), backend.upload(floats([257, 130]))];
  backend.triangularSolve(gram, solved, 0, 0, 130);
  results.push(await backend.read(solved));
  backend.gptqUpdate(solved, errors, gram, 0, 128, 128, 257);
  results.push(await backend.read(solved));
  const [u, s, v] = [backend.upload(floats([130, 67])), backend.zeros([67]), backend.zeros([67, 67])];
  backend.svd(u, s, v);
  for (const t of [u, s, v]) results.push(await backend.read(t));
  const moments = [floats([100_003]), floats([100_003]), floats([100_003], 0.1)].map((t) =>
    backend.upload(t),
  );
  const second = backend.zeros([100_003]);
  backend.adamw(moments[0], moments[1], moments[2], second, norm, 1e-3, 0.9, 0.95, 1e-8, 0.1, 7, 1);
  for (const t of [moments[0], moments[2], second]) results.push(await backend.read(t));
  for (const { name, args } of largeSteps()) {
    const uploaded = upload(backend, args);
    (backend[name] as (...args: unknown[]) => void)(...uploaded);
    for (const t of procedures[name].writes) results.push(await backend.read(uploaded[t] as Tensor));
  }
  return results;
}

function eye(n: number): HostTensor {
  return hostTensor(
    [n, n],
    Float32Array.from({ length: n * n }, (_, at) => (at % (n + 1) === 0 ? 1 : 0)),
  );
}

/** Σ_k a[r, k]·b[c, k] and the same with absolute values, for a (rows, inner) and b (cols, inner). */
function products(a: Elements, b: Elements, rows: number, cols: number, inner: number) {
  const sums = new Float64Array(rows * cols);
  const sizes = new Float64Array(rows * cols);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < cols; c++) {
      for (let k = 0; k < inner; k++) {
        const term = a[r * inner + k] * b[c * inner + k];
        sums[r * cols + c] += term;
        sizes[r * cols + c] += Math.abs(term);
      }
    }
  }
  return { sums, sizes };
}

function transpose(a: Elements, rows: number, cols: number): Float64Array {
  const t = new Float64Array(rows * cols);
  for (let r = 0; r < rows; r++) for (let c = 0; c < cols; c++) t[c * rows + r] = a[r * cols + c];
  return t;
}

/** Factorizations, by the equations that their results satisfy. */
function linearAlgebra(open: () => Backend): void {
  const sizes = [1, 3, 17, 100];

  /** x·xᵀ + I of a random x (n, n). */
  const positive = (n: number): Float32Array => {
    const x = normalTensor(generator(n), [n, n], 1).data;
    return Float32Array.from(
      products(x, x, n, n, n).sums,
      (value, at) => value + (at % (n + 1) === 0 ? 1 : 0),
    );
  };

  // Every difference, its square, the weight and the sum are rounded.
  test("nearestEntries takes an entry that is as near as any", async () => {
    const backend = open();
    const random = generator(26);
    for (const [n, d, entries, m] of vectorSizes) {
      const [x, book] = [normalTensor(random, [n, d], 1), normalTensor(random, [entries, d], 1)];
      const w = hostTensor(
        [m, d],
        (normals(random, m * d) as Float32Array).map((value) => value * value),
      );
      const codes = backend.upload(hostTensor([n], new Int32Array(n)));
      const errors = backend.zeros([n]);
      backend.nearestEntries(codes, errors, backend.upload(x), backend.upload(book), backend.upload(w));
      const [found, least] = [await backend.read(codes), await backend.read(errors)];
      const away = (i: number, k: number) => {
        let sum = 0;
        for (let j = 0; j < d; j++)
          sum += w.data[(i % m) * d + j] * (x.data[i * d + j] - book.data[k * d + j]) ** 2;
        return sum;
      };
      const share = gamma(d + 4);
      for (let i = 0; i < n; i++) {
        const own = away(i, found[i]);
        expect(Math.abs(least[i] - own)).toBeLessThanOrEqual(share * own + TINY);
        for (let k = 0; k < entries; k++)
          expect(own).toBeLessThanOrEqual(away(i, k) * (1 + 3 * share) + TINY);
      }
    }
  });

  test("beamEntries: a beam of everything finds the best sums, a narrow one none worse than those given", async () => {
    const backend = open();
    const random = generator(31);
    for (const [n, d, count, entries, m, beam] of [
      [5, 3, 3, 4, 1, 16],
      [300, 2, 2, 19, 300, 19],
      [7, 8, 1, 33, 7, 1],
      [9, 4, 3, 5, 3, 1],
      [40, 5, 4, 3, 8, 2],
    ]) {
      const [x, books] = [normalTensor(random, [n, d], 1), normalTensor(random, [count * entries, d], 1)];
      const w = hostTensor(
        [m, d],
        (normals(random, m * d) as Float32Array).map((value) => value * value),
      );
      const given = Int32Array.from({ length: n * count }, () => Math.floor(random() * entries));
      given[0] = entries; // no entry: counts as 0
      const codes = backend.upload(hostTensor([n, count], given));
      const errors = backend.zeros([n]);
      backend.beamEntries(codes, errors, backend.upload(x), backend.upload(books), backend.upload(w), beam);
      const [found, least] = [await backend.read(codes), await backend.read(errors)];
      const away = (i: number, chosen: ArrayLike<number>) => {
        let sum = 0;
        for (let j = 0; j < d; j++) {
          let rest = x.data[i * d + j];
          for (let o = 0; o < count; o++) rest -= books.data[(o * entries + (chosen[o] % entries)) * d + j];
          sum += w.data[(i % m) * d + j] * rest ** 2;
        }
        return sum;
      };
      // Values of a few units, each rounded as often as there are books.
      const share = 1e-5 * count;
      for (let i = 0; i < n; i++) {
        const own = away(i, found.subarray(i * count, (i + 1) * count));
        expect(Math.abs(least[i] - own)).toBeLessThanOrEqual(share * (own + 1));
        const before = away(i, given.subarray(i * count, (i + 1) * count));
        expect(own).toBeLessThanOrEqual(before + share * (before + 1));
        if (beam < entries ** (count - 1)) continue;
        for (let all = 0; all < entries ** count; all++) {
          const chosen = Array.from({ length: count }, (_, o) => Math.floor(all / entries ** o) % entries);
          const other = away(i, chosen);
          expect(own).toBeLessThanOrEqual(other + share * (other + 1));
        }
      }
    }
  });

  // Squares of eight differences, their sums and the shift are rounded, the norm's and the products' sums apart.
  test("nearestE8p takes a point that is as near as any", async () => {
    const backend = open();
    for (const scale of [0.3, 1.03, 2.5]) {
      const n = 33;
      const x = normalTensor(generator(28), [n, 8], scale);
      const codes = backend.upload(hostTensor([n], new Int32Array(n)));
      const points = backend.zeros([n, 8]);
      backend.nearestE8p(codes, points, backend.upload(x));
      const [found, near] = [await backend.read(codes), await backend.read(points)];
      const away = (i: number, point: ArrayLike<number>) => {
        let sum = 0;
        for (let j = 0; j < 8; j++) sum += (x.data[8 * i + j] - point[j]) ** 2;
        return sum;
      };
      for (let i = 0; i < n; i++) {
        const own = near.subarray(8 * i, 8 * i + 8);
        expect(own).toEqual(pointOfE8P(found[i]));
        const best = pointOfE8P(nearestE8P(x.data.subarray(8 * i, 8 * i + 8)));
        const norms = away(i, new Float32Array(8)) + 12;
        expect(away(i, own)).toBeLessThanOrEqual(away(i, best) + gamma(32) * norms);
      }
    }
  });

  // What it finds costs what the reference's costs, up to the roundings of sums of that many terms.
  test("viterbi finds streams as near as the reference does, which its values are of", async () => {
    const backend = open();
    const random = generator(27);
    for (const [n, length, bits] of [
      [3, 256, 2],
      [2, 64, 3],
      [2, 33, 4],
    ]) {
      const x = normalTensor(random, [n, length], 1);
      const codes = backend.upload(hostTensor([n, length], new Int32Array(n * length)));
      const values = backend.zeros([n, length]);
      backend.viterbi(codes, values, backend.upload(x), bits);
      const [found, near] = [await backend.read(codes), await backend.read(values)];
      const views = [zeroView([n, length], "i32"), zeroView([n, length]), elementsView(x.shape, x.data)];
      procedures.viterbi.run(views, [n, length, bits]);
      const cost = (of: ArrayLike<number>, i: number) => {
        let sum = 0;
        for (let t = i * length; t < (i + 1) * length; t++) sum += (x.data[t] - of[t]) ** 2;
        return sum;
      };
      for (let i = 0; i < n; i++) {
        const expected = cost(views[1].data, i);
        expect(Math.abs(cost(near, i) - expected)).toBeLessThanOrEqual(gamma(4 * length) * expected);
        for (let t = 0; t < length; t++) {
          let state = 0;
          for (let j = 0; j * bits < 14; j++) state |= found[i * length + ((t + j) % length)] << (j * bits);
          expect(near[i * length + t]).toBe(trellisValue(state & 16383));
        }
      }
    }
  });

  // |A − L·Lᵀ| ≤ γ_{n+1}·|L|·|Lᵀ| (Higham, 2002, theorem 10.3), and L is stored in float32.
  test("cholesky gives back the matrix, in one piece and in slices", async () => {
    const backend = open();
    for (const n of sizes) {
      const a = positive(n);
      for (const slice of [n, 7]) {
        const l = backend.upload(hostTensor([n, n], a));
        const status = backend.upload(hostTensor([2], Float32Array.of(5, 5)));
        for (let from = 0; from < n; from += slice)
          backend.cholesky(l, status, from, Math.min(n, from + slice));
        expect(await backend.read(status)).toEqual(Float32Array.of(0, 0));
        const L = await backend.read(l);
        const { sums, sizes } = products(L, L, n, n, n);
        compare(
          `cholesky ${n} by ${slice}`,
          a,
          Float32Array.from(sums),
          sizes.map((size) => gamma(n + 3) * size),
        );
        for (let r = 0; r < n; r++)
          expect(L.subarray(r * n + r + 1, (r + 1) * n).every((x) => x === 0)).toBe(true);
      }
    }
  });

  test("cholesky reports the first pivot that is not positive", async () => {
    const backend = open();
    const n = 20;
    for (const pivot of [-2, 0, Number.NaN]) {
      for (const row of [0, 3, 19]) {
        const a = eye(n);
        a.data[row * n + row] = pivot;
        const status = backend.zeros([2]);
        const l = backend.upload(a);
        for (let from = 0; from < n; from += 8) backend.cholesky(l, status, from, Math.min(n, from + 8));
        expect(await backend.read(status)).toEqual(Float32Array.of(1 + row, pivot));
      }
    }
  });

  // |B − L·X| ≤ γ_n·|L|·|X| (Higham, 2002, theorem 8.5), and one rounding where X is stored.
  test("triangularSolve solves, both ways and in slices", async () => {
    const backend = open();
    for (const n of sizes) {
      const m = 5;
      const L = normalTensor(generator(n), [n, n], 0.5).data;
      for (let r = 0; r < n; r++) {
        L.fill(0, r * n + r + 1, (r + 1) * n);
        L[r * n + r] = 2 + Math.abs(L[r * n + r]);
      }
      const b = normalTensor(generator(9), [n, m], 1);
      for (const transposed of [0, 1]) {
        const x = backend.upload(b);
        const l = backend.upload(hostTensor([n, n], L));
        backend.triangularSolve(l, x, transposed, 0, 2);
        backend.triangularSolve(l, x, transposed, 2, m);
        const X = Float32Array.from(transpose(await backend.read(x), n, m));
        const factor = transposed ? Float32Array.from(transpose(L, n, n)) : L;
        const { sums, sizes } = products(factor, X, n, m, n);
        const bounds = sizes.map((size) => gamma(n + 2) * size);
        compare(`triangularSolve ${n}`, b.data, Float32Array.from(sums), bounds);
      }
    }
  });

  // A column goes through at most ten sweeps of n−1 rotations, four roundings each: γ_{40n} of the matrix's norm.
  test("svd gives back the matrix from orthogonal vectors", async () => {
    const backend = open();
    for (const [m, n] of [
      [1, 1],
      [3, 3],
      [17, 5],
      [40, 17],
    ]) {
      const a = normalTensor(generator(m), [m, n], 1);
      const [u, s, v] = [backend.upload(a), backend.zeros([n]), backend.zeros([n, n])];
      backend.svd(u, s, v);
      const [U, S, V] = await Promise.all([u, s, v].map((t) => backend.read(t)));
      expect(S.every((value, i) => value >= 0 && (i === 0 || value <= S[i - 1]))).toBe(true);
      const scaled = Float32Array.from(U, (value, at) => value * S[at % n]);
      const norm = Math.hypot(...S);
      const back = Float32Array.from(products(scaled, V, m, n, n).sums);
      compare(
        `svd ${m}×${n}`,
        back,
        a.data as Float32Array,
        new Float64Array(m * n).fill(gamma(40 * n) * norm),
      );
      for (const [vectors, rows] of [
        [U, m],
        [V, n],
      ] as const) {
        const columns = Float32Array.from(transpose(vectors, rows, n));
        const gram = Float32Array.from(products(columns, columns, n, n, rows).sums);
        compare("orthogonal", gram, eye(n).data as Float32Array, new Float64Array(n * n).fill(gamma(40 * n)));
      }
    }
  });

  test("svd of a matrix without full rank has zero singular values", async () => {
    const backend = open();
    const a = hostTensor(
      [4, 3],
      Float32Array.from({ length: 12 }, (_, at) => (at % 3 === 2 ? 0 : at)),
    );
    const [u, s, v] = [backend.upload(a), backend.zeros([3]), backend.zeros([3, 3])];
    backend.svd(u, s, v);
    expect((await backend.read(s))[2]).toBe(0);
  });
}

/** Views, scopes and the way back. */
function memory(open: () => Backend): void {
  test("rows and reshape are views, read is a copy", async () => {
    const backend = open();
    const t = backend.upload(hostTensor([3, 2], Float32Array.of(1, 2, 3, 4, 5, 6)));
    const middle = backend.rows(t, 1, 2);
    expect(await backend.read(middle)).toEqual(Float32Array.of(3, 4));
    const before = await backend.read(t);
    backend.fill(middle, 9);
    expect(await backend.read(backend.reshape(t, [6]))).toEqual(Float32Array.of(1, 2, 9, 9, 5, 6));
    expect(before[2]).toBe(3);
    backend.write(t, new Float32Array(6));
    expect(await backend.read(middle)).toEqual(Float32Array.of(0, 0));
    expect(() => backend.rows(t, 2, 4)).toThrow(ShapeError);
    expect(() => backend.reshape(t, [5])).toThrow(ShapeError);
  });

  test("a scope frees all but what it returns and what was kept", async () => {
    const backend = open();
    let kept: Tensor | undefined;
    let lost: Tensor | undefined;
    const returned = backend.scope(() => {
      lost = backend.zeros([2]);
      kept = backend.keep(backend.zeros([3]));
      return { one: backend.zeros([4]), more: [backend.zeros([5])] };
    });
    expect((await backend.read(returned.one)).length).toBe(4);
    expect((await backend.read(returned.more[0])).length).toBe(5);
    expect((await backend.read(kept!)).length).toBe(3);
    expect(() => backend.add(lost!, lost!)).toThrow(InputError);
  });

  test("another backend's tensor is refused", () => {
    const backend = open();
    const foreign = { shape: [2], format: "f32" };
    expect(() => backend.add(foreign, foreign)).toThrow(InputError);
  });
}
