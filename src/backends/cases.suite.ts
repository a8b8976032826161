import { codeBitsFor, codesShape, packCodes } from "../formats/codebook.ts";
import { partOf, roundToNearest } from "../formats/format.ts";
import { encode, encodeWeight, formatByName, formats, partBytes } from "../formats/index.ts";
import { ADAMW4_BLOCK, adamw4Scales } from "../kernels/adamw4.ts";
import { ADAMW8_BLOCK } from "../kernels/adamw8.ts";
import type { KernelName, ProcedureName } from "../kernels/index.ts";
import { setBf16At } from "../kernels/moments.ts";
import { roundBf16 } from "../tensor/half.ts";
import { generator, normals, type Random } from "../tensor/random.ts";
import { type HostTensor, hostTensor, InputError, matrix, sizeOf } from "../tensor/tensor.ts";
import { onlyPart, packedWeight, type Weight } from "../tensor/weight.ts";

/** Arguments as they are before upload. */
export type HostArgument = HostTensor | Weight | number;

/** One call of an operation. */
export interface Case<Name = KernelName> {
  readonly name: Name;
  readonly label: string;
  readonly args: readonly HostArgument[];
  /** How packed matrices are uploaded. */
  readonly activations?: "int8";
}

/** Lengths that whole vectors and tiles do not divide, and the smallest. */
const ODD_SIZES = [1, 3, 17, 255, 257];

/** Every differentiable operation with float32 arguments: odd sizes, typical shapes, zero rows, no tokens at all. */
export function kernelCases(): Case[] {
  const random = generator(1);
  const floats = (shape: readonly number[], scale = 1) => normalTensor(random, shape, scale);
  const cases: Case[] = [];
  const add = (name: KernelName, label: string, ...args: HostArgument[]) => cases.push({ name, label, args });

  for (const shape of [...ODD_SIZES.map((n) => [n]), [3, 5, 7], [0, 8]]) {
    const label = shape.join("×");
    add("add", label, floats(shape), floats(shape));
    add("swiglu", label, floats(shape, 3), floats(shape));
    add("gelu", label, floats(shape, 3));
  }
  const steep = [0, -0, 1e-30, -1e-30, 20, -20, 87, -87, 88.5, -88.5, 200, -200, 1e5, -1e5];
  add("swiglu", "steep", hostTensor([14], Float32Array.from(steep)), floats([14]));
  add("gelu", "steep", hostTensor([18], Float32Array.from([...steep, 9.9, -9.9, 4, -4])));
  imageCases(add, floats);

  for (const dim of ODD_SIZES) add("rmsNorm", `3×${dim}`, withZeroRow(floats([3, dim])), floats([dim]), 1e-5);
  for (const [tokens, dim] of [
    [17, 64],
    [33, 512],
    [0, 8],
  ]) {
    add("rmsNorm", `${tokens}×${dim}`, floats([tokens, dim]), floats([dim]), 1e-6);
  }

  for (const pairing of [0, 1]) {
    for (const [batch, time, from, heads, headDim] of [
      [1, 1, 0, 1, 2],
      [2, 3, 5, 3, 6],
      [3, 17, 0, 2, 34],
      [1, 5, 40, 8, 64],
      [1, 0, 0, 2, 8],
    ]) {
      const label = `${batch}·${time} tokens from ${from}, ${heads} heads of ${headDim}, pairing ${pairing}`;
      const x = floats([batch * time, heads * headDim]);
      add("rope", label, x, ropeTable(64, headDim), headDim, time, from, pairing);
    }
  }

  for (const [batch, time, keys, from, heads, kvHeads, headDim] of [
    [1, 1, 1, 0, 1, 1, 1],
    [2, 3, 3, 0, 2, 1, 3],
    [1, 17, 17, 0, 4, 2, 8],
    [2, 33, 33, 0, 3, 3, 17],
    [1, 70, 70, 0, 8, 4, 32],
    [1, 257, 257, 0, 1, 1, 4],
    [1, 1, 256, 255, 8, 4, 8],
    [2, 1, 302, 300, 4, 1, 16],
    [1, 5, 40, 31, 4, 2, 10],
    [1, 40, 120, 70, 2, 1, 64],
    [1, 0, 0, 0, 2, 1, 8],
  ]) {
    const label = `${batch}·${time} queries from ${from}, ${keys} keys, ${heads}/${kvHeads} heads of ${headDim}`;
    const kv = [batch * keys, kvHeads * headDim];
    const q = floats([batch * time, heads * headDim], 2);
    add("attention", label, q, floats(kv), floats(kv), heads, kvHeads, batch, from);
  }

  for (const [rows, out, cols] of [...ODD_SIZES.map((n) => [3, n, n]), ...productShapes]) {
    add(
      "linear",
      `${rows}×${out}×${cols}`,
      withZeroRow(floats([rows, cols])),
      withZeroRow(floats([out, cols])),
    );
  }
  add("linear", "a vector", floats([33]), floats([5, 33]));
  add("linear", "three axes", floats([2, 3, 33]), floats([5, 33]));

  for (const dim of ODD_SIZES)
    add("embedding", `7 of 5×${dim}`, floats([5, dim]), ids([4, 0, -1, 4, 5, 2, 4]));
  add("embedding", "no tokens", floats([5, 8]), ids([]));

  for (const [tokens, dim, vocabulary] of [
    [1, 1, 1],
    [3, 3, 3],
    [17, 17, 17],
    [5, 255, 255],
    [4, 257, 257],
    [33, 64, 2048],
    [0, 8, 16],
  ]) {
    const targets = Int32Array.from({ length: tokens }, (_, t) => (t % 4 === 3 ? -1 : (t * 7) % vocabulary));
    const label = `${tokens}×${dim}×${vocabulary}`;
    const w = floats([vocabulary, dim], 2 / Math.sqrt(dim));
    add("crossEntropy", label, withZeroRow(floats([tokens, dim])), w, hostTensor([tokens], targets));
  }
  const unwanted = ids([-1, 7, 9, -1]);
  add("crossEntropy", "targets ignored and outside", floats([4, 8]), floats([9, 8]), unwanted);

  for (const shape of [...ODD_SIZES.map((n) => [n]), [17, 257], [0, 8]]) {
    add("ternary", shape.join("×"), floats(shape, 0.05), 1e-5);
  }
  for (const shape of [...ODD_SIZES.map((n) => [n]), [17, 257], [0, 8]]) {
    add("binary", shape.join("×"), floats(shape, 0.05));
  }
  // From half precision's smallest numbers to beyond its largest.
  for (const scale of [1e-8, 4e-8, 1e-6, 6e-5, 1e-3, 1, 700, 7e4, 1e6]) {
    add("ternary", `scale ${scale}`, floats([37], scale), 0);
    add("binary", `scale ${scale}`, floats([37], scale));
  }
  add("ternary", "zeros", hostTensor([2, 9], new Float32Array(18)), 1e-5);
  add("ternary", "ties", hostTensor([4], Float32Array.of(0.5, -0.5, 1.5, -1.5)), 0);
  add("binary", "zeros", hostTensor([2, 9], new Float32Array(18)));
  add("binary", "all the mean", hostTensor([3], Float32Array.of(0.5, 0.5, 0.5)));
  add("ternary", "ties of the median", hostTensor([4], Float32Array.of(-3, 0.5, 1, 7)), 0, 1);
  add("ternary", "median below ε", hostTensor([3], Float32Array.of(0, 0, 7)), 0.25, 1);
  for (const shape of [...ODD_SIZES.map((n) => [n]), [17, 257], [0, 8]]) {
    add("ternary", `${shape.join("×")}, median`, floats(shape, 0.05), 1e-5, 1);
  }
  for (const scale of [4e-8, 1e-6, 1, 7e4, 1e6, 1e38]) {
    add("ternary", `scale ${scale}, median`, floats([38], scale), 0, 1);
  }
  add("binary", "one at the mean", hostTensor([3], Float32Array.of(1, 2, 3)));
  weightCases(add, floats);

  for (const dim of [...ODD_SIZES, 64]) {
    for (const [bits, rule, group, share, limit] of [
      [8, 0, 0, 1, 0],
      [4, 1, 0, 1, 0],
      [4, 2, 0, 1, 2],
      [4, 3, 0, 1, 2],
      [8, 0, 0, 0.5, 0],
      [3, 0, dim % 16 === 0 ? 16 : 1, 0.3, 1],
      [2, 1, 0, 0.9, 0.5],
    ]) {
      const label = `3×${dim}, ${bits} bits, rule ${rule}, group ${group}, share ${share}, limit ${limit}`;
      add("roundRows", label, withZeroRow(floats([3, dim], 2)), bits, rule, group, share, limit);
    }
    add("layerNorm", `3×${dim}`, withZeroRow(floats([3, dim])), 1e-5);
  }
  // Ties of the rounding, equal magnitudes, the least and the greatest numbers, none.
  const halves = hostTensor(
    [2, 8],
    Float32Array.of(7, 0.5, -1.5, 2.5, -2.5, 2.5, 0, -0, 3, 3, -3, 3, 3, -3, 3, 3),
  );
  for (const rule of [0, 1, 2, 3]) {
    add("roundRows", `ties, rule ${rule}`, halves, 4, rule, 0, 0.4, 2.5);
    for (const scale of [1e-42, 1e-30, 1e-6, 1e6, 1e30]) {
      add("roundRows", `scale ${scale}, rule ${rule}`, floats([2, 33], scale), 8, rule, 0, 0.5, 0);
    }
    add("roundRows", `no rows, rule ${rule}`, floats([0, 8]), 8, rule, 4, 0.5, 0);
  }
  for (const [tokens, dim] of [
    [17, 64],
    [33, 512],
    [0, 8],
  ]) {
    add("layerNorm", `${tokens}×${dim}`, floats([tokens, dim]), 1e-6);
  }
  const far = floats([4, 40]);
  add(
    "layerNorm",
    "far from 0",
    hostTensor(
      [4, 40],
      (far.data as Float32Array).map((v) => 100 + v),
    ),
    1e-5,
  );
  add("layerNorm", "constant rows", hostTensor([2, 19], new Float32Array(38).fill(3)), 1e-5);

  for (const shape of [...ODD_SIZES.map((n) => [n]), [3, 5, 7], [0, 8]]) {
    add("relu2glu", shape.join("×"), floats(shape, 3), floats(shape));
  }
  add("relu2glu", "steep", hostTensor([14], Float32Array.from(steep)), floats([14]));

  for (const [tokens, vocabulary, scale] of [
    [1, 1, 1],
    [3, 3, 1],
    [5, 17, 3],
    [4, 257, 5],
    [9, 2048, 2],
    [6, 40, 40],
    [0, 8, 1],
  ]) {
    const l = floats([tokens, vocabulary], scale);
    const near = (floats([tokens, vocabulary], 0.1).data as Float32Array).map((v, i) => v + l.data[i]);
    const label = `${tokens}×${vocabulary}, ×${scale}`;
    for (const [rule, k] of [
      [0, 0],
      [1, 0],
      [2, Math.min(3, vocabulary)],
      [2, Math.ceil(vocabulary / 2)],
    ]) {
      add("softLoss", `${label}, rule ${rule}, k ${k}`, l, floats([tokens, vocabulary], scale), rule, k);
      add("softLoss", `${label}, near, rule ${rule}, k ${k}`, l, hostTensor(l.shape, near), rule, k);
    }
  }
  const level = hostTensor([2, 6], Float32Array.of(0, -0, 1, 1, -0, 0, 2, 2, 2, 2, 2, 2));
  for (const k of [1, 3, 4, 6]) add("softLoss", `ties, k ${k}`, floats([2, 6]), level, 2, k);

  for (const dim of ODD_SIZES) {
    add("matchStates", `3×${dim}`, withZeroRow(floats([3, dim])), floats([3, dim], 7));
    add("matchStates", `3×${dim}, zero`, floats([3, dim], 0.01), withZeroRow(floats([3, dim])));
  }
  const same = floats([5, 33]);
  add("matchStates", "the same", same, same);
  const twice = hostTensor(
    [5, 33],
    (same.data as Float32Array).map((v) => 3 * v),
  );
  add("matchStates", "the same direction", same, twice);
  add("matchStates", "no tokens", floats([0, 8]), floats([0, 8]));
  return cases;
}

