import type { KernelName, Operations, Procedures } from "../kernels/index.ts";
import type { Elements, HostTensor, Tensor } from "../tensor/tensor.ts";
import type { Weight } from "../tensor/weight.ts";
import type { IntegerKernel } from "./kernel-choice.ts";

/**
 * Where kernels run. Operations are called synchronously and give handles at
 * once; `read` is the one crossing back, and it is asynchronous, so that a GPU
 * never waits. Results do not depend on the number of threads.
 */
export interface Backend extends Operations, Procedures {
  readonly name: "reference" | "native" | "wasm";
  /** What of it runs here, for people: `AVX-512, 2 threads`. */
  readonly description: string;
  readonly threads: number;

  /** All outputs of an operation: the result, then what its backward pass needs. The tape calls this. */
  forward(name: KernelName, args: readonly unknown[]): Tensor[];
  /** Gradients of the tensor arguments at `wanted` (null elsewhere), given those outputs and dy. */
  backward(
    name: KernelName,
    args: readonly unknown[],
    outputs: readonly Tensor[],
    dy: Tensor,
    wanted: readonly boolean[],
  ): (Tensor | null)[];

  /** Copies a host tensor, or the parts of a packed weight, to where the kernels are. */
  upload(value: HostTensor | Weight, options?: UploadOptions): Tensor;
  /** A new tensor; of a cache (`isCacheFormat`), which only `cacheAppend` writes into, values are 0 until written. */
  zeros(shape: readonly number[], format?: string, options?: ZerosOptions): Tensor;
  /** A view of rows `from … to−1` of an f32 or i32 tensor: same storage, no copy. */
  rows(t: Tensor, from: number, to: number): Tensor;
  /** The same storage seen in another shape of the same size. */
  reshape(t: Tensor, shape: readonly number[]): Tensor;
  /** The elements of an f32 or i32 tensor, as a copy. */
  read(t: Tensor): Promise<Elements>;
  /** Overwrites the elements of an f32 or i32 tensor. */
  write(t: Tensor, data: Elements): void;

  /** Frees everything made inside `body`, except what it returns (tensor, array or record of tensors) and what was kept. */
  scope<T>(body: () => T): T;
  /** Lets a tensor outlive the scope in which it was made; the caller frees it. */
  keep<T extends Tensor>(t: T): T;
  free(t: Tensor): void;
  /** A recomputation boundary for the tape; nothing outside it. */
  segment(body: () => Tensor): Tensor;

  supports(operation: string, format: string): boolean;
  readonly limits: { readonly memoryBytes: number };
  /** The most memory that tensors took since the last call, bytes, where the backend counts it. */
  takePeakBytes?(): number;
  dispose(): void;
}

export interface ZerosOptions {
  /**
   * In memory that the system may write out to a temporary file, page by page, and bring back when it is touched; it does
   * not count as taken. f32 and i32. An UnsupportedError where the backend has none: only native has, not on Windows.
   */
  readonly paged?: boolean;
}

export interface UploadOptions {
  /**
   * What `linear` multiplies a packed matrix by: float32 activations (the default), or such as are rounded to bytes, which
   * is several times as fast. Plain floats, and formats without whole-number levels, take float32 alone.
   */
  readonly activations?: "float" | "int8";
}

/** Options that every backend takes; what does not apply is ignored. */
export interface BackendOptions {
  /** Default: `availableParallelism`. */
  readonly threads?: number;
  /** Native instruction sets to choose from; default: the best that the processor has. */
  readonly body?: "avx512" | "avx2" | "neon" | "portable";
  /** WebAssembly: false forces plain SIMD128 where relaxed SIMD would be present. */
  readonly relaxed?: boolean;
  /**
   * How matrices are multiplied by int8 activations, where their format can be; default: what is fastest. Same bits.
   * Codes with a book and a few rows of floats: by "table" where their layout can be, else decoded. Not the same bits.
   */
  readonly integerKernel?: IntegerKernel;
}
