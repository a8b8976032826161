import { describe, expect, it } from "vitest";
import type { Backend } from "../backends/backend.ts";
import { type Coded, type GroupFormat, groupSize, valuesOf } from "../formats/format.ts";
import { clipped, formatByName, formats, integer } from "../formats/index.ts";
import { generator, normals } from "../tensor/random.ts";
import { hostTensor, InputError, matrix } from "../tensor/tensor.ts";
import { type GptqOptions, gptq } from "./gptq.ts";
import { rtn } from "./rtn.ts";
import { outputError, type Toy, toy } from "./toy.suite.ts";
import { upperInverse } from "./upper-inverse.ts";

/** What methods that compute on a backend must do on each. */
export function methodSuite(open: () => Promise<Backend>): void {
  async function withH<T>(
    H: Float32Array,
    work: (context: { backend: Backend; H: ReturnType<Backend["upload"]> }) => Promise<T>,
  ) {
    const backend = await open();
    const n = Math.sqrt(H.length);
    try {
      return await work({ backend, H: backend.upload(hostTensor([n, n], H)) });
    } finally {
      backend.dispose();
    }
  }

  function quantize({ W, H }: Toy, format: GroupFormat, options: GptqOptions = {}): Promise<Coded> {
    return withH(H, (context) => gptq.quantize(W, format, context, options));
  }

  async function nearest({ W, H }: Toy, format: GroupFormat): Promise<Coded> {
    return withH(H, (context) => rtn.quantize(W, format, context));
  }

  describe("upperInverse", () => {
    it.each([1, 2, 17, 64])("of %i: Uᵀ·U·H = I, U upper", async (n) => {
      const { H } = toy(1, n + 1, n, 0.3);
      const m = leading(H, n + 1, n);
      const U = await withH(m, ({ backend }) => upperInverse(backend, m));
      for (let i = 0; i < n; i++) {
        for (let j = 0; j < i; j++) expect(U[i * n + j]).toBe(0);
      }
      const product = multiply(multiply(transposed(U, n), U, n), m, n);
      for (let i = 0; i < n * n; i++)
        expect(Math.abs(product[i] - (i % (n + 1) === 0 ? 1 : 0))).toBeLessThan(1e-4);
    });

    it("names the row at which H is not positive definite", async () => {
      const H = Float32Array.of(1, 0, 0, 0, -2, 0, 0, 0, 1);
      const work = withH(H, ({ backend }) => upperInverse(backend, H));
      await expect(work).rejects.toThrow("cholesky: not positive definite at row 1 (pivot -2.00)");
    });
  });

  describe("gptq", () => {
    const identity = new Float32Array(64 * 64);
    for (let i = 0; i < 64; i++) identity[i * 65] = 1;
    const independent: Toy = { W: matrix(9, 64, normals(generator(3), 9 * 64)), H: identity };

    it("refuses an H that is not finite", async () => {
      for (const value of [Number.NaN, Infinity]) {
        const H = identity.slice();
        H[65 * 3] = value;
        await expect(quantize({ ...independent, H }, integer(4))).rejects.toThrow("H that is not finite");
      }
    });

    it("with H = I it is round to nearest, bit for bit, in every format of codes, also of groups wider than its block", async () => {
      const H = new Float32Array(256 * 256);
      for (let i = 0; i < 256; i++) H[i * 257] = 1;
      const wide: Toy = { W: matrix(3, 256, normals(generator(4), 3 * 256)), H };
      for (const format of formats.values()) {
        if (format.kind !== "group") continue;
        // Without the rounding that some formats publish for whole groups, which is not that of each weight to its nearest code.
        const each = { ...format, quantizeGroup: undefined };
        expect(await quantize(wide, each), format.name).toEqual(await nearest(wide, each));
      }
    });

    it.each(["int8", "int4", "int3-offset", "int2-g32", "int4-offset-g64"])(
      "with H = I it is round to nearest, bit for bit: %s",
      async (name) => {
        const format = formatByName(name) as GroupFormat;
        expect(await quantize(independent, format)).toEqual(await nearest(independent, format));
        const search = clipped(format) as GroupFormat;
        expect(await quantize(independent, search, { actOrder: true })).toEqual(
          await nearest(independent, search),
        );
      },
    );

    // methods.md 2.3: rows with a grid of their own, with offset.
    const layer = toy(128, 256);
    it.each([2, 3, 4] as const)("leaves at most 0.35 of the output error of rtn at %i bits", async (bits) => {
      const format = integer(bits, { offset: true });
      const error = async (coded: Promise<Coded>) => outputError(layer, valuesOf(format, await coded));
      const baseline = await error(nearest(layer, format));
      const plain = await error(quantize(layer, format));
      expect(plain).toBeLessThanOrEqual(0.35 * baseline);
      expect(await error(quantize(layer, format, { actOrder: true }))).toBeLessThan(plain);
    });

    const small = toy(8, 96, 5);
    it.each([
      ["int3-offset", {}],
      ["int4-g32", {}],
      ["int4-g32", { staticGroups: true }],
      ["int3-offset-g32", { actOrder: true }],
      ["int2", { actOrder: true, damping: 0.1 }],
    ] as const)("%s %o is the plain column loop, whatever the block", async (name, options) => {
      const format = formatByName(name) as GroupFormat;
      const plain = await plainLoop(small, format, options, open);
      for (const block of [1, 7, 32, 128]) {
        const { codes, parameters } = await quantize(small, format, { ...options, block });
        expect(codes).toEqual(plain.codes);
        expect(parameters).toEqual(plain.parameters);
      }
    });

    it("fits superblocks wider than its block of columns", async () => {
      const wide = toy(3, 512, 6, 0.1);
      const format = formatByName("tq2_0") as GroupFormat;
      const wideError = async (coded: Promise<Coded>) => outputError(wide, valuesOf(format, await coded));
      expect(await wideError(quantize(wide, format))).toBeLessThan(await wideError(nearest(wide, format)));
    });

    it("sets columns that no input reaches to 0", async () => {
      const H = small.H.slice();
      for (let i = 0; i < 96; i++) H[i * 96 + 11] = H[11 * 96 + i] = 0;
      const format = integer(4);
      const Ŵ = valuesOf(format, await quantize({ W: small.W, H }, format));
      for (let r = 0; r < 8; r++) expect(Ŵ[r * 96 + 11]).toBe(0);
      expect(Ŵ.every(Number.isFinite)).toBe(true);
    });

    it("frees what it makes and leaves W and H as they were", async () => {
      const before = { W: small.W.data.slice(), H: small.H.slice() };
      await withH(small.H, async ({ backend, H }) => {
        await gptq.quantize(small.W, integer(4), { backend, H });
        expect(await backend.read(H)).toEqual(before.H);
      });
      expect(small.W.data).toEqual(before.W);
    });

    it("stops when it is told to", async () => {
      await withH(small.H, async ({ backend, H }) => {
        const signal = AbortSignal.abort(new Error("enough"));
        await expect(gptq.quantize(small.W, integer(4), { backend, H, signal })).rejects.toThrow("enough");
      });
    });

    it("says what it needs", async () => {
      const backend = await open();
      await expect(gptq.quantize(small.W, integer(4), { backend })).rejects.toThrow(
        "gptq: needs calibration data (H); use rtn without it",
      );
      await expect(quantize(small, integer(4), { actOrder: true, staticGroups: false })).rejects.toThrow(
        InputError,
      );
      await expect(quantize(small, integer(4, { group: 64 }))).rejects.toThrow("rows of 96");
      backend.dispose();
    });
  });
}