/** Images of one place, of one channel, narrower than the neighbourhood, and none. */
function imageCases(
  add: (name: KernelName, label: string, ...args: HostArgument[]) => void,
  floats: (shape: readonly number[]) => HostTensor,
): void {
  for (const [images, height, width, channels, kernel] of [
    [1, 1, 1, 1, 1],
    [2, 3, 5, 1, 3],
    [3, 4, 2, 7, 5],
    [1, 17, 9, 19, 3],
    [2, 2, 3, 4, 1],
    [0, 2, 2, 3, 3],
  ]) {
    const label = `${images} of ${height}×${width}×${channels}, ${kernel}`;
    const x = floats([images * height * width, channels]);
    add("neighbourhoods", label, x, height, width, channels, kernel);
    const parts = floats([images * height * width, channels * kernel ** 2]);
    add("neighbourSums", label, parts, height, width, channels, kernel);
    for (const back of [0, 1]) {
      const sizes = [kernel * height, kernel * width, channels, kernel, back];
      add("pixelShuffle", `${label}, ${back}`, floats([images, sizes[0] * sizes[1] * channels]), ...sizes);
    }
  }
}

/** The operations of which methods make their weights, odd sizes and codes at the edges. */
function weightCases(
  add: (name: KernelName, label: string, ...args: HostArgument[]) => void,
  floats: (shape: readonly number[], scale?: number) => HostTensor,
): void {
  const halves = (scale: number) => Float32Array.from({ length: 65 }, (_, i) => scale * ((i - 32) / 8));
  const sizes = [...ODD_SIZES.map((n) => [3, n]), [33, 17], [0, 8], [4, 0]];
  for (const shape of sizes) {
    const [rows, cols] = shape;
    const label = shape.join("×");
    for (const rule of [0, 1]) add("sign", `${label}, rule ${rule}`, floats(shape, 0.7), rule);
    add("half", label, floats(shape, 3));
    add("scaleRows", label, floats(shape), floats([rows]));
    add("scaleColumns", label, floats(shape), floats([cols]));
    add("addRow", label, floats(shape), floats([cols]));
    add(
      "pickColumns",
      label,
      floats(shape),
      ids(Array.from({ length: cols }, (_, c) => (c * 7 + 3) % (cols || 1))),
    );
    add("combine", label, floats(shape), floats(shape), 0.3, -1.7);
    for (const bits of [0, 1, 2, 3, 4]) {
      const scales = hostTensor([rows], (floats([rows]).data as Float32Array).map(Math.abs));
      add("learnedStep", `${label}, ${bits} bits`, floats(shape, 0.6), scales, bits);
    }
    for (const rule of [0, 1]) {
      for (const bits of [2, 3, 4, 6, 8])
        add("nested", `${label}, ${bits} bits, rule ${rule}`, withZeroRow(floats(shape, 0.05)), bits, rule);
    }
  }
  for (const [rows, m, n] of [
    [1, 1, 1],
    [33, 17, 5],
    [0, 3, 2],
    [7, 0, 4],
    [65, 8, 64],
  ]) {
    add("join", `${rows}×${m} and ${n}`, floats([rows, m]), floats([rows, n]));
  }
  for (const [rows, vectors, d, entries, groups] of [
    [1, 1, 1, 2, 1],
    [33, 6, 1, 4, 3],
    [65, 9, 4, 16, 3],
    [17, 5, 8, 256, 1],
    [0, 3, 2, 4, 1],
  ]) {
    const codes = Array.from({ length: rows * vectors }, (_, i) => ((i * 7 + 3) % (entries + 2)) - 1);
    const some = hostTensor([rows, vectors], Int32Array.from(codes));
    const [s, o] = [floats([rows, groups]), floats([rows, groups], 0.1)];
    add("lookUp", `${rows}×${vectors}, ${entries} of ${d}`, floats([entries, d]), some, s, o);
  }
  for (const [rows, cols, levels, groups] of [
    [1, 1, 2, 1],
    [33, 6, 4, 3],
    [65, 40, 16, 5],
    [17, 5, 256, 1],
    [0, 3, 4, 1],
  ]) {
    const codes = Array.from({ length: rows * cols }, (_, i) => ((i * 7 + 3) % (levels + 2)) - 1);
    const some = hostTensor([rows, cols], Int32Array.from(codes));
    const grid = hostTensor(
      [levels],
      Float32Array.from({ length: levels }, (_, k) => (k - levels / 2) / levels),
    );
    const [s, o] = [floats([rows, groups]), hostTensor([rows, groups], new Float32Array(rows * groups))];
    for (const keepsZeros of [0, 1])
      add(
        "snap",
        `${rows}×${cols}, ${levels} levels, ${keepsZeros}`,
        floats([rows, cols]),
        some,
        grid,
        s,
        o,
        keepsZeros,
      );
  }
  add("pickColumns", "twice, never and outside", floats([3, 5]), ids([4, 0, 4, 4, -1, 5, 2]));
  for (const block of [1, 2, 4, 8, 16, 32, 64, 512]) {
    for (const rows of [0, 1, 3]) add("hadamard", `${rows}×${3 * block}`, floats([rows, 3 * block]), block);
  }
  const steep = Float32Array.from([0, -0, 1e-30, -1e-30, 20, -20, 87, -87, 1e5, -1e5]);
  add("sign", "steep", hostTensor([10], steep), 1);
  for (const scale of [1e-9, 1e-5, 1, 900, 7e4]) add("half", `scale ${scale}`, floats([37], scale));
  add("half", "ties", hostTensor([65], halves(2 ** -24 * 4)));
  add("combine", "a scalar", hostTensor([1], Float32Array.of(2)), hostTensor([1], Float32Array.of(3)), 0, 1);
  for (const bits of [0, 1, 2, 3, 4]) {
    const edges = hostTensor([1, 65], halves(bits < 3 ? 0.25 : 4));
    for (const scale of [-1, 0, 1e-5, 1, 1.37]) {
      add(
        "learnedStep",
        `edges, ${bits} bits, scale ${scale}`,
        edges,
        hostTensor([1], Float32Array.of(scale)),
        bits,
      );
    }
  }
  for (const rule of [0, 1]) {
    for (let bits = 2; bits <= 8; bits++) {
      // Every code once.
      const all = Float32Array.from({ length: 256 }, (_, i) => i - (rule === 0 ? 0 : 128));
      if (rule === 1) all[0] = 127;
      add("nested", `all codes, ${bits} bits, rule ${rule}`, hostTensor([1, 256], all), bits, rule);
      add(
        "nested",
        `one value, ${bits} bits, rule ${rule}`,
        hostTensor([2, 2], Float32Array.of(3, 3, -1, -1)),
        bits,
        rule,
      );
      add("nested", `tiny, ${bits} bits, rule ${rule}`, floats([2, 19], 1e-7), bits, rule);
      add("nested", `great, ${bits} bits, rule ${rule}`, floats([2, 19], 3e5), bits, rule);
    }
  }
}

