import { isCacheFormat } from "../kernels/cache-append.ts";
import { isCompound, needWhole, tensorsOf } from "../kernels/compound.ts";
import {
  type KernelName,
  kernels,
  type Operations,
  operationsOver,
  type Procedures,
  procedures,
} from "../kernels/index.ts";
import { type Kernel, matrixShape, type Procedure } from "../kernels/kernel.ts";
import {
  type HostTensor,
  InputError,
  ShapeError,
  sizeOf,
  type Tensor,
  UnsupportedError,
} from "../tensor/tensor.ts";
import type { Weight } from "../tensor/weight.ts";
import type { UploadOptions } from "./backend.ts";
import { type BookOfCodes, uploadWeight } from "./parts.ts";

/** A tensor of one backend: what it is, and where it lives (`Memory` is an address, or a typed array). */
export class Handle<Memory> implements Tensor {
  readonly shape: readonly number[];
  readonly format: string;
  readonly memory: Memory;
  readonly activations?: "int8";
  /** The tensor whose storage this one is a view of; kept alive by it. */
  readonly base: Handle<Memory> | null;
  readonly owner: object;
  /** False once freed: using it then is an error. */
  alive = true;
  /** Itself while alive, and each living view of it. */
  references = 1;
  /** The scope that will free it, and its place there; null when it was kept or made outside every scope. */
  scope: Handle<Memory>[] | null = null;
  place = 0;
  /** Its place in its backend's list of what owns memory, where there is one. */
  owned = 0;

  constructor(
    owner: object,
    shape: readonly number[],
    format: string,
    memory: Memory,
    base: Handle<Memory> | null,
    activations?: "int8",
  ) {
    this.owner = owner;
    this.shape = shape;
    this.format = format;
    this.memory = memory;
    this.base = base;
    this.activations = activations;
  }
}

/** What operations say of their arguments; procedures have no packed matrices, and `integers` in the place of ids. */
const reads: ReadonlyMap<string, Pick<Kernel, "ids" | "packed" | "caches"> & Pick<Procedure, "integers">> =
  new Map(Object.entries({ ...procedures, ...kernels } as object));

/** Whether an operation takes a matrix, or a cache, in a packed format. */
export function takesPacked(operation: string, format: string): boolean {
  const { packed, caches } = reads.get(operation) ?? {};
  return packed !== undefined || (caches !== undefined && isCacheFormat(format));
}

export function isElements(format: string): format is "f32" | "i32" {
  return format === "f32" || format === "i32";
}

/** Throws unless `zeros` can make a tensor of this shape and format in paged memory. */
export function needElements(shape: readonly number[], format: string): void {
  if (!isElements(format) || !Number.isSafeInteger(4 * sizeOf(shape)))
    throw new UnsupportedError(`zeros: paged memory holds f32 and i32, got ${format} ${shape.join("×")}`);
}

export function notPaged(backend: string): UnsupportedError {
  return new UnsupportedError(
    `${backend}: has no memory that can be written out to a file; use native, or leave paged out`,
  );
}

/** Throws unless `zeros` can make a cache of this shape and format. */
export function needCache(shape: readonly number[], format: string): void {
  matrixShape(`zeros: ${format}`, { shape, format });
  if (!isCacheFormat(format)) {
    throw new UnsupportedError(`zeros: needs f32, i32 or the format of a cache, got ${format}; use upload`);
  }
}

/**
 * What every backend does alike: who frees which tensor, views, and the checks
 * that keep a wrong argument from being read as something else. A backend
 * extends it and says how memory is released and how a part of it is seen.
 */
export abstract class Tensors<Memory> {
  #scope: Handle<Memory>[] | null = null;

  /** Gives back the memory of a tensor that nothing uses any more; never called for views. */
  protected abstract release(t: Handle<Memory>): void;
  /** Copies plain elements to where the kernels are. */
  protected abstract uploadPlain(value: HostTensor): Tensor;
  /** The same for a matrix in one format, and for one of codes with their book. */
  protected abstract uploadPacked(value: Weight, options: UploadOptions): Tensor;
  protected abstract uploadCodebook(shape: readonly number[], value: BookOfCodes): Tensor;
  /** The memory of `length` elements from element `from` on, of an f32 or i32 tensor. */
  protected abstract part(memory: Memory, from: number, length: number): Memory;

  /** A new tensor, to be freed by the innermost scope. */
  protected make(
    shape: readonly number[],
    format: string,
    memory: Memory,
    base: Handle<Memory> | null = null,
    activations?: "int8",
  ): Handle<Memory> {
    const t = new Handle(this, shape, format, memory, base, activations);
    if (base) base.references++;
    this.#enter(t, this.#scope);
    return t;
  }

  /** The handle behind a tensor argument; an error says when it was freed or belongs elsewhere. */
  protected handle(where: string, t: unknown): Handle<Memory> {
    if (!(t instanceof Handle) || t.owner !== this) {
      needWhole(where, t);
      throw new InputError(`${where}: needs a tensor of this backend, got another's; upload it first`);
    }
    if (!t.alive) {
      throw new InputError(
        `${where}: tensor ${t.shape.join("×")} was freed; keep() it or return it from its scope`,
      );
    }
    return t;
  }

