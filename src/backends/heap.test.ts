import { readdirSync, readFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { describe, expect, test } from "vitest";
import { encode, formatByName } from "../formats/index.ts";
import { generator, normals } from "../tensor/random.ts";
import {
  hostTensor,
  InputError,
  matrix,
  ShapeError,
  type Tensor,
  UnsupportedError,
} from "../tensor/tensor.ts";
import { packedWeight } from "../tensor/weight.ts";
import type { HeapBackend } from "./heap.ts";
import { native } from "./native.ts";
import { wasm, wasmHeap } from "./wasm.ts";

// `native` counts the bytes of the whole process: nothing else runs in this file's process.
const backends: readonly (readonly [string, () => HeapBackend | Promise<HeapBackend>])[] = [
  ["native", () => native({ threads: 2 })],
  ["wasm", () => wasm({ threads: 2 })],
  ["wasm on one thread", () => wasm({ threads: 1 })],
];

const ones = (...shape: number[]) =>
  hostTensor(shape, new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(1));

describe.each(backends)("memory of %s", (_, open) => {
  test("is given back by scopes, whatever happens inside", async () => {
    const backend = await open();
    const before = backend.bytesInUse();
    const step = () => {
      const x = backend.upload(ones(300, 64));
      const w = backend.upload(ones(50, 64));
      const y = backend.linear(x, w);
      const [dx] = backend.backward("linear", [x, w], [y], y, [true, true]);
      return { part: backend.rows(dx!, 1, 3), y };
    };
    backend.scope(() => void step());
    expect(backend.bytesInUse()).toBe(before);

    expect(() =>
      backend.scope(() => {
        step();
        throw new Error("inside");
      }),
    ).toThrow("inside");
    expect(backend.bytesInUse()).toBe(before);

    const { part, y } = backend.scope(step);
    expect(await backend.read(part)).toEqual(new Float32Array(128).fill(50 * 64));
    backend.free(y);
    expect(backend.bytesInUse()).toBeGreaterThan(before);
    backend.free(part);
    expect(backend.bytesInUse()).toBe(before);
    backend.dispose();
  });

  test("is given back by scopes inside scopes, and by dispose", async () => {
    const backend = await open();
    const before = backend.bytesInUse();
    let kept: Tensor | undefined;
    backend.scope(() => {
      const outer = backend.zeros([1000]);
      const inner = backend.scope(() => {
        kept = backend.keep(backend.add(outer, outer));
        return [backend.add(outer, kept), outer];
      });
      expect(inner[1]).toBe(outer);
      expect(() => backend.add(inner[0], outer)).not.toThrow();
    });
    expect(await backend.read(kept!)).toEqual(new Float32Array(1000));
    backend.dispose();
    expect(backend.bytesInUse()).toBe(before);
    expect(() => backend.zeros([1])).toThrow("was disposed");
  });

  test("of a packed matrix holds all its parts, and goes with them", async () => {
    const backend = await open();
    const before = backend.bytesInUse();
    const format = formatByName("int4-offset-g32");
    const w = matrix(48, 64, normals(generator(1), 48 * 64));
    const packed = backend.upload(packedWeight([48, 64], format.name, encode(format, w)));
    expect(backend.bytesInUse() - before).toBeGreaterThanOrEqual(48 * 32 + 2 * 48 * 2 * 2);
    expect(() => backend.add(packed, packed)).toThrow(UnsupportedError);
    await expect(backend.read(packed)).rejects.toThrow(UnsupportedError);
    backend.free(packed);
    expect(backend.bytesInUse()).toBe(before);
    backend.dispose();
  });

  test("is reused: a step that repeats takes no more", async () => {
    const backend = await open();
    const addresses = new Set<number>();
    for (let i = 0; i < 20; i++) {
      backend.scope(() => {
        const x = backend.zeros([512, 300]) as Tensor & { memory: { address: number } };
        addresses.add(x.memory.address);
      });
    }
    expect(addresses.size).toBe(1);
    backend.dispose();
  });

  test("that there is not is a clear error, and nothing is lost", async () => {
    const backend = await open();
    const before = backend.bytesInUse();
    expect(() => backend.zeros([2 ** 24, 2 ** 24])).toThrow(/needs 1125899906842624 bytes more.*smaller/);
    expect(backend.bytesInUse()).toBe(before);
    backend.dispose();
  });

  test("takes no elements of another size", async () => {
    const backend = await open();
    const doubles = new Float64Array(4) as unknown as Float32Array;
    expect(() => backend.upload({ shape: [4], format: "f32", data: doubles })).toThrow(ShapeError);
    expect(() => backend.write(backend.zeros([4]), doubles)).toThrow(ShapeError);
    backend.dispose();
  });

  test("is not touched through a tensor that was freed", async () => {
    const backend = await open();
    const x = backend.zeros([4]);
    const view = backend.reshape(x, [2, 2]);
    backend.free(x);
    expect(() => backend.add(x, x)).toThrow(InputError);
    expect(() => backend.free(x)).toThrow("was freed");
    expect(await backend.read(view)).toEqual(new Float32Array(4));
    backend.dispose();
    await expect(backend.read(view)).rejects.toThrow("was disposed");
    expect(() => backend.write(view, new Float32Array(4))).toThrow("was disposed");
  });
});

test("a trap in a task ends the call, whichever thread met it, and the backend after it", async () => {
  for (let round = 0; round < 8; round++) {
    const { heap } = await wasmHeap({}, 2, () => {});
    const add = heap.names.indexOf("add");
    const n = 16 * 4096;
    const y = heap.allocate(4 * n);
    heap.commands.set([y, 0, y, 0, y, 0, n]);
    heap.run(add); // so that the worker is awake
    // Tasks of 4096 elements (add.cpp): what the last one reads lies beyond the memory, which has not grown yet.
    const x = heap.commands.buffer.byteLength - 4 * (n - 4096);
    heap.commands.set([x, 0, x, 0, y, 0, n]);
    expect(() => heap.run(add)).toThrow(WebAssembly.RuntimeError);
    expect(() => heap.run(heap.names.indexOf("fill"))).toThrow("open another backend");
    heap.close();
  }
});

test.each([1, 2])(
  "WebAssembly memory grows under living tensors, to its limit, %i threads",
  async (threads) => {
    const { heap } = await wasmHeap({}, threads, () => {});
    const first = heap.allocate(8);
    heap.copyIn(first, Float64Array.of(Math.PI));
    // Blocks of 256 MiB, never touched but for the last element: 4 GiB less what the module itself holds.
    const bytes = 2 ** 28;
    const addresses: number[] = [];
    for (let address: number; (address = heap.allocate(bytes)) !== 0; ) addresses.push(address);
    expect(addresses.length).toBe(15);
    expect(Math.max(...addresses)).toBeGreaterThan(3.5 * 2 ** 30);
    const last = addresses[addresses.length - 1] + bytes - 8;
    heap.copyIn(last, Float64Array.of(2, 3).subarray(1));
    heap.commands.set([last, 0, 2, 5]);
    heap.run(heap.names.indexOf("fill"));
    const got = new Float32Array(2);
    heap.copyOut(last, got);
    expect(got).toEqual(Float32Array.of(5, 5));
    const pi = new Float64Array(1);
    heap.copyOut(first, pi);
    expect(pi[0]).toBe(Math.PI);

    // What was given back is joined again: one block of the size of all serves.
    for (const address of addresses) heap.release(address, bytes);
    expect(heap.allocate(14 * bytes)).not.toBe(0);
    heap.close();
  },
);

test.skipIf(process.platform === "win32")(
  "paged memory of native is a file's that nobody sees, and is not counted",
  async () => {
    const backend = native({ threads: 1 });
    const before = backend.bytesInUse();
    const t = backend.zeros([1000, 70], "i32", { paged: true });
    expect(backend.bytesInUse()).toBe(before);
    expect(await backend.read(t)).toEqual(new Int32Array(70000));
    const values = Int32Array.from({ length: 70000 }, (_, i) => i);
    backend.write(t, values);
    const view = backend.rows(t, 999, 1000);
    expect(await backend.read(view)).toEqual(values.subarray(69930));
    backend.free(view);
    const mapped = () => readFileSync("/proc/self/maps", "utf8").includes("lowbit-pages");
    if (process.platform === "linux") expect(mapped()).toBe(true);
    expect(readdirSync(tmpdir()).filter((name) => name.startsWith("lowbit-pages"))).toEqual([]);
    backend.free(t);
    if (process.platform === "linux") expect(mapped()).toBe(false);
    backend.zeros([0], "f32", { paged: true });
    backend.zeros([5], "f32", { paged: true });
    backend.dispose();
    if (process.platform === "linux") expect(mapped()).toBe(false);
  },
);

test("paged memory that there is not is a clear error", async () => {
  const backend = native({ threads: 1 });
  expect(() => backend.zeros([4, 32], "int4-g32", { paged: true })).toThrow("paged memory holds f32 and i32");
  const folder = process.env.TMPDIR;
  process.env.TMPDIR = "/nowhere";
  try {
    expect(() => backend.zeros([4], "f32", { paged: true })).toThrow(/no room for 16 bytes.*set TMPDIR/);
  } finally {
    if (folder === undefined) delete process.env.TMPDIR;
    else process.env.TMPDIR = folder;
  }
  backend.dispose();
  const other = await wasm({ threads: 1 });
  expect(() => other.zeros([4], "f32", { paged: true })).toThrow(
    "wasm: has no memory that can be written out",
  );
  other.dispose();
});
