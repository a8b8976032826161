import { describe, expect, test } from "vitest";
import { openReference } from "../backends/reference.ts";
import { exactOperations, exactTensor, exactValues } from "../kernels/exact.suite.ts";
import type { Operations } from "../kernels/index.ts";
import { hostTensor, type Tensor } from "../tensor/tensor.ts";
import { errorBound } from "./error-bound.ts";
import {
  type Data,
  hidden,
  hostData,
  mapTensors,
  randomParameters,
  tokens,
  vocabulary,
} from "./small-model.suite.ts";

function logits(ops: Operations, w: Record<string, Tensor>, data: Data): Tensor {
  return ops.linear(hidden(ops, w, data), w.embedding);
}

describe("errorBound", () => {
  test("float32 logits are within it of exact ones, and it is not far from them", async () => {
    const backend = openReference();
    for (const seed of [1, 2, 3]) {
      const parameters = randomParameters(seed);
      const exact = exactValues(
        logits(exactOperations(), mapTensors(parameters, exactTensor), mapTensors(hostData, exactTensor)),
      );
      const [w, data] = [parameters, hostData].map((tensors) =>
        mapTensors(tensors, (t) => backend.upload(t)),
      );
      const bounded = await errorBound(backend, (ops) => logits(ops, w, data as unknown as Data));
      const got = await backend.read(bounded.result);
      for (let at = 0; at < got.length; at++) {
        const dy = new Float32Array(tokens * vocabulary);
        dy[at] = 1;
        const t = backend.upload(hostTensor([tokens, vocabulary], dy));
        const bound = await bounded.bound(t);
        backend.free(t);
        expect(Math.abs(got[at] - exact[at])).toBeLessThanOrEqual(bound);
        // A layer or a layout gone wrong moves logits by far more than this.
        expect(bound).toBeLessThan(1e-3);
      }
      bounded.free();
    }
  });

  test("frees all that it made", async () => {
    const backend = openReference();
    const w = mapTensors(randomParameters(4), (t) => backend.upload(t));
    const data = mapTensors(hostData, (t) => backend.upload(t));
    const dy = backend.zeros([tokens, vocabulary]);
    const before = backend.bytesInUse();
    const bounded = await errorBound(backend, (ops) => logits(ops, w, data));
    expect(await bounded.bound(dy)).toBe(0);
    bounded.free();
    expect(backend.bytesInUse()).toBe(before);
  });
});
