import { UnsupportedError } from "../tensor/tensor.ts";
import type { BackendOptions } from "./backend.ts";
import { type Heap, type HeapBackend, heapBackend } from "./heap.ts";
import { isNode } from "./node.ts";
import { startWorkers, type Workers } from "./wasm-workers.ts";

export interface WasmOptions extends BackendOptions {
  /** A sentence that a person should read: why only one thread is used. */
  readonly onWarning?: (message: string) => void;
  /** Where a module is, when it does not stand beside this file; gets names such as `relaxed-threads.wasm`. */
  readonly locate?: (name: string) => string | URL;
}

/** What wasm.cpp and threads-wasm.cpp export. Addresses are doubles, as they may be above 2³¹. */
interface Exports {
  readonly __stack_pointer: WebAssembly.Global<"i32">;
  commands(): number;
  slots(): number;
  count(): number;
  name(entry: number): number;
  formatCount(): number;
  formatName(format: number): number;
  run(entry: number): void;
  allocate(bytes: number): number;
  release(address: number, bytes: number): void;
  clear(address: number, bytes: number): void;
  bytesInUse(): number;
  takePeakBytes(): number;
  outOfMemory(): number;
  start(threads: number, maySleep: number): void;
  stop(): void;
}

const PAGE_BYTES = 65536;
/** Pages that a 32-bit address reaches: 4 GiB. */
const MOST_PAGES = 65536;
/** Static data and the stack fit; the module's own minimum is below it. */
const FIRST_PAGES = 64;

/**
 * The backend of C++ kernels in WebAssembly, for Node and browsers: SIMD128,
 * relaxed SIMD where the engine has it, and threads where memory can be shared
 * (in a browser: where the page is cross-origin isolated). 4 GiB at most.
 */
export async function wasm(options: WasmOptions = {}): Promise<HeapBackend> {
  const warn = options.onWarning ?? (() => {});
  const wanted = Math.max(1, Math.min(256, Math.floor(options.threads ?? processors())));
  const shared = wanted > 1 && canShare();
  if (wanted > 1 && !shared) {
    warn(
      "wasm: one thread is used, as memory cannot be shared here; serve the page with the headers " +
        "Cross-Origin-Opener-Policy: same-origin and Cross-Origin-Embedder-Policy: require-corp",
    );
  }
  const open = async (threads: number) => {
    const { heap, ...description } = await wasmHeap(options, threads, warn);
    return heapBackend(heap, { name: "wasm", ...description, integerKernel: options.integerKernel });
  };
  try {
    return await open(shared ? wanted : 1);
  } catch (error) {
    if (!shared || error instanceof UnsupportedError) throw error;
    warn(`wasm: one thread is used, as others could not be started (${messageOf(error)})`);
    return open(1);
  }
}

/** A module with a memory of its own, and `wanted` − 1 workers beside the caller. */
export async function wasmHeap(
  options: WasmOptions,
  wanted: number,
  warn: (message: string) => void,
): Promise<{ heap: Heap; description: string; threads: number }> {
  const shared = wanted > 1;
  const { module, relaxed } = await load(options, shared);
  const { memory, bytes: memoryBytes } = newMemory(shared);
  const exports = (await WebAssembly.instantiate(module, { env: { memory } })).exports as unknown as Exports;
  let workers: Workers | undefined;
  if (shared) {
    workers = await startWorkers(wanted - 1, module, memory, (bytes) => block(exports, bytes), warn);
    exports.start(1 + workers.count, maySleep() ? 1 : 0);
  }
  const threads = 1 + (workers?.count ?? 0);
  const heap = heapOver(exports, memory, memoryBytes, () => {
    exports.stop();
    workers?.close();
  });
  const count = `${threads} ${threads === 1 ? "thread" : "threads"}`;
  return { heap, description: `${relaxed ? "relaxed SIMD" : "SIMD128"}, ${count}`, threads };
}

