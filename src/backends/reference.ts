import { lookUp, scaleGroups } from "../formats/codebook.ts";
import { partOf } from "../formats/format.ts";
import { checkParts, decode, formatByName, formats, partBytes } from "../formats/index.ts";
import { activationGroup } from "../formats/levels.ts";
import { type KernelName, kernels, type ProcedureName, procedures } from "../kernels/index.ts";
import type { Kernel, Procedure, View } from "../kernels/kernel.ts";
import { asMatrix, decodedView, elementsView, packedView } from "../kernels/view.ts";
import {
  type Elements,
  type HostTensor,
  hostTensor,
  type Matrix,
  ShapeError,
  sizeOf,
  type Tensor,
  UnsupportedError,
} from "../tensor/tensor.ts";
import { onlyPart, type Parts, type Weight } from "../tensor/weight.ts";
import type { Backend, UploadOptions, ZerosOptions } from "./backend.ts";
import {
  type Handle,
  isElements,
  needCache,
  notPaged,
  Tensors,
  takesPacked,
  withOperations,
} from "./facade.ts";
import type { BookOfCodes } from "./parts.ts";

/** A packed matrix: as it was uploaded, with the view that keeps its floats; or a cache, whose parts change. */
interface Packed {
  readonly parts: Parts;
  readonly view?: View;
}

type Memory = Elements | Packed;

/**
 * The plain TypeScript kernels, one element at a time, sums in 64 bits: what
 * the other backends are tested against. It runs everywhere and is slow.
 */
class Reference extends Tensors<Memory> {
  readonly name = "reference";
  readonly description = "plain TypeScript, 1 thread";
  readonly threads = 1;
  readonly limits = { memoryBytes: Number.MAX_SAFE_INTEGER };
  #bytes = 0;

  /** Memory of the tensors that are alive, views not counted twice. */
  bytesInUse(): number {
    return this.#bytes;
  }

  forward(name: KernelName, args: readonly unknown[]): Tensor[] {
    const kernel = kernels[name] as Kernel;
    const inputs = this.inputs(name, args).map(viewOf);
    const outputs = kernel.outputs(...args).map(({ shape, format }) => this.#make(shape, format));
    kernel.forward(inputs, outputs.map(viewOf), kernel.numbers(...args));
    return outputs;
  }

  backward(
    name: KernelName,
    args: readonly unknown[],
    outputs: readonly Tensor[],
    dy: Tensor,
    wanted: readonly boolean[],
  ): (Tensor | null)[] {
    const kernel = kernels[name] as Kernel;
    const inputs = this.inputs(name, args);
    const made = outputs.map((t) => this.handle(name, t));
    const seed = this.elements(name, dy);
    if (sizeOf(seed.shape) !== sizeOf(made[0].shape)) {
      throw new ShapeError(
        `${name}: dy needs the shape of the result, ${made[0].shape.join("×")}, got ${seed.shape.join("×")}`,
      );
    }
    const gradients = inputs.map((t, i) => {
      if (!wanted[i]) return null;
      if (t.format !== "f32" || !kernel.differentiable.includes(i)) {
        throw new UnsupportedError(`${name}: argument ${i} (${t.format}) has no gradient`);
      }
      return this.#make(t.shape, "f32");
    });
    kernel.backward(
      inputs.map(viewOf),
      made.map(viewOf),
      viewOf(seed),
      gradients.map((t) => t && viewOf(t)),
      kernel.numbers(...args),
    );
    return gradients;
  }

  procedure(name: string, args: readonly unknown[]): void {
    const procedure = procedures[name as ProcedureName] as Procedure;
    const tensors = this.inputs(name, args).map(viewOf);
    procedure.check(...args);
    procedure.run(tensors, procedure.numbers(...args));
  }

  protected uploadPlain(value: HostTensor): Tensor {
    return this.#keepBytes(this.make(value.shape, value.format, value.data.slice()));
  }

  protected uploadCodebook(
    shape: readonly number[],
    { codes, codeBits, book, down, scales }: BookOfCodes,
  ): Tensor {
    const floats = (m: Matrix) => partOf("f32", [m.rows, m.cols], m.data);
    const parts = { codes, book: floats(book), ...(scales && { scales: floats(scales) }) };
    const whole = () => scaleGroups(lookUp(codes, codeBits, book, shape[0], shape[1], down), scales).data;
    return this.#keepBytes(
      this.make(shape, "codebook", { parts, view: decodedView(shape, "codebook", whole) }),
    );
  }

  protected uploadPacked(value: Weight, { activations }: UploadOptions): Tensor {
    const { format: name, parts } = onlyPart(value);
    const format = formatByName(name);
    const [rows, cols] = asMatrix(value.shape);
    checkParts(format, parts, rows, cols);
    const memory =
      name === "f32"
        ? decode(format, parts, rows, cols).slice()
        : { parts, view: packedView(value.shape, name, parts) };
    const rounds = activations === "int8" && activationGroup(format) > 0;
    return this.#keepBytes(this.make(value.shape, name, memory, null, rounds ? "int8" : undefined));
  }

  zeros(shape: readonly number[], format = "f32", { paged = false }: ZerosOptions = {}): Tensor {
    if (paged) throw notPaged("reference");
    if (isElements(format)) return this.#make(shape, format);
    needCache(shape, format);
    const parts = formatByName(format)
      .parts(shape[0], shape[1])
      .map((spec) => [spec.name, { ...spec, bytes: new Uint8Array(partBytes(spec)) }]);
    return this.#keepBytes(this.make(shape, format, { parts: Object.fromEntries(parts) }));
  }

  async read(t: Tensor): Promise<Elements> {
    return (this.elements("read", t).memory as Elements).slice();
  }

  write(t: Tensor, data: Elements): void {
    const { shape, format, memory } = this.elements("write", t);
    if (hostTensor(shape, data).format !== format) {
      throw new ShapeError(`write: needs ${format} elements, got ${data.constructor.name}`);
    }
    (memory as Elements).set(data);
  }

  supports(operation: string, format: string): boolean {
    if (!(operation in kernels || operation in procedures)) return false;
    return isElements(format) || (takesPacked(operation, format) && formats.has(format));
  }

  dispose(): void {}

  protected release(t: Handle<Memory>): void {
    this.#bytes -= bytesOf(t.memory);
  }

  protected part(memory: Memory, from: number, length: number): Memory {
    return (memory as Elements).subarray(from, from + length);
  }

  #make(shape: readonly number[], format: "f32" | "i32"): Handle<Memory> {
    const size = sizeOf(shape);
    return this.#keepBytes(
      this.make(shape, format, format === "f32" ? new Float32Array(size) : new Int32Array(size)),
    );
  }

  #keepBytes(t: Handle<Memory>): Handle<Memory> {
    this.#bytes += bytesOf(t.memory);
    return t;
  }
}

/** The reference backend; see `Reference`. */
export function openReference(): Backend & { bytesInUse(): number } {
  return withOperations(new Reference());
}

function viewOf({ shape, format, memory }: Handle<Memory>): View {
  if (ArrayBuffer.isView(memory)) return elementsView(shape, memory);
  return memory.view ?? packedView(shape, format, memory.parts);
}

function bytesOf(memory: Memory): number {
  if (ArrayBuffer.isView(memory)) return memory.byteLength;
  return Object.values(memory.parts).reduce((bytes, part) => bytes + part.bytes.byteLength, 0);
}
