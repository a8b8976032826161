import { describe, expect, test } from "vitest";
import { encode, formatByName } from "../formats/index.ts";
import { generator, normals } from "../tensor/random.ts";
import { hostTensor, InputError, matrix, type Tensor, UnsupportedError } from "../tensor/tensor.ts";
import { packedWeight } from "../tensor/weight.ts";
import type { HeapBackend } from "./heap.ts";
import { native } from "./native.ts";
import { wasm } from "./wasm.ts";

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

  test("is not touched through a tensor that was freed", async () => {
    const backend = await open();
    const x = backend.zeros([4]);
    const view = backend.reshape(x, [2, 2]);
    backend.free(x);
    expect(() => backend.add(x, x)).toThrow(InputError);
    expect(() => backend.free(x)).toThrow("was freed");
    expect(await backend.read(view)).toEqual(new Float32Array(4));
    backend.dispose();
  });
});

test("WebAssembly memory grows under living tensors, to its limit", async () => {
  const backend = await wasm({ threads: 2 });
  const first = backend.upload(ones(1000));
  const held: Tensor[] = [];
  expect(() => {
    for (;;) held.push(backend.reshape(backend.zeros([2 ** 26]), [2 ** 13, 2 ** 13]));
  }).toThrow(/wasm: needs 268435456 bytes more/);
  // 4 GiB less what the module itself holds; the blocks are 256 MiB.
  expect(held.length).toBe(15);
  const last = backend.rows(held[held.length - 1], 2 ** 13 - 1, 2 ** 13);
  backend.fill(last, 3);
  expect((await backend.read(last))[2 ** 13 - 1]).toBe(3);
  expect(await backend.read(backend.add(first, first))).toEqual(new Float32Array(1000).fill(2));
  backend.dispose();
});
