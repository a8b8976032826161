import { groupWidth } from "../formats/codebook.ts";
import { type Format, groupSize } from "../formats/format.ts";
import { checkParts, decode, formatByName, formats, partBytes } from "../formats/index.ts";
import { activationGroup, levelBytes } from "../formats/levels.ts";
import { type KernelName, kernels, procedures } from "../kernels/index.ts";
import type { Kernel, Procedure } from "../kernels/kernel.ts";
import {
  type Elements,
  type HostTensor,
  ShapeError,
  sizeOf,
  type Tensor,
  UnsupportedError,
} from "../tensor/tensor.ts";
import { onlyPart, type Weight } from "../tensor/weight.ts";
import type { Backend, UploadOptions, ZerosOptions } from "./backend.ts";
import {
  type Handle,
  isElements,
  needCache,
  needElements,
  notPaged,
  Tensors,
  takesPacked,
  withOperations,
} from "./facade.ts";
import {
  bookKernel,
  choicesFor,
  fastestKernel,
  type IntegerKernel,
  integerKernels,
} from "./kernel-choice.ts";
import type { BookOfCodes } from "./parts.ts";

/** A view of memory that can be copied from or into. */
type Bytes = Uint8Array | Elements | Float64Array;

/** Memory with addresses and the C++ table behind it: what the addon and the WebAssembly module have in common. */
export interface Heap {
  /** Address of `bytes` bytes aligned to 64; 0 when there are none. */
  allocate(bytes: number): number;
  release(address: number, bytes: number): void;
  /** Zeros that the system may write out to a file; 0 where it does not. */
  allocatePaged?(bytes: number): number;
  releasePaged?(address: number, bytes: number): void;
  clear(address: number, bytes: number): void;
  copyIn(address: number, from: Bytes): void;
  copyOut(address: number, into: Bytes): void;
  /** Where the slots of abi.h are written; may be another array after memory grew. */
  readonly commands: Float64Array;
  /** Names of the C++ table, in order. */
  readonly names: readonly string[];
  /** Stems of the formats that it reads, by their numbers. */
  readonly formats: readonly string[];
  /** Runs an entry of the table on the commands. */
  run(entry: number): void;
  /** Bytes of all tensors, in this process or this memory. */
  bytesInUse(): number;
  /** The most that they were since the last call. */
  takePeakBytes(): number;
  readonly memoryBytes: number;
  close(): void;
}

export interface HeapDescription {
  readonly name: "native" | "wasm";
  readonly description: string;
  readonly threads: number;
  /** What matrices for int8 activations are multiplied by, where their format has it; default: what is fastest here. */
  readonly integerKernel?: IntegerKernel;
}

/** A backend over a heap. */
export type HeapBackend = Backend & {
  /** Memory that its tensors take. */
  bytesInUse(): number;
  /** The most that it was since the last call; native backends of one process share their memory and this count. */
  takePeakBytes(): number;
  /** What matrices of a format and int8 activations are multiplied by here; measured when nobody has before. */
  integerKernel(format: string): IntegerKernel;
};

export function heapBackend(heap: Heap, description: HeapDescription): HeapBackend {
  return withOperations(new HeapCore(heap, description));
}

/** The block of a tensor, what the kernels read there, and other blocks to give back with it. */
interface Place extends Block {
  /** Of `allocatePaged`. */
  readonly paged?: boolean;
  /** Number of the format in formats.h. */
  readonly format: number;
  readonly others: readonly Block[];
}

interface Block {
  readonly address: number;
  readonly bytes: number;
}

interface Entry {
  readonly kernel: Kernel;
  readonly forward: number;
  readonly backward: number;
}

const NO_BLOCKS: readonly Block[] = [];

/** Doubles of a descriptor of a packed matrix, `Packed` in abi.h: format, rows, cols, group, four parts, panels, activations, kernel. */
const DESCRIPTOR = 11;
const PARTS = 4;
const PANELS = 8;
const ACTIVATIONS = 9;
const KERNEL = 10;

/** Rows and columns of the matrix on which kernels are tried. */
const TRIAL = [2048, 2048] as const;
/** Matrices of fewer weights are multiplied by dot products, whatever is faster for larger ones. */
const SMALL = 65536;