/**
 * The products that may be made in BF16: rows, columns and depths that tiles, pairs and blocks do not divide; every kind
 * of tile; denormals, which count as zeros; NaN and infinity.
 */
export function bf16Cases(): Case[] {
  const random = generator(17);
  const floats = (shape: readonly number[], scale = 1) => normalTensor(random, shape, scale);
  const cases: Case[] = [...kernelCases(), ...nonFiniteCases()]
    .filter(
      ({ name, args }) => (name === "linear" || name === "crossEntropy") && "data" in (args[1] as object),
    )
    .map(({ name, label, args }) => ({ name, label: `BF16, ${label}`, args: [...args, 1] }));
  for (const [rows, out, cols] of [
    [9, 1, 1],
    [49, 3, 2],
    [50, 64, 31],
    [97, 48, 33],
    [33, 17, 257],
    [61, 100, 519],
    [13, 1600, 5],
    [2100, 3, 9],
    [1100, 20, 70],
  ]) {
    const label = `BF16, ${rows}×${out}×${cols}`;
    cases.push({ name: "linear", label, args: [floats([rows, cols]), floats([out, cols]), 1] });
  }
  for (const scale of [1e-39, 1e-20, 1e18]) {
    const label = `BF16, times ${scale}`;
    cases.push({ name: "linear", label, args: [floats([12, 33], scale), floats([20, 33], scale), 1] });
  }
  for (const value of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
    const x = floats([14, 35]);
    x.data[3 * 35 + 34] = value;
    cases.push({ name: "linear", label: `BF16, ${value}`, args: [x, floats([20, 35]), 1] });
    cases.push({ name: "linear", label: `BF16, ${value} in w`, args: [floats([20, 35]), x, 1] });
  }
  return cases;
}

/** rows, out, in of larger products: whole tiles, and more than one of each. */
const productShapes = [
  [1, 64, 64],
  [1, 300, 257],
  [17, 96, 128],
  [65, 130, 300],
  [0, 16, 32],
];

