import { mkdtempSync, rmSync } from "node:fs";
import { open } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { inspect } from "./inspect.ts";

const folder = mkdtempSync(join(tmpdir(), "lowbit-inspect-"));
const [dim, ffn, layers, heads, kvHeads, vocabulary, context] = [2048, 5632, 16, 32, 8, 32000, 2048];
const kvDim = (dim / heads) * kvHeads;
const linear = layers * (2 * dim * dim + 2 * kvDim * dim + 3 * ffn * dim);
const parameters = vocabulary * dim + linear + (2 * layers + 1) * dim;

/** A llama2.c header of a model of 0.8 billion weights, and behind it a hole of the size of its weights. */
async function sparse(name: string, version: 1 | 2, bytes: number): Promise<string> {
  const header = Buffer.alloc(256);
  header.writeUInt32LE(0x616b3432, 0);
  const numbers = [version, dim, ffn, layers, heads, kvHeads, vocabulary, context];
  for (const [i, number] of numbers.entries()) header.writeInt32LE(number, 4 + 4 * i);
  header.writeUInt8(1, 36); // the head is the embedding
  if (version === 2) header.writeInt32LE(64, 37);
  const path = join(folder, name);
  const file = await open(path, "w");
  await file.write(header);
  await file.truncate(bytes);
  await file.close();
  return path;
}

let float: string;
let int8: string;
beforeAll(async () => {
  float = await sparse("float.bin", 1, 256 + 4 * parameters);
  const norms = (2 * layers + 1) * dim;
  int8 = await sparse("int8.bin", 2, 256 + 4 * norms + (parameters - norms) * (1 + 4 / 64));
});
afterAll(() => rmSync(folder, { recursive: true }));

test("bits per weight count everything stored, and are the bytes on disk", async () => {
  const plain = await inspect({ model: float });
  expect(plain).toMatchObject({
    architecture: "llama",
    parameters,
    bytes: 256 + 4 * parameters,
    bitsPerWeight: { linear: 32, total: 32 },
  });
  const packed = await inspect({ model: int8 });
  expect(packed.bitsPerWeight.linear).toBe(8.5); // 8 bits and a float32 scale for 64
  expect((packed.bitsPerWeight.total * parameters) / 8 + 256).toBe(packed.bytes);
  expect(packed.tensors.reduce((sum, { bytes }) => sum + bytes, 256)).toBe(packed.bytes);
});

test("reads headers only: memory does not grow with a file of 3 GB", async () => {
  await inspect({ model: int8 });
  const before = process.memoryUsage().rss;
  const { bytes, tensors } = await inspect({ model: float });
  expect(bytes).toBeGreaterThan(2 ** 31);
  expect(tensors.length).toBe(9 * layers + 2);
  expect(process.memoryUsage().rss - before).toBeLessThan(64e6);
});
