import { UnsupportedError } from "../tensor/tensor.ts";
import type { BackendOptions } from "./backend.ts";
import { type HeapBackend, heapBackend } from "./heap.ts";
import { isNode } from "./node.ts";

/** What napi.cpp exports. */
interface Addon {
  readonly names: readonly string[];
  readonly formats: readonly string[];
  readonly bodies: readonly string[];
  readonly bf16: readonly string[];
  attach(commands: ArrayBuffer): void;
  run(entry: number, body: number, threads: number): void;
  allocate(bytes: number): number;
  release(address: number, bytes: number): void;
  allocatePaged(folder: string, bytes: number): number;
  releasePaged(address: number, bytes: number): void;
  clear(address: number, bytes: number): void;
  copyIn(address: number, from: ArrayBufferView): void;
  copyOut(address: number, into: ArrayBufferView): void;
  bytesInUse(): number;
  takePeakBytes(): number;
}

const BODY_NAMES: Readonly<Record<string, string>> = {
  avx512: "AVX-512",
  avx2: "AVX2",
  neon: "NEON",
  portable: "portable",
};

/** Slots of one call; the longest, attention's backward pass, needs 25. */
const SLOTS = 256;

/** One for each environment (main thread or worker), as the addon keeps one. */
let commands: Float64Array | undefined;

/** The instruction sets that native kernels can use here, best first; an UnsupportedError says why there are none. */
export function nativeBodies(): readonly string[] {
  return loadAddon().bodies;
}

/**
 * The backend of C++ kernels in the native addon. Throws an UnsupportedError
 * when the addon was not built or cannot be loaded here.
 */
export function native(options: BackendOptions = {}): HeapBackend {
  const addon = loadAddon();
  const os = process.getBuiltinModule("node:os");
  const threads = Math.max(1, Math.min(256, Math.floor(options.threads ?? os.availableParallelism())));
  const name = options.body ?? addon.bodies[0];
  const body = addon.bodies.indexOf(name);
  if (body < 0) {
    throw new UnsupportedError(
      `native: this processor has no ${BODY_NAMES[name] ?? name}; it has ${addon.bodies.join(", ")}`,
    );
  }
  if (!commands) {
    commands = new Float64Array(SLOTS);
    addon.attach(commands.buffer as ArrayBuffer);
  }
  return heapBackend(
    {
      allocate: addon.allocate,
      release: addon.release,
      allocatePaged: (bytes) => addon.allocatePaged(os.tmpdir(), bytes),
      releasePaged: addon.releasePaged,
      clear: addon.clear,
      copyIn: addon.copyIn,
      copyOut: addon.copyOut,
      commands,
      names: addon.names,
      formats: addon.formats,
      run: (entry) => addon.run(entry, body, threads),
      bytesInUse: addon.bytesInUse,
      takePeakBytes: addon.takePeakBytes,
      memoryBytes: os.totalmem(),
      close: () => {},
    },
    {
      name: "native",
      description: `${BODY_NAMES[name]}${addon.bf16.includes(name) ? " with BF16" : ""}, ${threads} ${threads === 1 ? "thread" : "threads"}`,
      threads,
      integerKernel: options.integerKernel,
    },
  );
}

/**
 * The addon lies in the package's build/Release, two folders up from src/backends and from dist/backends alike. It is
 * found at run time and through Node's own `require`, so that bundles for browsers contain nothing of it. LOWBIT_ADDON
 * names another one: scripts/sanitize.mjs tests the kernels under sanitizers with it.
 */
function loadAddon(): Addon {
  if (!isNode()) {
    throw new UnsupportedError("native: needs Node 24; use wasm in a browser");
  }
  const { createRequire } = process.getBuiltinModule("node:module");
  const { existsSync } = process.getBuiltinModule("node:fs");
  const { dirname, join } = process.getBuiltinModule("node:path");
  const { fileURLToPath } = process.getBuiltinModule("node:url");
  const here = dirname(fileURLToPath(import.meta.url));
  return loadFrom(
    process.env.LOWBIT_ADDON ?? join(here, "..", "..", "build", "Release", "lowbit.node"),
    existsSync,
    createRequire(import.meta.url),
  );
}

/** The addon at a path; an UnsupportedError says what is wrong with it and what to do. */
export function loadFrom(
  path: string,
  exists: (path: string) => boolean,
  require: (path: string) => unknown,
): Addon {
  if (!exists(path)) {
    throw new UnsupportedError(
      "native: the addon was not built; install a C++ compiler, make and Python 3, then run npm install again",
    );
  }
  try {
    return require(path) as Addon;
  } catch (error) {
    const reason = error instanceof Error ? error.message.split("\n")[0] : String(error);
    throw new UnsupportedError(`native: the addon does not load (${reason}); run npm rebuild`);
  }
}