/** Made at the first call with a name and kept: several backends in one process run the same cases. */
function once<T>(make: (name: string) => T): (name: string) => T {
  const made = new Map<string, T>();
  return (name) => {
    const known = made.get(name) ?? make(name);
    made.set(name, known);
    return known;
  };
}

/** The operations that read a matrix in a packed format, for every size that the format allows. */
export const packedCases = once((format: string): Case[] => {
  const random = generator(2);
  const cases: Case[] = [];
  const shapes = [
    [3, 1, 1],
    [1, 3, 3],
    [3, 17, 17],
    [1, 255, 255],
    [2, 257, 257],
    [1, 33, 256],
    [5, 17, 512],
    [33, 70, 256],
    [0, 3, 256],
  ];
  for (const [tokens, rows, cols] of shapes) {
    if (!fits(format, rows, cols)) continue;
    const w = packedTensor(random, format, rows, cols);
    const x = normalTensor(random, [tokens, cols], 1);
    const some = Int32Array.from({ length: tokens }, (_, t) => (t * 7) % rows);
    const label = `${format}, ${tokens}×${rows}×${cols}`;
    cases.push({ name: "linear", label, args: [x, w] });
    cases.push({ name: "embedding", label, args: [w, hostTensor([tokens], some)] });
    cases.push({ name: "crossEntropy", label, args: [x, w, hostTensor([tokens], some)] });
  }
  return cases;
});

/** Codes with books of all sizes and vectors, with scales of groups and without. */
export const codebookCases = (): Case[] => {
  const random = generator(24);
  const cases: Case[] = [];
  for (const [tokens, rows, cols, length, entries, groups] of [
    [1, 3, 6, 1, 2, 0],
    [3, 17, 17, 1, 5, 1],
    [1, 33, 256, 1, 16, 4],
    [9, 20, 66, 2, 16, 3],
    [3, 8, 1030, 2, 64, 0],
    [33, 70, 256, 4, 256, 8],
    [2, 9, 48, 8, 300, 1],
    [12, 31, 96, 3, 1000, 4],
    [3, 40, 512, 8, 4096, 0],
    [1, 5, 64, 16, 65536, 2],
    [0, 3, 8, 4, 16, 1],
    [3, 12, 70, -4, 256, 2],
    [1, 6, 17, -3, 100, 0],
    [5, 32, 1030, -16, 2000, 1],
    // Whole bytes of codes, which sums can be looked up for.
    [1, 67, 96, 1, 16, 0],
    [1, 131, 96, 1, 16, 3],
    [2, 67, 128, 2, 16, 2],
    [1, 65, 96, 4, 16, 3],
    [1, 33, 96, 3, 13, 4],
    [1, 67, 70, 1, 256, 5],
    [3, 69, 1030, 2, 256, 0],
    [1, 131, 1032, 4, 200, 2],
    [1, 259, 272, 8, 256, 0],
    [8, 259, 272, 8, 256, 2],
    [5, 67, 320, 2, 4, 5],
    [7, 33, 320, 1, 2, 5],
    [4, 129, 264, 2, 16, 1],
  ]) {
    const down = length < 0;
    const w = codedTensor(random, [rows, cols], { length: Math.abs(length), entries, groups, down });
    const x = normalTensor(random, [tokens, cols], 1);
    const some = Int32Array.from({ length: tokens }, (_, t) => (t * 7) % rows);
    const label = `${tokens}×${rows}×${cols}, ${entries} entries of ${length}, ${groups} groups`;
    cases.push({ name: "linear", label, args: [x, w] });
    cases.push({ name: "embedding", label, args: [w, hostTensor([tokens], some)] });
  }
  return cases;
};

/** A matrix of random codes, with scales (rows, groups) unless groups is 0. */
export function codedTensor(
  random: Random,
  shape: readonly number[],
  options: { length: number; entries: number; groups: number; down?: boolean },
): Weight {
  const [rows, cols] = shape;
  const { length, entries, groups, down } = options;
  const floats = (r: number, c: number) =>
    encodeWeight(formatByName("f32"), [r, c], normals(random, r * c) as Float32Array);
  const codeBits = codeBitsFor(entries);
  const numbers = Uint16Array.from({ length: (rows * cols) / length }, () => Math.floor(random() * entries));
  const codes = packCodes(numbers, ...codesShape(rows, cols, length, down), codeBits);
  const of: Weight = {
    shape,
    expression: {
      kind: "codebook",
      codes,
      codeBits,
      book: floats(entries, length),
      ...(down ? { down } : {}),
    },
  };
  return groups === 0 ? of : { shape, expression: { kind: "scaleGroups", scales: floats(rows, groups), of } };
}

/** Formats in which keys and values can be kept, one of each kind. */
export const cacheFormats: readonly string[] = ["f16", "int8-g32", "int4-g32", "int8", "int4"];

/** Attention over keys and values in the format of a cache, its rows beyond what is seen NaN. */
export function cacheCases(format: string): Case[] {
  const random = generator(9);
  const cases: Case[] = [];
  for (const [batch, time, keys, from, heads, kvHeads, headDim, scale] of [
    [1, 1, 300, 290, 4, 2, 32, 1],
    [1, 8, 40, 17, 8, 4, 8, 1],
    [2, 3, 12, 5, 2, 1, 64, 1],
    [1, 40, 120, 70, 4, 2, 32, 1],
    [1, 70, 75, 0, 2, 2, 48, 1],
    [1, 2, 40, 31, 4, 1, 32, 3000],
    [1, 33, 40, 0, 2, 1, 32, 3000],
  ]) {
    const label = `${format}, ${batch}·${time} queries from ${from}, ${keys} keys, ${heads}/${kvHeads} heads of ${headDim}, ×${scale}`;
    const [rows, cols] = [batch * keys, kvHeads * headDim];
    const q = normalTensor(random, [batch * time, heads * headDim], 2);
    const [k, v] = [0, 1].map(() => {
      const cache = packedTensor(random, format, rows, cols, scale);
      for (let b = 0; b < batch; b++) spoil(cache, b * keys + from + time, (b + 1) * keys);
      return cache;
    });
    cases.push({ name: "attention", label, args: [q, k, v, heads, kvHeads, batch, from] });
  }
  return cases;
}

/**
 * Products with int8 activations, for every size that the format allows: x of one row to many, rows and columns that
 * panels and chunks do not divide, ordinary numbers and extreme ones. The gradient, and rows of the matrix, too.
 */
