import { afterAll, expect, test } from "vitest";
import { openBackend } from "../backends/index.ts";
import { openReference } from "../backends/reference.ts";
import { generator, normals } from "../tensor/random.ts";
import { hostTensor, sizeOf } from "../tensor/tensor.ts";
import { openOptimizer } from "./index.ts";
import { optimizerSchema } from "./options.ts";

const native = await openBackend({ backend: "native", threads: 2 }).catch(() => undefined);
afterAll(() => native?.dispose());

test.skipIf(!native || process.platform === "win32").each(["adamw", "adamw8", "adamw4", "collage", "muon"])(
  "%s: states in paged memory are those in memory, bit for bit, also after a reset",
  async (name) => {
    const shapes = [[96, 64], [64]];
    const run = async (paged: boolean) => {
      const random = generator(3);
      const floats = (shape: readonly number[]) =>
        native!.keep(native!.upload(hostTensor(shape, normals(random, sizeOf(shape)))));
      const parameters = shapes.map((shape) => ({
        tensor: floats(shape),
        decays: true,
        role: shape.length === 2 ? ("linear" as const) : ("norm" as const),
      }));
      const optimizer = openOptimizer(native!, parameters, optimizerSchema.parse({ name, paged }));
      const values: number[] = [];
      for (let step = 1; step <= 3; step++) {
        if (step === 3) optimizer.reset();
        optimizer.step(shapes.map(floats), step, 0.01, 0.1);
        for (const [i, { tensor }] of parameters.entries()) {
          for (const t of [tensor, ...Array.from(optimizer.state(i), ([, state]) => state)])
            values.push(...(await native!.read(t)));
        }
      }
      optimizer.dispose();
      return values;
    };
    expect(await run(true)).toEqual(await run(false));
  },
);

test("a backend without paged memory refuses, and names one that has it", () => {
  const backend = openReference();
  const tensor = backend.zeros([4]);
  const open = () =>
    openOptimizer(backend, [{ tensor, decays: true, role: "norm" }], optimizerSchema.parse({ paged: true }));
  expect(open).toThrow("reference: has no memory that can be written out to a file; use native");
});
