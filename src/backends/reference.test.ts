import { expect, test } from "vitest";
import { exactForward, exactTensor, exactValues, exactView } from "../kernels/exact.suite.ts";
import { type KernelName, kernels } from "../kernels/index.ts";
import { type Kernel, tensorsIn, type View } from "../kernels/kernel.ts";
import { generator, normals } from "../tensor/random.ts";
import { type HostTensor, sizeOf } from "../tensor/tensor.ts";
import { backendSuite } from "./backend.suite.ts";
import { type Case, kernelCases } from "./cases.suite.ts";
import { openReference } from "./reference.ts";

backendSuite("reference", async () => openReference());

/** Larger ones differ from these in nothing that a derivative could miss. */
const MOST_ELEMENTS = 3000;
const H = 2 ** -13;

/** Operations that round: their gradients pass straight through by definition, and are checked by their papers' rules. */
const rounds: ReadonlySet<KernelName> = new Set([
  "ternary",
  "binary",
  "sign",
  "half",
  "learnedStep",
  "nested",
  "roundRows",
  "snap",
]);
const smooth = kernelCases().filter(
  ({ name, args }) =>
    !rounds.has(name) &&
    args.every((a) => typeof a === "number" || sizeOf(a.shape) <= MOST_ELEMENTS) &&
    !(name === "matchStates" && hasZeroRow(args[0] as HostTensor)), // the direction of 0 jumps
);
for (const [name, cases] of Map.groupBy(smooth, (one) => one.name)) {
  test(`${name}: gradients agree with central differences in 64 bits`, () => {
    for (const one of cases) checkGradients(one);
  });
}

function hasZeroRow({ shape, data }: HostTensor): boolean {
  const [rows, cols] = shape;
  return Array.from({ length: rows }, (_, r) => data.subarray(r * cols, (r + 1) * cols)).some((row) =>
    row.every((v) => v === 0),
  );
}

/**
 * A central difference D(h) of s = Σ dy⊙y is off by s‴h²/6 + O(h⁴), which
 * D(2h) − D(h) exceeds three times, and by the roundings of s, each of 2⁻⁵³ of
 * what is summed, over h.
 */
function checkGradients({ name, label, args }: Case): void {
  const kernel = kernels[name] as Kernel;
  const exact = args.map((a) => (typeof a === "number" ? a : exactTensor(a as HostTensor)));
  const inputs = tensorsIn(exact) as View[];
  const outputs = exactForward(name, exact);
  const random = generator(11);
  const dy = exactView(outputs[0].shape, normals(random, sizeOf(outputs[0].shape)));
  const gradients = inputs.map(({ shape }, i) =>
    kernel.differentiable.includes(i) ? exactView(shape, new Float64Array(sizeOf(shape))) : null,
  );
  kernel.backward(inputs, outputs, dy, gradients, kernel.numbers(...exact));

  /** Σ dy⊙y and Σ |dy⊙y|; NaN rows (an id outside the table) count as nothing. */
  const scalar = () => {
    const terms = exactValues(exactForward(name, exact)[0]).map((y, i) =>
      Number.isNaN(y) ? 0 : y * dy.data[i],
    );
    return { sum: terms.reduce((a, b) => a + b, 0), size: terms.reduce((a, b) => a + Math.abs(b), 0) };
  };
  for (const [i, gradient] of gradients.entries()) {
    if (!gradient) continue;
    const x = inputs[i].data;
    for (let draw = 0; draw < Math.min(5, x.length); draw++) {
      const at = Math.floor(random() * x.length);
      const value = x[at];
      const h = H * Math.max(2 ** -10, Math.min(1, Math.abs(value)));
      const slope = (step: number) => {
        x[at] = value + step;
        const up = scalar().sum;
        x[at] = value - step;
        const down = scalar().sum;
        x[at] = value;
        return (up - down) / (2 * step);
      };
      const [narrow, wide] = [slope(h), slope(2 * h)];
      const rounding = (1000 * 2 ** -53 * scalar().size) / h;
      const tolerance = Math.abs(wide - narrow) + rounding + 1e-12;
      const distance = Math.abs(gradient.data[at] - narrow);
      expect(
        distance,
        `${name}, ${label}: gradient ${i}[${at}] ${gradient.data[at]}, ${narrow}`,
      ).toBeLessThan(tolerance);
    }
  }
}
