import { InputError, UnsupportedError } from "../tensor/tensor.ts";
import type { Backend, BackendOptions } from "./backend.ts";
import { integerKernels } from "./kernel-choice.ts";
import { native } from "./native.ts";
import { isNode } from "./node.ts";
import { openReference } from "./reference.ts";
import { type WasmOptions, wasm } from "./wasm.ts";

export type BackendName = Backend["name"];

export interface OpenOptions extends BackendOptions, WasmOptions {
  /** The one to open; default: the best that works here. */
  readonly backend?: BackendName;
}

/** Every backend, the best first. */
export const backendNames: readonly BackendName[] = ["native", "wasm", "reference"];

const openers: Readonly<Record<BackendName, (options: OpenOptions) => Backend | Promise<Backend>>> = {
  native,
  wasm,
  reference: openReference,
};

/**
 * Opens a backend: the one named, or the best that works here (native, else
 * WebAssembly; what is used in its place is said through `onWarning`). Throws
 * an UnsupportedError that says why a backend does not work and what to do.
 */
export async function openBackend(
  choice: BackendName | OpenOptions = {},
  options: OpenOptions = typeof choice === "string" ? {} : choice,
): Promise<Backend> {
  const name = typeof choice === "string" ? choice : options.backend;
  if (options.threads !== undefined && !(Number.isInteger(options.threads) && options.threads >= 1)) {
    throw new InputError(`backend: threads need to be a whole number from 1 on, got ${options.threads}`);
  }
  const { integerKernel } = options;
  if (integerKernel !== undefined && !integerKernels.includes(integerKernel)) {
    throw new InputError(
      `backend: integerKernel needs to be ${integerKernels.join(", ")}, got ${JSON.stringify(integerKernel)}`,
    );
  }
  if (name !== undefined) {
    if (!Object.hasOwn(openers, name)) {
      throw new InputError(`backend: needs to be ${backendNames.join(", ")}, got ${JSON.stringify(name)}`);
    }
    return openers[name](options);
  }
  if (!isNode()) return wasm(options);
  try {
    return native(options);
  } catch (error) {
    if (!(error instanceof UnsupportedError)) throw error;
    options.onWarning?.(`${error.message}; wasm is used`);
    return wasm(options);
  }
}