function heapOver(
  exports: Exports,
  memory: WebAssembly.Memory,
  memoryBytes: number,
  close: () => void,
): Heap {
  const slots = () => new Float64Array(memory.buffer, exports.commands(), exports.slots());
  let commands = slots();
  const bytesAt = (address: number, bytes: number) => new Uint8Array(memory.buffer, address, bytes);
  const stack = exports.__stack_pointer;
  const top = stack.value;
  const stacks = exports.bytesInUse();
  let broken = false;
  return {
    allocate: (bytes) => exports.allocate(bytes),
    release: exports.release,
    clear: exports.clear,
    copyIn: (address, from) => {
      bytesAt(address, from.byteLength).set(new Uint8Array(from.buffer, from.byteOffset, from.byteLength));
    },
    copyOut: (address, into) => {
      new Uint8Array(into.buffer, into.byteOffset, into.byteLength).set(bytesAt(address, into.byteLength));
    },
    // Memory that grew has a new buffer, and views of the old one are empty.
    get commands() {
      if (commands.length === 0) commands = slots();
      return commands;
    },
    names: Array.from({ length: exports.count() }, (_, entry) => text(memory, exports.name(entry))),
    formats: Array.from({ length: exports.formatCount() }, (_, format) =>
      text(memory, exports.formatName(format)),
    ),
    run(entry) {
      if (broken) throw new UnsupportedError("wasm: a kernel ended in a trap before; open another backend");
      try {
        exports.run(entry);
      } catch (error) {
        stack.value = top;
        if (exports.outOfMemory()) {
          throw new UnsupportedError("wasm: out of memory for intermediate results; use smaller batches");
        }
        broken = true; // workers may still be at its tasks
        throw error;
      }
    },
    bytesInUse: () => exports.bytesInUse() - stacks,
    takePeakBytes: () => exports.takePeakBytes() - stacks,
    memoryBytes,
    close,
  };
}

/** A block of memory for good; an error when there is none. */
function block(exports: Exports, bytes: number): number {
  const address = exports.allocate(bytes);
  if (address === 0)
    throw new UnsupportedError(`wasm: needs ${bytes} bytes for the stack of a thread, got none`);
  return address;
}

function text(memory: WebAssembly.Memory, address: number): string {
  const bytes = new Uint8Array(memory.buffer);
  let name = "";
  for (let at = address; bytes[at] !== 0; at++) name += String.fromCharCode(bytes[at]);
  return name;
}

/** A memory, and the bytes that it may grow to. */
function newMemory(shared: boolean): { memory: WebAssembly.Memory; bytes: number } {
  // Some engines will not reserve 4 GiB of shared addresses.
  for (let maximum = MOST_PAGES; ; maximum /= 2) {
    try {
      const memory = new WebAssembly.Memory({ initial: FIRST_PAGES, maximum, shared });
      return { memory, bytes: maximum * PAGE_BYTES };
    } catch (error) {
      if (maximum <= MOST_PAGES / 16) throw error;
    }
  }
}

async function load(
  options: WasmOptions,
  shared: boolean,
): Promise<{ module: WebAssembly.Module; relaxed: boolean }> {
  const suffix = shared ? "-threads.wasm" : ".wasm";
  if (options.relaxed !== false) {
    const bytes = await read(`relaxed${suffix}`, options);
    if (WebAssembly.validate(bytes)) return { module: await WebAssembly.compile(bytes), relaxed: true };
  }
  const bytes = await read(`simd${suffix}`, options);
  if (!WebAssembly.validate(bytes)) {
    throw new UnsupportedError("wasm: this engine has no 128-bit SIMD; use a browser of 2023 or later");
  }
  return { module: await WebAssembly.compile(bytes), relaxed: false };
}

/** Written out one by one, so that bundlers find the files and put them beside the bundle. */
const beside: Readonly<Record<string, () => URL>> = {
  "simd.wasm": () => new URL("./wasm/simd.wasm", import.meta.url),
  "simd-threads.wasm": () => new URL("./wasm/simd-threads.wasm", import.meta.url),
  "relaxed.wasm": () => new URL("./wasm/relaxed.wasm", import.meta.url),
  "relaxed-threads.wasm": () => new URL("./wasm/relaxed-threads.wasm", import.meta.url),
};

async function read(name: string, options: WasmOptions): Promise<Uint8Array<ArrayBuffer>> {
  const url = options.locate?.(name) ?? beside[name]();
  if (String(url).startsWith("file:") && typeof process !== "undefined") {
    const { readFile } = process.getBuiltinModule("node:fs/promises");
    try {
      return new Uint8Array(await readFile(new URL(url)));
    } catch {
      throw new UnsupportedError(`wasm: ${name} was not built; run npm run build:wasm (needs @yowasp/clang)`);
    }
  }
  const response = await fetch(url);
  if (!response.ok)
    throw new UnsupportedError(`wasm: ${url} was not found (${response.status}); pass locate`);
  return new Uint8Array(await response.arrayBuffer());
}

function canShare(): boolean {
  if (typeof SharedArrayBuffer === "undefined") return false;
  const { crossOriginIsolated } = globalThis as { crossOriginIsolated?: boolean };
  return crossOriginIsolated !== false;
}

/** Whether this thread may wait for another one asleep: not the page of a browser. */
function maySleep(): boolean {
  return typeof (globalThis as { document?: unknown }).document === "undefined";
}

function processors(): number {
  if (isNode()) return process.getBuiltinModule("node:os").availableParallelism();
  return globalThis.navigator?.hardwareConcurrency ?? 1;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