  /** The tensor arguments of an operation, each in a format that the operation reads there. */
  protected inputs(name: string, args: readonly unknown[]): Handle<Memory>[] {
    const { ids, integers, packed, caches } = reads.get(name)!;
    const handles: Handle<Memory>[] = [];
    for (let i = 0; i < args.length && typeof args[i] === "object"; i++) {
      const t = this.handle(name, args[i]);
      const format = i === ids || integers?.includes(i) ? "i32" : "f32";
      if (t.format !== format) {
        const mayPack = i === packed && t.format !== "i32";
        const isCache = caches?.includes(i) && isCacheFormat(t.format) && t.activations === undefined;
        if (!mayPack && !isCache) {
          const others =
            i === packed ? " or a packed matrix" : caches?.includes(i) ? ", f16, int8 or int4" : "";
          throw new UnsupportedError(
            `${name}: argument ${i} needs to be ${format === "i32" ? format : `f32${others}`}, got ${t.format}`,
          );
        }
      }
      handles.push(t);
    }
    return handles;
  }

  /** The handle of a tensor whose elements can be read, written or seen in part. */
  protected elements(where: string, t: Tensor): Handle<Memory> {
    const handle = this.handle(where, t);
    if (!isElements(handle.format)) {
      throw new UnsupportedError(`${where}: needs an f32 or i32 tensor, got ${handle.format}`);
    }
    return handle;
  }

  upload(value: HostTensor | Weight, options: UploadOptions = {}): Tensor {
    if ("data" in value) return this.uploadPlain(value);
    return uploadWeight(value, {
      plain: (host) => this.uploadPlain(host),
      packed: (weight) => this.uploadPacked(weight, options),
      codebook: (shape, book) => this.uploadCodebook(shape, book),
      free: (t) => this.free(t),
    });
  }

  rows(t: Tensor, from: number, to: number): Tensor {
    const whole = this.elements("rows", t);
    const [rows, ...rest] = whole.shape;
    if (!(Number.isInteger(from) && Number.isInteger(to) && 0 <= from && from <= to && to <= (rows ?? 0))) {
      throw new ShapeError(`rows: ${from} … ${to} are not rows of ${whole.shape.join("×")}`);
    }
    const width = sizeOf(rest);
    const memory = this.part(whole.memory, from * width, (to - from) * width);
    return this.make([to - from, ...rest], whole.format, memory, whole.base ?? whole);
  }

  reshape(t: Tensor, shape: readonly number[]): Tensor {
    const whole = this.elements("reshape", t);
    if (sizeOf(shape) !== sizeOf(whole.shape)) {
      throw new ShapeError(`reshape: ${whole.shape.join("×")} does not fit ${shape.join("×")}`);
    }
    return this.make(shape, whole.format, whole.memory, whole.base ?? whole);
  }

  scope<T>(body: () => T): T {
    const outer = this.#scope;
    const inner: Handle<Memory>[] = [];
    this.#scope = inner;
    try {
      const result = body();
      if (result instanceof Promise)
        throw new InputError("scope: needs a synchronous body; await outside it");
      this.#moveOut(result, outer);
      return result;
    } finally {
      this.#scope = outer;
      while (inner.length > 0) this.#free(inner[inner.length - 1]);
    }
  }

  keep<T extends Tensor>(t: T): T {
    for (const part of tensorsOf(t)) this.#leave(this.handle("keep", part));
    return t;
  }

  /** Frees a tensor now; its memory goes when its last view has gone too. Of a compound, all that it is made of. */
  free(t: Tensor): void {
    if (isCompound(t)) for (const part of tensorsOf(t)) this.#free(this.handle("free", part));
    else this.#free(this.handle("free", t));
  }

  segment(body: () => Tensor): Tensor {
    return body();
  }

  #enter(t: Handle<Memory>, scope: Handle<Memory>[] | null): void {
    t.scope = scope;
    if (scope) t.place = scope.push(t) - 1;
  }

  #leave(t: Handle<Memory>): void {
    if (!t.scope) return;
    const last = t.scope.pop()!;
    if (last !== t) {
      t.scope[t.place] = last;
      last.place = t.place;
    }
    t.scope = null;
  }

  #free(t: Handle<Memory>): void {
    this.#leave(t);
    t.alive = false;
    this.#drop(t);
  }

  #drop(t: Handle<Memory>): void {
    if (--t.references > 0) return;
    if (t.base) this.#drop(t.base);
    else this.release(t);
  }

  /** Hands the tensors in a result over to the outer scope. Those of still outer scopes stay where they are. */
  #moveOut(result: unknown, outer: Handle<Memory>[] | null): void {
    if (result instanceof Handle) {
      if (result.owner !== this || result.scope !== this.#scope) return;
      this.#leave(result);
      this.#enter(result, outer);
    } else if (Array.isArray(result)) {
      for (const member of result) this.#moveOut(member, outer);
    } else if (
      result !== null &&
      typeof result === "object" &&
      Object.getPrototypeOf(result) === Object.prototype
    ) {
      for (const member of Object.values(result)) this.#moveOut(member, outer);
    }
  }
}

/** What the operations stand on. */
interface Core {
  forward(name: KernelName, args: readonly unknown[]): Tensor[];
  /** Runs one of the operations in place. */
  procedure(name: string, args: readonly unknown[]): void;
  free(t: Tensor): void;
  scope<T>(body: () => T): T;
}

/**
 * Gives a backend its operations as methods, one for each name in the room of
 * kernels. A method returns the first output; the others, which only a
 * backward pass needs, are freed.
 */
export function withOperations<B extends Core>(core: B): B & Operations & Procedures {
  const operations = operationsOver(
    (name, args) => {
      const outputs = core.forward(name, args);
      for (let i = 1; i < outputs.length; i++) core.free(outputs[i]);
      return outputs[0];
    },
    (body) => core.scope(body),
  );
  const methods: Record<string, (...args: unknown[]) => unknown> = {};
  for (const name of Object.keys(procedures)) {
    methods[name] = (...args) => core.procedure(name, args);
  }
  return Object.assign(core, operations, methods as unknown as Procedures);
}