export const int8Cases = once((format: string): Case[] => {
  const random = generator(12);
  const cases: Case[] = [];
  const add = (label: string, name: KernelName, ...args: HostArgument[]) =>
    cases.push({ name, label: `${format}, int8, ${label}`, args, activations: "int8" });
  for (const [tokens, rows, cols] of [
    [1, 1, 1],
    [3, 17, 17],
    [2, 33, 31],
    [9, 15, 255],
    [5, 16, 257],
    [1, 40, 320],
    [13, 33, 288],
    [33, 70, 256],
    [0, 3, 256],
    [4, 49, 512],
    [8, 31, 768],
  ]) {
    if (!fits(format, rows, cols)) continue;
    const w = packedTensor(random, format, rows, cols);
    const label = `${tokens}×${rows}×${cols}`;
    add(label, "linear", withZeroRow(normalTensor(random, [tokens, cols], 3)), w);
    add(label, "embedding", w, ids(Array.from({ length: tokens }, (_, t) => (t * 7) % rows)));
  }
  const [rows, cols] = [19, 512];
  for (const [label, w] of extremeMatrices(random, format, rows, cols)) {
    for (const [other, x] of extremeActivations(random, cols)) add(`${label} by ${other}`, "linear", x, w);
  }
  const w = packedTensor(random, format, 7, cols);
  for (const value of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
    const x = normalTensor(random, [10, cols], 1);
    x.data[3 * cols + 300] = value;
    add(`${value}`, "linear", x, w);
  }
  return cases;
});

/** Makes rows from … to−1 of a cache NaN: its scales, or its 16-bit floats. */
function spoil(cache: Weight, from: number, to: number): void {
  const { parts } = onlyPart(cache);
  const { bytes } = parts.scales ?? parts.data;
  const words = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 2);
  const width = words.length / cache.shape[0];
  words.fill(0x7e00, from * width, to * width);
}

/** Rows for a cache, 64 wide, that try its roundings: ties, zeros, the ends of the codes and of half precision, NaN. */
export function cacheRows(): HostTensor {
  const random = generator(10);
  const rows: number[][] = [0.01, 1, 300, 1e-6, 1e-8, 2e6].map((scale) =>
    Array.from(normals(random, 64, scale)),
  );
  rows.push(Array.from({ length: 64 }, (_, i) => (i === 5 ? 127 : (i - 32) / 2))); // halves at a scale of 1
  rows.push(Array.from({ length: 64 }, (_, i) => (i === 5 ? -7 : (i - 32) / 8)));
  rows.push(new Array(64).fill(0));
  rows.push(Array.from({ length: 64 }, (_, i) => (i === 40 ? -3 : -0)));
  rows.push(Array.from({ length: 64 }, (_, i) => (i < 32 ? 65519 + i / 16 : 3e38)));
  rows.push(Array.from({ length: 64 }, (_, i) => (2 * i + 1) * 2 ** -25)); // ties of half precision, below its normals
  rows.push(Array.from({ length: 64 }, (_, i) => 1 + (2 * i + 1) * 2 ** -11)); // and above
  for (const wrong of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
    rows.push(Array.from({ length: 64 }, (_, i) => (i === 7 ? wrong : i - 20)));
  }
  return hostTensor([rows.length, 64], Float32Array.from(rows.flat()));
}

/** All codes the least, the greatest, in turns; with the parameters of an ordinary matrix. */
function extremeMatrices(random: Random, name: string, rows: number, cols: number): [string, Weight][] {
  const format = formatByName(name);
  if (format.kind !== "group") return [];
  const { codes, parameters } = roundToNearest(
    format,
    matrix(rows, cols, normals(random, rows * cols, 0.05)),
  );
  const top = format.codeCount - 1;
  const of = (label: string, code: (i: number) => number): [string, Weight] => {
    const parts = format.pack({ codes: codes.map((_, i) => code(i)), parameters }, rows, cols);
    return [label, packedWeight([rows, cols], name, parts)];
  };
  return [
    of("least codes", () => 0),
    of("greatest codes", () => top),
    of("both codes", (i) => (i % 3 ? top : 0)),
  ];
}

/** Two rows each: as large as can be, with either sign; a lone number; very small ones; so small that they count as zeros. */
function extremeActivations(random: Random, cols: number): [string, HostTensor][] {
  const of = (label: string, value: (i: number) => number): [string, HostTensor] => [
    label,
    hostTensor(
      [2, cols],
      Float32Array.from({ length: 2 * cols }, (_, i) => value(i)),
    ),
  ];
  return [
    of("±127", (i) => (i < cols ? 127 : -127)),
    of("both signs", () => (random() < 0.5 ? 5 : -5)),
    of("one", (i) => (i % cols === 37 ? -0.3 : 0)),
    of("halves", (i) => (i % cols === 0 ? 127 : (i % 253) / 2 - 63)),
    of("little", () => 1e-29 * (random() - 0.5)),
    of("next to nothing", () => 1e-31 * (random() - 0.5)),
  ];
}

/** Procedures whose result has a bound element by element. */
/** Vectors, their length, entries of a book, and rows of weights. */
export const vectorSizes = [
  [1, 1, 1, 1],
  [7, 2, 16, 1],
  [33, 3, 5, 11],
  [130, 8, 257, 130],
  [20000, 2, 40, 100],
  [0, 4, 3, 2],
] as const;

export function procedureCases(): Case<ProcedureName>[] {
  const random = generator(3);
  const floats = (shape: readonly number[], scale = 1) => normalTensor(random, shape, scale);
  const cases: Case<ProcedureName>[] = [];
  const add = (name: ProcedureName, label: string, ...args: HostArgument[]) =>
    cases.push({ name, label, args });

  for (const n of [...ODD_SIZES, 5000, 0]) {
    const label = `${n}`;
    add("fill", label, floats([n]), 0.1);
    add("accumulate", label, floats([n]), floats([n]), 0.3);
    add("squaredNorm", `${n}, first`, floats([1]), floats([n]), 0);
    add("squaredNorm", `${n}, added`, hostTensor([1], Float32Array.of(2)), floats([n]), 1);
    const second = hostTensor(
      [n],
      (floats([n], 0.1).data as Float32Array).map((v) => v * v),
    );
    const norm = hostTensor([1], Float32Array.of(9));
    const moments = () => [floats([n]), floats([n]), floats([n], 0.1), second, norm];
    add("adamw", `${n}, limited`, ...moments(), 1e-3, 0.9, 0.95, 1e-8, 0.1, 7, 1);
    add("adamw", `${n}, free`, ...moments(), 1e-3, 0.9, 0.95, 1e-8, 0, 1, 0);
  }
  cases.push(
    ...stepCases(random, [
      [1],
      [3],
      [128],
      [255],
      [257],
      [700],
      [5, 3],
      [3, 5],
      [17, 129],
      [40, 64],
      [2, 300],
      [0],
    ]),
  );
  for (const [rows, cols] of [
    [1, 1],
    [3, 3],
    [5, 17],
    [17, 5],
    [40, 33],
  ]) {
    add("orthogonalize", `${rows}×${cols}`, floats([rows, cols]), 5);
  }
  add("orthogonalize", "of zeros", hostTensor([3, 4], new Float32Array(12)), 5);
  add("orthogonalize", "no steps", floats([3, 4]), 0);
  const zeros = () => hostTensor([4], new Float32Array(4));
  const none = hostTensor([1], Float32Array.of(0));
  add("adamw", "all zero", floats([4]), zeros(), zeros(), zeros(), none, 1e-3, 0.9, 0.95, 1e-8, 0.1, 1, 1);

  add("cacheAppend", "middle", floats([9, 5]), floats([3, 5]), 4);
  add("cacheAppend", "nothing", floats([9, 5]), floats([0, 5]), 9);
  for (const dim of ODD_SIZES) add("addGram", `33×${dim}`, floats([dim, dim]), floats([33, dim]), 0.5);
  add("addGram", "no rows", floats([4, 4]), floats([0, 4]), 2);
  for (const [n, d, entries, m] of vectorSizes) {
    const codes = Int32Array.from({ length: n }, (_, i) => (i % 11 === 10 ? entries : (i * 5) % entries));
    const sums = () => floats([entries, d]);
    const w = (floats([m, d]).data as Float32Array).map(Math.abs);
    const weights = hostTensor([m, d], w);
    add(
      "addClusters",
      `${n}×${d}, ${entries} entries`,
      sums(),
      sums(),
      floats([n, d]),
      ids([...codes]),
      weights,
    );
  }
  for (const [cols, rows, fromJ, toJ, fromK, toK] of [
    [5, 3, 0, 2, 2, 5],
    [17, 257, 0, 16, 16, 17],
    [200, 33, 0, 128, 128, 200],
    [6, 255, 3, 4, 4, 6],
    [6, 4, 2, 2, 2, 6],
  ]) {
    const label = `${cols}×${rows}, ${fromJ}…${toJ} onto ${fromK}…${toK}`;
    const matrices = [floats([cols, rows]), floats([cols, rows]), floats([cols, cols])];
    add("gptqUpdate", label, ...matrices, fromJ, toJ, fromK, toK);
  }
  return cases;
}

