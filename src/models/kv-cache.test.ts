import { describe, expect, test } from "vitest";
import { openReference } from "../backends/reference.ts";
import { generator } from "../tensor/random.ts";
import type { Tensor } from "../tensor/tensor.ts";
import { cacheBytesPerToken, cacheFormat, cacheNames, kvCache } from "./kv-cache.ts";
import { randomModel } from "./random-model.suite.ts";
import { hiddenStates } from "./run.ts";

const backend = openReference();
const running = randomModel(backend, 1);
const { config } = running.model;
const random = generator(2);
const ids = Int32Array.from({ length: 290 }, () => Math.floor(40 * random()));

async function read(states: Tensor): Promise<Float32Array> {
  const data = (await backend.read(states)) as Float32Array;
  backend.free(states);
  return data;
}

describe.each(cacheNames)("kvCache in %s", (name) => {
  test("grows with what it holds; how tokens come changes nothing, nor what was held before", async () => {
    const before = backend.bytesInUse();
    const cache = kvCache(backend, config, 295, name);
    expect(backend.bytesInUse() - before).toBe(256 * cacheBytesPerToken(config, name));
    const whole = await read(hiddenStates(running, ids, cache));
    expect(backend.bytesInUse() - before).toBe(295 * cacheBytesPerToken(config, name));
    expect(cache.length).toBe(290);

    cache.truncate(0);
    const parts: number[] = [];
    for (const [from, to] of [
      [0, 3],
      [3, 250],
      [250, 251],
      [251, 290],
    ]) {
      parts.push(...(await read(hiddenStates(running, ids.subarray(from, to), cache))));
    }
    expect(Float32Array.from(parts)).toEqual(whole);

    cache.truncate(280);
    expect(await read(hiddenStates(running, ids.subarray(280), cache))).toEqual(
      whole.slice(280 * config.dim),
    );
    expect(() => hiddenStates(running, ids.subarray(0, 6), cache)).toThrow(
      "296 tokens do not fit into a context of 295",
    );
    cache.free();
    expect(backend.bytesInUse()).toBe(before);
  });
});

test("a long context takes no memory before it is used", () => {
  const before = backend.bytesInUse();
  const cache = kvCache(backend, { ...config, context: 131072 });
  expect(backend.bytesInUse() - before).toBe(256 * cacheBytesPerToken(config, "f32"));
  cache.free();
});

test("integers have groups of 32, or whole rows where 32 does not divide them", () => {
  expect([cacheFormat("int8", 64), cacheFormat("int4", 64)]).toEqual(["int8-g32", "int4-g32"]);
  expect([cacheFormat("int8", 40), cacheFormat("int4", 8)]).toEqual(["int8", "int4"]);
  expect([cacheFormat("f32", 64), cacheFormat("f16", 40)]).toEqual(["f32", "f16"]);
});
