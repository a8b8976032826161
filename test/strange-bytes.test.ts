// A stranger's file may hold any bytes where the codes of a format stand: every kernel reads them as the format's
// TypeScript does, and none reads or writes beside its tensors (`npm run test:sanitize` looks on).
import { afterAll, beforeAll, describe, test } from "vitest";
import { checkKernel } from "../src/backends/backend.suite.ts";
import type { Backend } from "../src/backends/backend.ts";
import { normalTensor } from "../src/backends/cases.suite.ts";
import { openBackend } from "../src/backends/index.ts";
import { native, nativeBodies } from "../src/backends/native.ts";
import { formats } from "../src/formats/index.ts";
import { generator, type Random } from "../src/tensor/random.ts";
import { hostTensor } from "../src/tensor/tensor.ts";
import { PART_BYTES, type Part, packedWeight, type Weight } from "../src/tensor/weight.ts";
import { backendsHere } from "./backends.ts";

/** A matrix of any bytes but for its floats, which are numbers: those that are none are refused when a file is read. */
function anyBytes(random: Random, name: string, rows: number, cols: number): Weight {
  const format = formats.get(name)!;
  const byte = () => Math.floor(256 * random());
  const parts: Record<string, Part> = {};
  for (const { name: part, dtype, shape } of format.parts(rows, cols)) {
    const bytes = new Uint8Array(PART_BYTES[dtype] * shape.reduce((a, b) => a * b, 1)).map(byte);
    // Below 2 in magnitude: half of the exponents are taken away.
    if (dtype === "f16") for (let i = 1; i < bytes.length; i += 2) bytes[i] &= 0xbf;
    parts[part] = { dtype, shape, bytes };
  }
  const [{ bytes }] = Object.values(parts);
  const blocks =
    (rows * cols) /
    (format.groupShape.kind === "group" || format.groupShape.kind === "superblock"
      ? format.groupShape.size
      : cols);
  const size = bytes.length / blocks;
  for (let b = format.firstNotFinite?.(parts) ?? -1; b >= 0; b = format.firstNotFinite!(parts))
    bytes.set(new Uint8Array(size).map(byte), b * size);
  return packedWeight([rows, cols], name, parts);
}

const packed = [...formats.values()].filter(({ kind }) => kind === "group").map(({ name }) => name);

const here = await backendsHere();
const openers: readonly (readonly [string, () => Promise<Backend>])[] = [
  ...(here.includes("native") ? nativeBodies() : []).map(
    (body) => [`native, ${body}`, async () => native({ threads: 2, body: body as "portable" })] as const,
  ),
  ...(here.includes("wasm") ? [["wasm", () => openBackend("wasm", { threads: 2 })] as const] : []),
];

describe.each(openers)("any bytes as codes, %s", (_, open) => {
  let backend: Backend;
  beforeAll(async () => {
    backend = await open();
  });
  afterAll(() => backend.dispose());

  test.each(packed)("%s", async (format) => {
    const random = generator(8);
    for (const [rows, cols] of [
      [1, 256],
      [5, 512],
      [17, 256],
    ]) {
      const weight = anyBytes(random, format, rows, cols);
      const label = `${rows}×${cols}`;
      for (const tokens of [1, 9]) {
        const args = [normalTensor(random, [tokens, cols], 1), weight];
        for (const activations of [undefined, "int8"] as const) {
          const product = { name: "linear" as const, label, args, activations };
          await checkKernel(backend, product);
        }
      }
      const ids = Int32Array.from({ length: rows }, (_, i) => rows - 1 - i);
      await checkKernel(backend, { name: "embedding", label, args: [weight, hostTensor([rows], ids)] });
    }
  });
});