/**
 * The steps of optimizers on parameters of some shapes: codes and scales of states that have already moved, a limited
 * gradient and a free one, states of zeros, and a norm that is not finite.
 */
function stepCases(random: Random, shapes: readonly (readonly number[])[]): Case<ProcedureName>[] {
  const cases: Case<ProcedureName>[] = [];
  for (const shape of shapes) {
    const n = sizeOf(shape);
    const floats = (scale = 1) => normalTensor(random, shape, scale);
    const words = (bytes: number) =>
      hostTensor(
        [Math.ceil(bytes / 4)],
        Int32Array.from({ length: Math.ceil(bytes / 4) }, () => Math.floor(random() * 2 ** 32) | 0),
      );
    const scales = (count: number, size: number) =>
      hostTensor(
        [count],
        Float32Array.from({ length: count }, () => size * random()),
      );
    const bf16s = (scale: number) => {
      const packed = new Int32Array(Math.ceil(n / 2));
      for (let i = 0; i < n; i++) setBf16At(packed, i, roundBf16(normals(random, 1, scale)[0]));
      return hostTensor([packed.length], packed);
    };
    const squares = (t: HostTensor) =>
      hostTensor(
        t.shape,
        Int32Array.from(t.data, (word) => word & 0x7fff7fff),
      );
    for (const [label, squaredNorm, maxNorm, step, decay] of [
      ["limited", 9, 1, 7, 0.1],
      ["free", 9, 0, 2, 0],
      ["not finite", Number.POSITIVE_INFINITY, 1, 3, 0.1],
      ["NaN", Number.NaN, 0, 3, 0.1],
    ] as const) {
      const where = `${shape.join("×")}, ${label}`;
      const norm = hostTensor([1], Float32Array.of(squaredNorm));
      const numbers = [1e-3, 0.9, 0.95, 1e-8, decay, step, maxNorm];
      const add = (name: ProcedureName, label: string, ...args: HostArgument[]) =>
        cases.push({ name, label, args });
      for (const size of label === "free" ? [0, 1e-4, 1e-25] : [0.01]) {
        const blocks = Math.ceil(n / ADAMW8_BLOCK);
        const eight = [words(n), scales(blocks, size), words(n), scales(blocks, size * size)];
        add("adamw8", `${where}, ${size}`, floats(), floats(size), ...eight, norm, ...numbers);
        const first = scales(Math.ceil(n / ADAMW4_BLOCK), size);
        const second = scales(adamw4Scales(shape), size * size);
        const four = [words(n / 2), first, words(n / 2), second];
        add("adamw4", `${where}, ${size}`, floats(), floats(size), ...four, norm, ...numbers);
      }
      const lost = hostTensor([3], Float32Array.of(1, 2, 3));
      const none = hostTensor([0], new Int32Array(0));
      for (const [variant, secondRest] of [
        ["light", none],
        ["plus", bf16s(1e-6)],
      ] as const) {
        const states = [bf16s(1e-4), bf16s(0.1), squares(bf16s(0.01)), secondRest, lost, norm];
        const w = hostTensor(shape, floats().data.map(roundBf16) as Float32Array);
        add("collage", `${where}, ${variant}`, w, floats(0.1), ...states, ...numbers);
      }
      add("momentum", where, floats(), floats(), floats(), norm, 0.95, step % 2, maxNorm);
      add("descend", where, floats(), floats(), norm, 0.01, 0.2, decay);
    }
    cases.push({ name: "splitBf16", label: shape.join("×"), args: [floats(), words(2 * n)] });
  }
  return cases;
}

/** Steps of optimizers on parameters that are cut into many tasks. */
export function largeSteps(): Case<ProcedureName>[] {
  const steps = stepCases(generator(16), [[300, 257], [100_003]]).filter(({ label }) =>
    label.includes("limited"),
  );
  return [
    ...steps,
    { name: "orthogonalize", label: "", args: [normalTensor(generator(17), [130, 300], 1), 5] },
  ];
}

