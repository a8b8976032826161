import { describe, expect, test } from "vitest";
import { openReference } from "../backends/reference.ts";
import { exactOperations, exactTensor, exactValues } from "../kernels/exact.suite.ts";
import { bf16Operations, type Operations } from "../kernels/index.ts";
import { gamma } from "../kernels/kernel.ts";
import { generator } from "../tensor/random.ts";
import { type HostTensor, hostTensor, sizeOf, type Tensor, UnsupportedError } from "../tensor/tensor.ts";
import {
  block,
  dim,
  hostData,
  losses,
  mapTensors,
  type Run,
  randomParameters,
  tokens,
} from "./small-model.suite.ts";
import { Tape } from "./tape.ts";

const backend = openReference();
const data = mapTensors(hostData, (t) => backend.upload(t));
const weights = [0.5, -1, 2, 0.25, 1, 1, 1.5, -0.5, 1, 0.75];
const seed = backend.upload(hostTensor([tokens], Float32Array.from(weights)));

const upload = (t: HostTensor) => backend.upload(t);

/** Gradients of Σ seed⊙losses by parameter name, from `passes` equal micro-batches. */
async function gradients(
  values: Record<string, HostTensor>,
  useSegments: boolean,
  passes = 1,
  wrap: (tape: Tape) => Operations = (tape) => tape,
): Promise<Record<string, Float32Array>> {
  const w = mapTensors(values, upload);
  const tape = new Tape(backend, Object.values(w));
  const segment: Run = useSegments ? (body) => tape.segment(body) : (body) => body();
  for (let pass = 0; pass < passes; pass++) {
    backend.scope(() => {
      tape.backward(losses(wrap(tape), w, data, segment), seed);
    });
  }
  const result: Record<string, Float32Array> = {};
  for (const [name, parameter] of Object.entries(w)) {
    result[name] = (await backend.read(tape.gradients.get(parameter)!)) as Float32Array;
  }
  tape.clear();
  return result;
}

describe("tape", () => {
  // The scalar of the differences is exact; what remains are some hundred roundings of the tape's float32 gradients.
  test("two blocks with a shared embedding agree with finite differences", async () => {
    const values = randomParameters(1);
    const tapes = await gradients(values, false);
    const exact = exactOperations();
    const exactData = mapTensors(hostData, exactTensor);
    const tensors = mapTensors(values, exactTensor);
    const scalar = () => {
      const each = exactValues(losses(exact, tensors, exactData));
      return each.reduce((sum, loss, t) => sum + loss * weights[t], 0);
    };
    const random = generator(2);
    for (const [name, gradient] of Object.entries(tapes)) {
      const x = exactValues(tensors[name]);
      const largest = gradient.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
      for (let draw = 0; draw < 6; draw++) {
        const at = Math.floor(random() * x.length);
        const value = x[at];
        const slope = (h: number) => {
          x[at] = value + h;
          const up = scalar();
          x[at] = value - h;
          const down = scalar();
          x[at] = value;
          return (up - down) / (2 * h);
        };
        const [narrow, wide] = [slope(2 ** -12), slope(2 ** -11)];
        // The error of the narrow slope is a third of the difference between the two, to leading order.
        const tolerance = Math.abs(wide - narrow) + gamma(200) * largest;
        expect(Math.abs(gradient[at] - narrow), `${name}[${at}]`).toBeLessThan(tolerance);
      }
    }
  });

  test("segments give the same gradients, bit for bit", async () => {
    const values = randomParameters(3);
    expect(await gradients(values, true)).toEqual(await gradients(values, false));
  });

  // The reference computes the same with or without BF16.
  test("operations that allow BF16 are remembered as the tape's own", async () => {
    const values = randomParameters(3);
    expect(await gradients(values, true, 1, bf16Operations)).toEqual(await gradients(values, false));
  });

  test("gradients of two micro-batches add up", async () => {
    const values = randomParameters(4);
    const [one, two] = [await gradients(values, false), await gradients(values, true, 2)];
    for (const [name, array] of Object.entries(one)) {
      const doubled = array.map((value) => 2 * value);
      // The embedding is used twice in each pass, so that the order of its four sums differs.
      if (name !== "embedding") expect(two[name]).toEqual(doubled);
      else for (const [at, value] of doubled.entries()) expect(two[name][at]).toBeCloseTo(value, 5);
    }
  });

  test("backward frees all but the gradients, and clear frees those", () => {
    const w = mapTensors(randomParameters(5), upload);
    const parameters = Object.values(w);
    const before = backend.bytesInUse();
    const tape = new Tape(backend, parameters);
    for (const segment of [(body: () => Tensor) => body(), (body: () => Tensor) => tape.segment(body)]) {
      const loss = losses(tape, w, data, segment);
      tape.backward(loss, seed);
      backend.free(loss);
      const gradientBytes = parameters.reduce((bytes, { shape }) => bytes + 4 * sizeOf(shape), 0);
      expect(backend.bytesInUse() - before).toBe(gradientBytes);
      tape.clear();
      expect(backend.bytesInUse()).toBe(before);
    }
  });

  test("segments keep only their results until the backward pass", () => {
    const w = mapTensors(randomParameters(6), upload);
    const before = backend.bytesInUse();
    const tape = new Tape(backend, Object.values(w));
    const x = tape.embedding(w.embedding, data.ids);
    const y = tape.segment(() => block(tape, 0, x, w, data.table));
    expect(backend.bytesInUse() - before).toBe(2 * 4 * tokens * dim);
    tape.backward(y, x);
    tape.clear();
    backend.free(y);
    expect(backend.bytesInUse()).toBe(before);
  });

  test("only what leads from a parameter is remembered", async () => {
    const [a, b] = [1, 2].map((value) => backend.upload(hostTensor([2], Float32Array.of(value, value))));
    const tape = new Tape(backend, [a]);
    const frozen = tape.add(b, b);
    const sum = tape.add(tape.add(a, frozen), a);
    tape.backward(sum, b);
    expect(await backend.read(tape.gradients.get(a)!)).toEqual(Float32Array.of(4, 4));
    expect(await backend.read(frozen)).toEqual(Float32Array.of(4, 4));
    expect(tape.gradients.size).toBe(1);
    tape.clear();
  });

  test("what would lose a gradient is refused", () => {
    const w = backend.zeros([4, 3]);
    const tape = new Tape(backend, [w]);
    const y = tape.add(w, w);
    expect(() => tape.add(backend.rows(y, 0, 2), backend.rows(y, 2, 4))).toThrow(UnsupportedError);
    expect(() => tape.backward(backend.add(w, w), w)).toThrow(UnsupportedError);
    tape.clear();
  });
});