class HeapCore extends Tensors<Place> {
  readonly name: "native" | "wasm";
  readonly description: string;
  readonly threads: number;
  readonly limits: { readonly memoryBytes: number };
  readonly #heap: Heap;
  readonly #integerKernel: IntegerKernel | undefined;
  /** Numbers of formats.h by stem. */
  readonly #formats: ReadonlyMap<string, number>;
  readonly #kernels = new Map<string, Entry>();
  readonly #procedures = new Map<string, { readonly procedure: Procedure; readonly entry: number }>();
  /** What owns memory, each at its `owned`, so that dispose() gives back what nobody freed. */
  readonly #living: Handle<Place>[] = [];
  #disposed = false;

  constructor(heap: Heap, description: HeapDescription) {
    super();
    this.name = description.name;
    this.description = description.description;
    this.threads = description.threads;
    this.limits = { memoryBytes: heap.memoryBytes };
    this.#heap = heap;
    this.#integerKernel = description.integerKernel;
    this.#formats = new Map(heap.formats.map((stem, number) => [stem, number]));
    const at = new Map(heap.names.map((name, i) => [name, i]));
    for (const [name, kernel] of Object.entries(kernels)) {
      const forward = at.get(name) ?? -1;
      const backward = at.get(`${name}Backward`) ?? -1;
      this.#kernels.set(name, { kernel: kernel as unknown as Kernel, forward, backward });
    }
    for (const [name, procedure] of Object.entries(procedures)) {
      const entry = at.get(name) ?? -1;
      this.#procedures.set(name, { procedure: procedure as unknown as Procedure, entry });
    }
  }