/** Every float argument of a small case of every operation with one NaN or infinity in it. */
export function nonFiniteCases(): Case[] {
  const random = generator(4);
  const floats = (shape: readonly number[]) => normalTensor(random, shape, 1);
  const small: Case[] = [
    { name: "add", label: "", args: [floats([19]), floats([19])] },
    { name: "swiglu", label: "", args: [floats([19]), floats([19])] },
    { name: "rmsNorm", label: "", args: [floats([3, 19]), floats([19]), 1e-5] },
    { name: "rope", label: "", args: [floats([3, 12]), ropeTable(8, 6), 6, 3, 0, 0] },
    { name: "attention", label: "", args: [floats([21, 6]), floats([21, 6]), floats([21, 6]), 2, 2, 1, 0] },
    {
      name: "attention",
      label: "cached",
      args: [floats([1, 6]), floats([21, 6]), floats([21, 6]), 2, 2, 1, 20],
    },
    { name: "linear", label: "", args: [floats([5, 19]), floats([7, 19])] },
    { name: "linear", label: "packed", args: [floats([5, 64]), packedTensor(random, "int4-g32", 7, 64)] },
    { name: "embedding", label: "", args: [floats([3, 19]), ids([0, 1, 2, 1])] },
    { name: "crossEntropy", label: "", args: [floats([5, 19]), floats([7, 19]), ids([0, 3, 6, -1, 2])] },
    { name: "ternary", label: "", args: [floats([3, 19]), 1e-5] },
    { name: "ternary", label: "median", args: [floats([3, 19]), 1e-5, 1] },
    { name: "binary", label: "", args: [floats([3, 19])] },
    { name: "sign", label: "", args: [floats([3, 19]), 0] },
    { name: "sign", label: "OneBit", args: [floats([3, 19]), 1] },
    { name: "half", label: "", args: [floats([19])] },
    { name: "scaleRows", label: "", args: [floats([3, 19]), floats([3])] },
    { name: "scaleColumns", label: "", args: [floats([3, 19]), floats([19])] },
    { name: "addRow", label: "", args: [floats([3, 19]), floats([19])] },
    { name: "pickColumns", label: "", args: [floats([3, 19]), ids([4, 0, 18])] },
    { name: "join", label: "", args: [floats([3, 19]), floats([3, 5])] },
    {
      name: "lookUp",
      label: "",
      args: [
        floats([4, 2]),
        hostTensor(
          [3, 6],
          Int32Array.from({ length: 18 }, (_, n) => n % 4),
        ),
        floats([3, 3]),
        floats([3, 3]),
      ],
    },
    {
      name: "snap",
      label: "",
      args: [
        floats([3, 6]),
        hostTensor(
          [3, 6],
          Int32Array.from({ length: 18 }, (_, n) => n % 4),
        ),
        floats([4]),
        floats([3, 2]),
        floats([3, 2]),
        0,
      ],
    },
    { name: "hadamard", label: "", args: [floats([3, 32]), 32] },
    { name: "hadamard", label: "small", args: [floats([3, 16]), 4] },
    { name: "combine", label: "", args: [floats([3, 19]), floats([3, 19]), 0.3, 0.7] },
    ...[0, 1, 2, 3, 4].map((bits): Case => {
      return { name: "learnedStep", label: `${bits} bits`, args: [floats([3, 19]), floats([3]), bits] };
    }),
    ...[0, 1].map(
      (rule): Case => ({ name: "nested", label: `rule ${rule}`, args: [floats([3, 19]), 4, rule] }),
    ),
    { name: "layerNorm", label: "", args: [floats([3, 19]), 1e-5] },
    { name: "relu2glu", label: "", args: [floats([19]), floats([19])] },
    ...[0, 1, 2, 3].map((rule): Case => {
      return { name: "roundRows", label: `rule ${rule}`, args: [floats([3, 20]), 4, rule, 10, 0.5, 0] };
    }),
    { name: "roundRows", label: "limit", args: [floats([3, 19]), 8, 2, 0, 1, 2] },
    ...[0, 1, 2].map((rule): Case => {
      return { name: "softLoss", label: `rule ${rule}`, args: [floats([3, 19]), floats([3, 19]), rule, 4] };
    }),
    { name: "matchStates", label: "", args: [floats([3, 19]), floats([3, 19])] },
    { name: "gelu", label: "", args: [floats([19])] },
    { name: "neighbourhoods", label: "", args: [floats([12, 2]), 3, 4, 2, 3] },
    { name: "neighbourSums", label: "", args: [floats([12, 18]), 3, 4, 2, 3] },
    { name: "pixelShuffle", label: "", args: [floats([4, 6]), 4, 6, 1, 2, 0] },
  ];
  return small.flatMap(({ name, label, args }) =>
    args.flatMap((argument, i) => {
      if (typeof argument === "number" || !("data" in argument) || argument.format !== "f32") return [];
      return [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY].map((value) => {
        const data = argument.data.slice();
        data[Math.floor(data.length / 2)] = value;
        const planted = args.map((a, j) => (j === i ? hostTensor(argument.shape, data) : a));
        return { name, label: `${label} ${value} in argument ${i}`.trim(), args: planted };
      });
    }),
  );
}

