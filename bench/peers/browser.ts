// Runs in a worker of the page that chromium.ts serves: loads a GGUF file and measures it as `lowbit bench` does.
import type { ModelFile } from "../../src/files/file.ts";
import { openGgufModel } from "../../src/files/gguf-model.ts";
import { memorySource } from "../../src/files/memory.ts";
import { bench, type ModelSpeed } from "../../src/verbs/bench.ts";

export interface BrowserRun {
  readonly url: string;
  readonly prompt: number;
  readonly tokens: number;
  readonly threads: number;
}

export type BrowserSpeed = ModelSpeed;

/** What the file's own fingerprint() needs Node for. */
async function fingerprint(bytes: Uint8Array<ArrayBuffer>): Promise<{ bytes: number; sha256: string }> {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  const sha256 = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return { bytes: bytes.byteLength, sha256 };
}

globalThis.onmessage = async ({ data }: MessageEvent<BrowserRun>) => {
  const { url, ...options } = data;
  try {
    const bytes = new Uint8Array(await (await fetch(url)).arrayBuffer());
    const opened = await openGgufModel(memorySource(bytes, "model.gguf"));
    const model: ModelFile = { ...opened, fingerprint: () => fingerprint(bytes) };
    globalThis.postMessage(await bench({ ...options, model, backend: "wasm" }));
  } catch (error) {
    globalThis.postMessage({ error: String(error) });
  }
};
