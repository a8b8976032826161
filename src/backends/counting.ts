import { type KernelName, kernels, type ProcedureName, procedures } from "../kernels/index.ts";
import type { Kernel, Procedure } from "../kernels/kernel.ts";
import { type Elements, type HostTensor, sizeOf, type Tensor, UnsupportedError } from "../tensor/tensor.ts";
import { bytesOf, onlyPart, type Weight } from "../tensor/weight.ts";
import type { Backend, ZerosOptions } from "./backend.ts";
import { type Handle, Tensors, withOperations } from "./facade.ts";
import type { BookOfCodes } from "./parts.ts";

/** A backend that computes nothing: every tensor is only as many bytes, and what is read is 0. */
export type CountingBackend = Backend & {
  bytesInUse(): number;
  /** The most that were in use since the last call. */
  takePeakBytes(): number;
};

/**
 * Counts the memory of a piece of work that is run on it, in the blocks of the
 * native heap (`blockBytes`). It costs what the handles cost, whatever the
 * sizes: a training step of any model is counted in milliseconds.
 */
export function openCounting(): CountingBackend {
  return withOperations(new Counting());
}

/** Bytes of the heap's block for so many bytes: a multiple of 64 to 1024, then one of sixteen sizes to each power of two (memory.cpp). */
export function blockBytes(bytes: number): number {
  const lines = Math.max(1, Math.ceil(bytes / 64));
  if (lines <= 16) return 64 * lines;
  const power = Math.ceil(Math.log2(lines)) - 1; // 2^power < lines ≤ 2^(power+1)
  const step = 2 ** (power - 4);
  return 64 * (2 ** power + Math.ceil((lines - 2 ** power) / step) * step);
}

class Counting extends Tensors<number> {
  readonly name = "reference";
  readonly description = "counts memory, computes nothing";
  readonly threads = 1;
  readonly limits = { memoryBytes: Number.MAX_SAFE_INTEGER };
  #bytes = 0;
  #peak = 0;

  bytesInUse(): number {
    return this.#bytes;
  }

  takePeakBytes(): number {
    const peak = this.#peak;
    this.#peak = this.#bytes;
    return peak;
  }

  forward(name: KernelName, args: readonly unknown[]): Tensor[] {
    this.inputs(name, args);
    const outputs = (kernels[name] as Kernel).outputs(...args);
    return outputs.map(({ shape, format }) => this.#take(shape, format, 4 * sizeOf(shape)));
  }

  backward(
    name: KernelName,
    args: readonly unknown[],
    _outputs: readonly Tensor[],
    _dy: Tensor,
    wanted: readonly boolean[],
  ): (Tensor | null)[] {
    const inputs = this.inputs(name, args);
    return inputs.map(({ shape }, i) => (wanted[i] ? this.#take(shape, "f32", 4 * sizeOf(shape)) : null));
  }

  procedure(name: string, args: readonly unknown[]): void {
    this.inputs(name, args);
    (procedures[name as ProcedureName] as Procedure).check(...args);
  }

  protected uploadPlain(value: HostTensor): Tensor {
    return this.#take(value.shape, value.format, 4 * sizeOf(value.shape));
  }

  protected uploadPacked(value: Weight): Tensor {
    return this.#take(value.shape, onlyPart(value).format, bytesOf(value));
  }

  protected uploadCodebook(shape: readonly number[], { codes, book, scales }: BookOfCodes): Tensor {
    const floats = book.data.byteLength + (scales?.data.byteLength ?? 0);
    return this.#take(shape, "codebook", codes.bytes.byteLength + floats);
  }

  zeros(shape: readonly number[], format = "f32", { paged = false }: ZerosOptions = {}): Tensor {
    if (paged) return this.make(shape, format, 0, null);
    if (format !== "f32" && format !== "i32") {
      throw new UnsupportedError(`zeros: the memory of a cache in ${format} is not counted; use f32`);
    }
    return this.#take(shape, format, 4 * sizeOf(shape));
  }

  async read(t: Tensor): Promise<Elements> {
    const { shape, format } = this.elements("read", t);
    return format === "i32" ? new Int32Array(sizeOf(shape)) : new Float32Array(sizeOf(shape));
  }

  write(t: Tensor, _data: Elements): void {
    this.elements("write", t);
  }

  supports(): boolean {
    return true;
  }

  dispose(): void {}

  protected release(t: Handle<number>): void {
    this.#bytes -= t.memory;
  }

  /** A view owns nothing. */
  protected part(): number {
    return 0;
  }

  #take(shape: readonly number[], format: string, bytes: number): Tensor {
    const size = blockBytes(bytes);
    this.#bytes += size;
    this.#peak = Math.max(this.#peak, this.#bytes);
    return this.make(shape, format, size, null);
  }
}