/** Arguments that every operation must refuse with a ShapeError. */
export function wrongShapes(): Case<KernelName | ProcedureName>[] {
  const t = (...shape: number[]) => hostTensor(shape, new Float32Array(sizeOf(shape)));
  const i = (size: number) => hostTensor([size], new Int32Array(size));
  const none = ids([]);
  const wrong: [KernelName | ProcedureName, ...HostArgument[]][] = [
    ["add", t(3), t(4)],
    ["swiglu", t(3), t(4)],
    ["rmsNorm", t(2, 3), t(4), 1e-5],
    ["rope", t(2, 6), t(8, 4), 4, 2, 0, 0],
    ["rope", t(2, 8), t(8, 4), 4, 2, 7, 0],
    ["rope", t(4, 6), t(8, 6), 6, 0, 0, 0],
    ["rope", t(4, 6), t(8, 6), 6, 1.5, 0, 0],
    ["rope", t(4, 6), t(8, 6), 0, 4, 0, 0],
    ["rope", t(4, 6), t(8, 6), 6, 4, -1, 0],
    ["rope", t(4, 6), t(8, 6), 6, 4, Number.NaN, 0],
    ["attention", t(4, 6), t(4, 6), t(4, 5), 2, 2, 1, 0],
    ["attention", t(4, 6), t(4, 6), t(4, 6), 2, 2, 1, 1],
    ["attention", t(4, 6), t(4, 6), t(4, 6), 2, 2, 3, 0],
    ["attention", t(4, 6), t(4, 9), t(4, 9), 2, 3, 1, 0],
    ["attention", t(4, 6), t(4, 6), t(4, 6), 2, 2, -1, 0],
    ["attention", t(4, 6), t(4, 6), t(4, 6), 2, 2, 0.5, 0],
    ["attention", t(4, 6), t(4, 6), t(4, 6), 2, 2, 1, Number.NaN],
    ["attention", t(4, 6), t(4, 6), t(4, 6), 0, 0, 1, 0],
    ["linear", t(2, 3), t(5, 4)],
    ["linear", t(2, 3), t(3)],
    ["linear", t(2, 3), t(4, 3), 2],
    ["crossEntropy", t(2, 3), t(4, 3), ids([0, 1]), 0.5],
    ["embedding", t(4), none],
    ["crossEntropy", t(2, 3), t(5, 4), ids([0, 1])],
    ["crossEntropy", t(2, 3), t(5, 3), ids([0])],
    ["ternary", t(3), 1e-5, 2],
    ["sign", t(3), 2],
    ["scaleRows", t(2, 3), t(3)],
    ["scaleColumns", t(2, 3), t(2)],
    ["addRow", t(2, 3), t(2)],
    ["pickColumns", t(), i(1)],
    ["join", t(2, 3), t(3, 2)],
    ["lookUp", t(4, 2), hostTensor([2, 3], new Int32Array(6)), t(2, 4), t(2, 4)],
    ["lookUp", t(4, 2), hostTensor([2, 3], new Int32Array(6)), t(2, 3), t(2, 1)],
    ["snap", t(2, 4), hostTensor([2, 3], new Int32Array(6)), t(4), t(2, 2), t(2, 2), 0],
    ["snap", t(2, 4), hostTensor([2, 4], new Int32Array(8)), t(4), t(2, 3), t(2, 3), 0],
    ["snap", t(2, 4), hostTensor([2, 4], new Int32Array(8)), t(257), t(2, 2), t(2, 2), 0],
    ["hadamard", t(2, 12), 8],
    ["hadamard", t(2, 12), 3],
    ["hadamard", t(2, 12), 0],
    ["combine", t(3), t(4), 1, 1],
    ["learnedStep", t(2, 3), t(3), 2],
    ["learnedStep", t(2, 3), t(2), 5],
    ["learnedStep", t(6), t(1), 2],
    ["nested", t(2, 3), 1, 0],
    ["nested", t(2, 3), 4, 2],
    ["nested", t(6), 4, 0],
    ["roundRows", t(2, 6), 1, 0, 0, 1, 0],
    ["roundRows", t(2, 6), 17, 0, 0, 1, 0],
    ["roundRows", t(2, 6), 8, 4, 0, 1, 0],
    ["roundRows", t(2, 6), 8, 0, 4, 1, 0],
    ["roundRows", t(2, 6), 8, 0, 0, 0, 0],
    ["roundRows", t(2, 6), 8, 0, 0, 1, -1],
    ["relu2glu", t(3), t(4)],
    ["softLoss", t(2, 3), t(2, 4), 0, 0],
    ["softLoss", t(2, 3), t(2, 3), 3, 0],
    ["softLoss", t(2, 3), t(2, 3), 2, 4],
    ["softLoss", t(2, 3), t(2, 3), 2, 0],
    ["matchStates", t(2, 3), t(3, 2)],
    ["neighbourhoods", t(12, 2), 3, 4, 2, 2],
    ["neighbourhoods", t(12, 2), 3, 5, 2, 3],
    ["neighbourhoods", t(12, 2), 3, 4, 0, 3],
    ["neighbourhoods", t(12, 2), 3, 4, 2, 1.5],
    ["neighbourSums", t(12, 18), 3, 4, 2, 2],
    ["neighbourSums", t(12, 18), 3, 5, 2, 3],
    ["neighbourSums", t(12, 18), 3, 4, 0, 3],
    ["pixelShuffle", t(4, 6), 4, 6, 1, 4, 0],
    ["pixelShuffle", t(4, 6), 4, 6, 2, 2, 0],
    ["pixelShuffle", t(4, 6), 4, 6, 1, 0, 0],
    ["pixelShuffle", t(4, 6), 4, 6, 1, 2, 2],
    ["accumulate", t(3), t(4), 1],
    ["cacheAppend", t(4, 3), t(2, 3), 3],
    ["cacheAppend", t(4, 3), t(1, 2), 0],
    ["cacheAppend", t(4, 3), t(1, 3), 0.5],
    ["cacheAppend", t(4, 3), t(1, 3), Number.NaN],
    ["attention", t(4, 6), t(4, 6), t(5, 6), 2, 2, 1, 0],
    ["squaredNorm", t(2), t(4), 0],
    ["adamw", t(3), t(3), t(3), t(2), t(1), 1, 0.9, 0.9, 1, 0, 1, 0],
    ["adamw8", t(5), t(5), i(2), t(1), i(1), t(1), t(1), 1, 0.9, 0.9, 1, 0, 1, 0],
    ["adamw8", t(257), t(257), i(65), t(1), i(65), t(2), t(1), 1, 0.9, 0.9, 1, 0, 1, 0],
    ["adamw4", t(2, 4), t(2, 4), i(1), t(1), i(1), t(1), t(1), 1, 0.9, 0.9, 1, 0, 1, 0],
    ["adamw4", t(9), t(9), i(1), t(1), i(2), t(1), t(1), 1, 0.9, 0.9, 1, 0, 1, 0],
    ["splitBf16", t(3), i(1)],
    ["collage", t(3), t(3), i(2), i(2), i(2), i(1), t(3), t(1), 1, 0.9, 0.9, 1, 0, 1, 0],
    ["collage", t(3), t(3), i(2), i(2), i(2), i(0), t(2), t(1), 1, 0.9, 0.9, 1, 0, 1, 0],
    ["momentum", t(3), t(3), t(4), t(1), 0.9, 1, 0],
    ["descend", t(3), t(4), t(1), 1, 1, 0],
    ["orthogonalize", t(3), 5],
    ["orthogonalize", t(3, 3), 0.5],
    ["addGram", t(3, 4), t(2, 4), 1],
    ["cholesky", t(3, 4), t(2), 0, 3],
    ["cholesky", t(3, 3), t(2), 0, 4],
    ["cholesky", t(3, 3), t(2), 0, 1.5],
    ["triangularSolve", t(3, 3), t(4, 2), 0, 0, 2],
    ["triangularSolve", t(3, 3), t(3, 2), 0, 0.5, 2],
    ["svd", t(2, 3), t(3), t(3, 3)],
    ["gptqUpdate", t(4, 3), t(4, 3), t(3, 3), 0, 1, 1, 4],
    ["gptqUpdate", t(3, 4), t(3, 4), t(3, 3), 0, 1.5, 2, 3],
  ];
  return wrong.map(([name, ...args]) => {
    const shapes = args.map((a) => (typeof a === "number" ? a : a.shape.join("×")));
    return { name, label: shapes.join(", "), args };
  });
}

export function normalTensor(random: Random, shape: readonly number[], scale: number): HostTensor {
  return hostTensor(shape, normals(random, sizeOf(shape), scale));
}

function ids(values: readonly number[]): HostTensor {
  return hostTensor([values.length], Int32Array.from(values));
}

/** The second row (or the only one) becomes zero. */
function withZeroRow(t: HostTensor): HostTensor {
  const cols = t.shape[1];
  const at = Math.min(1, t.shape[0] - 1) * cols;
  if (t.data.length > 0) t.data.fill(0, at, at + cols);
  return t;
}

/** A random matrix in a packed format, its second row zero; codes that only a search finds are random themselves. */
export function packedTensor(random: Random, name: string, rows: number, cols: number, scale = 1): Weight {
  const format = formatByName(name);
  const spread = scale / Math.sqrt(cols);
  if (format.kind === "opaque" && format.codeBits < 16) {
    const parts = format.parts(rows, cols).map((spec) => {
      const data =
        spec.name === "scales"
          ? Float16Array.from({ length: rows }, (_, r) => (r === 1 ? 0 : spread))
          : Uint8Array.from({ length: partBytes(spec) }, () => 256 * random());
      return [spec.name, partOf(spec.dtype, spec.shape, data)];
    });
    return packedWeight([rows, cols], name, Object.fromEntries(parts));
  }
  const w = withZeroRow(normalTensor(random, [rows, cols], spread));
  return packedWeight([rows, cols], name, encode(format, matrix(rows, cols, w.data as Float32Array)));
}

function fits(format: string, rows: number, cols: number): boolean {
  try {
    formatByName(format).parts(rows, cols);
    return true;
  } catch (error) {
    if (error instanceof InputError) return false;
    throw error;
  }
}

/** Cosines, then sines, of each position. */
function ropeTable(positions: number, headDim: number): HostTensor {
  const half = headDim / 2;
  const table = new Float32Array(positions * headDim);
  for (let p = 0; p < positions; p++) {
    for (let i = 0; i < half; i++) {
      table[p * headDim + i] = Math.cos(p * 10000 ** (-i / half));
      table[p * headDim + half + i] = Math.sin(p * 10000 ** (-i / half));
    }
  }
  return hostTensor([positions, headDim], table);
}

/** Formats in which a matrix can be packed. */
export const packedFormats: readonly string[] = [...formats.keys()].filter((name) => name !== "f32");
