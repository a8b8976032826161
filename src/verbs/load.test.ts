import { mkdtempSync, rmSync } from "node:fs";
import { open } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { openBackend } from "../backends/index.ts";
import { loadWeights } from "./load.ts";

test("a model that WebAssembly's memory cannot hold is refused before its weights are read", async () => {
  const [dim, ffn, layers, heads, vocabulary, context] = [2048, 5632, 26, 32, 32000, 2048];
  const parameters = vocabulary * dim + layers * (4 * dim * dim + 3 * ffn * dim) + (2 * layers + 1) * dim;
  const header = Buffer.alloc(256);
  header.writeUInt32LE(0x616b3432, 0);
  for (const [i, n] of [1, dim, ffn, layers, heads, heads, vocabulary, context].entries()) {
    header.writeInt32LE(n, 4 + 4 * i);
  }
  header.writeUInt8(1, 36); // the head is the embedding

  const folder = mkdtempSync(join(tmpdir(), "lowbit-load-"));
  const path = join(folder, "large.bin");
  const file = await open(path, "w");
  await file.write(header);
  await file.truncate(256 + 4 * parameters); // a hole: 5.2 GiB that take no room
  await file.close();
  const backend = await openBackend("wasm", { threads: 1 });
  try {
    await expect(loadWeights(path, backend)).rejects.toThrow(
      "large.bin: its weights need 5.2 GiB, the wasm backend has room for 4.0 GiB; use a model in a smaller format, or another backend",
    );
  } finally {
    backend.dispose();
    rmSync(folder, { recursive: true });
  }
});