/** Algorithm 1 as it is printed: no blocks, no transposing, sums in 64 bits; U from the same inverse. */
async function plainLoop(
  { W, H }: Toy,
  format: GroupFormat,
  { damping = 0.01, actOrder = false, staticGroups = actOrder }: GptqOptions,
  open: () => Promise<Backend>,
): Promise<Coded> {
  const { rows, cols } = W;
  const size = groupSize(format, rows, cols);
  const order = Array.from({ length: cols }, (_, j) => j);
  if (actOrder) order.sort((a, b) => H[b * cols + b] - H[a * cols + a]);
  const mean = order.reduce((sum, j) => sum + H[j * cols + j], 0) / cols;
  const ordered = new Float32Array(cols * cols);
  for (let i = 0; i < cols; i++) {
    for (let j = 0; j < cols; j++) ordered[i * cols + j] = H[order[i] * cols + order[j]];
    ordered[i * cols + i] += damping * mean;
  }
  const backend = await open();
  const U = await upperInverse(backend, ordered);
  backend.dispose();

  const codes = new Uint8Array(rows * cols);
  const parameters = [];
  for (let r = 0; r < rows; r++) {
    const original = W.data.subarray(r * cols, (r + 1) * cols);
    const w = Float64Array.from(order, (j) => original[j]);
    const groups = Array.from({ length: cols / size }, (_, g) =>
      format.fitGroup(original.subarray(g * size, (g + 1) * size)),
    );
    for (let j = 0; j < cols; j++) {
      const g = Math.floor(order[j] / size);
      if (!staticGroups && j % size === 0)
        groups[g] = format.fitGroup(Float32Array.from(w.subarray(j, j + size)));
      const code = format.nearest(w[j], groups[g]);
      const error = (w[j] - format.value(code, groups[g])) / U[j * cols + j];
      for (let k = j; k < cols; k++) w[k] -= error * U[j * cols + k];
      codes[r * cols + order[j]] = code;
    }
    parameters.push(...groups);
  }
  return { codes, parameters };
}

function leading(m: Float32Array, size: number, n: number): Float32Array {
  return Float32Array.from({ length: n * n }, (_, i) => m[Math.floor(i / n) * size + (i % n)]);
}

function transposed(m: Float32Array, n: number): Float32Array {
  return m.map((_, i) => m[(i % n) * n + Math.floor(i / n)]);
}

function multiply(a: Float32Array, b: Float32Array, n: number): Float32Array {
  const at = (i: number, j: number) => {
    let sum = 0;
    for (let k = 0; k < n; k++) sum += a[i * n + k] * b[k * n + j];
    return sum;
  };
  return a.map((_, i) => at(Math.floor(i / n), i % n));
}