  forward(name: KernelName, args: readonly unknown[]): Tensor[] {
    const { kernel, forward } = this.#kernels.get(name)!;
    const inputs = this.inputs(name, args);
    const outputs: Handle<Place>[] = [];
    for (const { shape, format } of kernel.outputs(...args)) outputs.push(this.#fresh(shape, format));
    const slots = this.#heap.commands;
    const at = putAll(slots, putAll(slots, 0, inputs), outputs);
    this.#run(name, forward, at, kernel.numbers(...args), outputs);
    return outputs;
  }

  backward(
    name: KernelName,
    args: readonly unknown[],
    outputs: readonly Tensor[],
    dy: Tensor,
    wanted: readonly boolean[],
  ): (Tensor | null)[] {
    const { kernel, backward } = this.#kernels.get(name)!;
    const inputs = this.inputs(name, args);
    const made = outputs.map((output) => this.handle(name, output));
    const slope = this.elements(name, dy);
    if (slope.format !== "f32" || sizeOf(slope.shape) !== sizeOf(made[0].shape)) {
      throw new ShapeError(
        `${name}: dy needs to be f32 ${made[0].shape.join("×")}, got ${dy.format} ${dy.shape.join("×")}`,
      );
    }
    const gradients = inputs.map((input, i) => {
      if (!wanted[i]) return null;
      if (input.format !== "f32" || !kernel.differentiable.includes(i)) {
        throw new UnsupportedError(`${name}: argument ${i} (${input.format}) has no gradient`);
      }
      return this.#fresh(input.shape, "f32");
    });
    const slots = this.#heap.commands;
    let at = putAll(slots, putAll(slots, 0, inputs), made);
    at = putAll(slots, put(slots, at, slope), gradients);
    this.#run(`${name}Backward`, backward, at, kernel.numbers(...args), gradients);
    return gradients;
  }

  procedure(name: string, args: readonly unknown[]): void {
    const { procedure, entry } = this.#procedures.get(name)!;
    const tensors = this.inputs(name, args);
    procedure.check(...args);
    const at = putAll(this.#heap.commands, 0, tensors);
    this.#run(name, entry, at, procedure.numbers(...args), []);
  }

  protected uploadPlain(value: HostTensor): Tensor {
    if (value.data.byteLength !== 4 * sizeOf(value.shape)) {
      throw new ShapeError(
        `upload: ${value.shape.join("×")} needs ${sizeOf(value.shape)} values of 4 bytes, got ${value.data.byteLength} bytes`,
      );
    }
    const t = this.#fresh(value.shape, value.data instanceof Int32Array ? "i32" : "f32");
    this.#heap.copyIn(t.memory.address, value.data);
    return t;
  }

  protected uploadCodebook(
    shape: readonly number[],
    { codes, codeBits, book, down, scales }: BookOfCodes,
  ): Tensor {
    const [rows, cols] = shape;
    const group = scales ? groupWidth(scales, rows, cols) : cols;
    const head = [this.#formats.get("codebook")!, rows, cols, group];
    const layout = Int32Array.of(codeBits, book.cols, codes.shape[1], down ? 1 : 0, book.rows);
    const coded = { rows, cols, rowBytes: codes.shape[1], group, codeBits, book, down };
    return this.#placePacked(
      shape,
      "codebook",
      head,
      [codes.bytes, scales?.data ?? null, book.data, layout],
      0,
      bookKernel(coded, this.#integerKernel),
    );
  }

  protected uploadPacked(value: Weight, { activations }: UploadOptions): Tensor {
    const { format: name, parts } = onlyPart(value);
    const format = formatByName(name);
    const cols = value.shape[value.shape.length - 1] ?? 1;
    const rows = cols === 0 ? 0 : sizeOf(value.shape) / cols;
    checkParts(format, parts, rows, cols);
    if (name === "f32") return this.#placeFloats(value.shape, name, parts.data.bytes);
    const group = activations === "int8" ? activationGroup(format) : 0;
    const number = this.#formats.get(format.stem);
    if (number !== undefined) {
      const arrays = format.parts(rows, cols).map((part) => parts[part.name].bytes);
      const head = [number, rows, cols, groupSize(format, rows, cols)];
      const kernel =
        group === 0 ? "dot" : rows * cols < SMALL ? (this.#integerKernel ?? "dot") : this.integerKernel(name);
      return this.#placePacked(value.shape, name, head, arrays, group, kernel);
    }
    const levels = levelBytes(format, parts, rows, cols);
    if (!levels) return this.#placeFloats(value.shape, name, decode(format, parts, rows, cols));
    const arrays = [levels.codes, levels.scales, ...(levels.offsets ? [levels.offsets] : [])];
    const head = [this.#formats.get("codes")!, rows, cols, levels.group];
    return this.#placePacked(value.shape, name, head, arrays, group);
  }

  /** A matrix that the kernels see as float32, whatever it is called. */
  #placeFloats(shape: readonly number[], name: string, floats: Bytes): Tensor {
    const bytes = 4 * sizeOf(shape);
    const address = this.#allocate(bytes);
    this.#heap.copyIn(address, floats);
    return this.#own(shape, name, { address, bytes, format: 0, others: NO_BLOCKS });
  }

  /**
   * A descriptor, which begins with `head` (format, rows, cols, group), and the arrays that it leads to, a number being
   * as many bytes of zeros and null none at all; with a group of int8 activations, the panels that are made of them in their place.
   */
  #placePacked(
    shape: readonly number[],
    name: string,
    head: readonly number[],
    arrays: readonly (Bytes | number | null)[],
    activations: number,
    kernel: IntegerKernel = "dot",
  ): Tensor {
    const blocks: Block[] = [];
    try {
      const descriptor = new Float64Array(DESCRIPTOR);
      descriptor.set(head);
      descriptor[KERNEL] = integerKernels.indexOf(kernel);
      for (const [i, array] of arrays.entries()) {
        if (array === null) continue;
        const bytes = typeof array === "number" ? array : array.byteLength;
        const address = this.#allocate(bytes);
        blocks.push({ address, bytes });
        if (typeof array === "number") this.#heap.clear(address, array);
        else this.#heap.copyIn(address, array);
        descriptor[PARTS + i] = address;
      }
      const bytes = descriptor.byteLength;
      const address = this.#allocate(bytes);
      blocks.push({ address, bytes });
      this.#heap.copyIn(address, descriptor);
      if (activations > 0) this.#arrange(descriptor, activations, kernel, blocks);
      const others = blocks.filter((block) => block.address !== address);
      const place = { address, bytes, format: head[0], others };
      return this.#own(shape, name, place, activations > 0 ? "int8" : undefined);
    } catch (error) {
      for (const block of blocks) this.#heap.release(block.address, block.bytes);
      throw error;
    }
  }

  /** Replaces the blocks of parts by one of panels; the last block is the descriptor's own. */
  #arrange(descriptor: Float64Array, activations: number, kernel: IntegerKernel, blocks: Block[]): void {
    const { address } = blocks[blocks.length - 1];
    const run = (name: string) => {
      this.#heap.copyIn(address, descriptor);
      this.#run(name, this.#heap.names.indexOf(name), putAddress(this.#heap.commands, address), [], []);
      this.#heap.copyOut(address, descriptor);
    };
    descriptor[ACTIVATIONS] = activations;
    descriptor[KERNEL] = integerKernels.indexOf(kernel);
    run("arrangedBytes");
    const panels = this.#allocate(descriptor[PANELS]);
    blocks.push({ address: panels, bytes: descriptor[PANELS] });
    descriptor[PANELS] = panels;
    run("arrange");
    for (const part of blocks.splice(0, blocks.length - 2)) this.#heap.release(part.address, part.bytes);
    for (let i = PARTS; i < PANELS; i++) descriptor[i] = descriptor[i] === 0 ? 0 : 1;
    this.#heap.copyIn(address, descriptor);
  }

  integerKernel(name: string): IntegerKernel {
    if (this.#integerKernel) return this.#integerKernel;
    const format = formatByName(name);
    const activations = activationGroup(format);
    const fewBits = format.kind === "group" && format.codeCount <= 16;
    if (activations === 0 || !fewBits || !this.#formats.has(format.stem)) return "dot";
    const choices = choicesFor(`${this.name}, ${this.description}`);
    let choice = choices.get(name);
    if (!choice) {
      choice = this.#measure(format, activations);
      choices.set(name, choice);
    }
    return choice;
  }

  #measure(format: Format, activations: number): IntegerKernel {
    const [rows, cols] = TRIAL;
    const head = [this.#formats.get(format.stem)!, rows, cols, groupSize(format, rows, cols)];
    const sizes = format.parts(rows, cols).map(partBytes);
    const x = this.upload({ shape: [1, cols], format: "f32", data: new Float32Array(cols).fill(1) });
    const matrices: Tensor[] = [];
    try {
      const candidates = new Map<IntegerKernel, () => void>();
      for (const kernel of integerKernels) {
        const w = this.#placePacked(TRIAL, format.name, head, sizes, activations, kernel);
        matrices.push(w);
        if (kernel === this.#kernelOf(w)) {
          candidates.set(kernel, () => this.free(this.forward("linear", [x, w])[0]));
        }
      }
      return candidates.size > 1 ? fastestKernel(candidates) : "dot";
    } finally {
      for (const t of [x, ...matrices]) this.free(t);
    }
  }

  /** The one that a matrix was arranged for: not every format has each. */
  #kernelOf(w: Tensor): IntegerKernel {
    const descriptor = new Float64Array(DESCRIPTOR);
    this.#heap.copyOut(this.handle("linear", w).memory.address, descriptor);
    return integerKernels[descriptor[KERNEL]];
  }

  zeros(shape: readonly number[], format = "f32", { paged = false }: ZerosOptions = {}): Tensor {
    if (paged) return this.#paged(shape, format);
    if (!isElements(format)) {
      needCache(shape, format);
      const [rows, cols] = shape;
      const cache = formatByName(format);
      const head = [this.#formats.get(cache.stem)!, rows, cols, groupSize(cache, rows, cols)];
      return this.#placePacked(shape, format, head, cache.parts(rows, cols).map(partBytes), 0);
    }
    const t = this.#fresh(shape, format);
    this.#heap.clear(t.memory.address, 4 * sizeOf(shape));
    return t;
  }

  async read(t: Tensor): Promise<Elements> {
    const { memory, shape, format } = this.elements("read", t);
    const data = format === "i32" ? new Int32Array(sizeOf(shape)) : new Float32Array(sizeOf(shape));
    this.#heap.copyOut(memory.address, data);
    return data;
  }

  write(t: Tensor, data: Elements): void {
    const { memory, shape, format } = this.elements("write", t);
    const fits = data.byteLength === 4 * sizeOf(shape) && data instanceof Int32Array === (format === "i32");
    if (!fits) {
      throw new ShapeError(
        `write: ${format} ${shape.join("×")} needs ${sizeOf(shape)} values of its type, got ${data.length}`,
      );
    }
    this.#heap.copyIn(memory.address, data);
  }

  supports(operation: string, format: string): boolean {
    const kernel = this.#kernels.get(operation);
    const there = kernel ? kernel.forward >= 0 : (this.#procedures.get(operation)?.entry ?? -1) >= 0;
    if (!there || format === "f32") return there;
    return !isElements(format) && formats.has(format) && takesPacked(operation, format);
  }

  bytesInUse(): number {
    return this.#heap.bytesInUse();
  }

  takePeakBytes(): number {
    return this.#heap.takePeakBytes();
  }

  dispose(): void {
    if (this.#disposed) return;
    for (const t of this.#living) {
      t.alive = false;
      this.#release(t);
    }
    this.#living.length = 0;
    this.#disposed = true;
    this.#heap.close();
  }

  /** Views too: what they look into was given back by dispose(). */
  protected override handle(where: string, t: unknown): Handle<Place> {
    this.#needOpen();
    return super.handle(where, t);
  }

  #needOpen(): void {
    if (this.#disposed) throw new UnsupportedError(`${this.name}: this backend was disposed; open another`);
  }

  protected release(t: Handle<Place>): void {
    if (this.#disposed) return;
    const last = this.#living.pop()!;
    if (last !== t) {
      this.#living[t.owned] = last;
      last.owned = t.owned;
    }
    this.#release(t);
  }

  protected part({ address, format }: Place, from: number): Place {
    return { address: address + 4 * from, bytes: 0, format, others: NO_BLOCKS };
  }

  #release(t: Handle<Place>): void {
    const { address, bytes, paged } = t.memory;
    if (paged) this.#heap.releasePaged!(address, bytes);
    else this.#heap.release(address, bytes);
    for (const other of t.memory.others) this.#heap.release(other.address, other.bytes);
  }

  #own(shape: readonly number[], format: string, place: Place, activations?: "int8"): Handle<Place> {
    const t = this.make(shape, format, place, null, activations);
    t.owned = this.#living.push(t) - 1;
    return t;
  }

  #fresh(shape: readonly number[], format: "f32" | "i32"): Handle<Place> {
    const bytes = 4 * sizeOf(shape);
    const address = this.#allocate(bytes);
    return this.#own(shape, format, { address, bytes, format: format === "f32" ? 0 : 1, others: NO_BLOCKS });
  }

  #paged(shape: readonly number[], format: string): Tensor {
    this.#needOpen();
    needElements(shape, format);
    if (!this.#heap.allocatePaged) throw notPaged(this.name);
    const bytes = 4 * sizeOf(shape);
    const address = bytes === 0 ? 0 : this.#heap.allocatePaged(bytes);
    if (address === 0 && bytes > 0) {
      throw new UnsupportedError(
        `${this.name}: no room for ${bytes} bytes in a temporary file; make some, or set TMPDIR to a disk that has it`,
      );
    }
    const number = format === "f32" ? 0 : 1;
    return this.#own(shape, format, { address, bytes, format: number, paged: bytes > 0, others: NO_BLOCKS });
  }

  #allocate(bytes: number): number {
    this.#needOpen();
    const address = Number.isSafeInteger(bytes) ? this.#heap.allocate(bytes) : 0;
    if (address === 0) {
      throw new UnsupportedError(
        `${this.name}: needs ${bytes} bytes more, has ${this.#heap.bytesInUse()} of ${this.limits.memoryBytes} in use; ` +
          "use a smaller model or smaller batches",
      );
    }
    return address;
  }

  /** Runs an entry on the tensors in the slots before `at` and on these numbers; frees `outputs` when that fails. */
  #run(
    name: string,
    entry: number,
    at: number,
    numbers: readonly number[],
    outputs: readonly (Handle<Place> | null)[],
  ): void {
    try {
      if (entry < 0) {
        throw new UnsupportedError(`${this.name}: ${name} is not in this build; run npm install again`);
      }
      const slots = this.#heap.commands;
      for (let i = 0; i < numbers.length; i++) slots[at + i] = numbers[i];
      this.#heap.run(entry);
    } catch (error) {
      for (const output of outputs) if (output) this.free(output);
      throw error;
    }
  }
}

/** Two slots: the address and the number of the format. */
function put(slots: Float64Array, at: number, t: Handle<Place> | null): number {
  slots[at] = t ? t.memory.address : 0;
  slots[at + 1] = t ? t.memory.format : 0;
  return at + 2;
}

/** A tensor that has no handle yet. */
function putAddress(slots: Float64Array, address: number): number {
  slots[0] = address;
  slots[1] = 0;
  return 2;
}

function putAll(slots: Float64Array, at: number, tensors: readonly (Handle<Place> | null)[]): number {
  for (let i = 0; i < tensors.length; i++) at = put(slots, at, tensors[i]);
  return at;
}
