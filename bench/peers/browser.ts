// Runs in a worker of the page that chromium.ts serves: loads a GGUF file and measures it as `lowbit bench` does.
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

globalThis.onmessage = async ({ data }: MessageEvent<BrowserRun>) => {
  const { url, ...options } = data;
  try {
    const bytes = new Uint8Array(await (await fetch(url)).arrayBuffer());
    const model = await openGgufModel(memorySource(bytes, "model.gguf"));
    globalThis.postMessage(await bench({ ...options, model, backend: "wasm" }));
  } catch (error) {
    globalThis.postMessage({ error: String(error) });
  }
};
