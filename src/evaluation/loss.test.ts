import { describe, expect, test } from "vitest";
import { openReference } from "../backends/reference.ts";
import { Session } from "../generation/session.ts";
import { randomModel } from "../models/random-model.suite.ts";
import type { Progress } from "../record/record.ts";
import { generator } from "../tensor/random.ts";
import { compare, klOfLogits } from "./divergence.ts";
import { losses, tokenLosses } from "./loss.ts";
import { quantile } from "./statistics.ts";

const backend = openReference();
const running = randomModel(backend, 1);
const other = randomModel(backend, 2);
const random = generator(3);
const sequence = (n: number, first = 1) => ({
  ids: Int32Array.from({ length: n }, () => Math.floor(40 * random())),
  first,
});

/** Logits after each token but the last, from the other path: one token at a time, with a cache. */
async function allLogits(model: typeof running, ids: Int32Array): Promise<Float32Array[]> {
  const session = new Session(model);
  const rows = [];
  for (const id of ids.subarray(0, -1)) rows.push(await session.next(Int32Array.of(id)));
  session.free();
  return rows;
}

describe("losses", () => {
  test("are −ln of the softmax of the logits at the next token", async () => {
    const { ids } = sequence(20);
    const measured = await tokenLosses(running, { ids, first: 1 });
    for (const [t, logits] of (await allLogits(running, ids)).entries()) {
      const sum = logits.reduce((total, logit) => total + Math.exp(logit), 0);
      expect(measured[t]).toBeCloseTo(Math.log(sum) - logits[ids[t + 1]], 5);
    }
  });

  test("count only from `first` on; tokens before are context", async () => {
    const { ids } = sequence(20);
    const all = await tokenLosses(running, { ids, first: 1 });
    expect(await tokenLosses(running, { ids, first: 15 })).toEqual(all.slice(14));
  });

  test("of a sequence do not depend on what stands beside it", async () => {
    const many = [sequence(9), sequence(30), sequence(2), sequence(17, 5)];
    const together = await losses(running, many);
    for (const [i, one] of many.entries()) expect(await losses(running, [one])).toEqual([together[i]]);
    expect(together.map(({ count }) => count)).toEqual([8, 29, 1, 12]);
  });

  test("report progress in tokens, stop when told to, and leave no memory behind", async () => {
    const before = backend.bytesInUse;
    const events: Progress[] = [];
    const controller = new AbortController();
    const onProgress = (event: Progress) => {
      events.push(event);
      if (event.done === 12) controller.abort(new Error("enough"));
    };
    const work = losses(running, [sequence(5), sequence(9), sequence(9)], {
      onProgress,
      signal: controller.signal,
    });
    await expect(work).rejects.toThrow("enough");
    expect(events.map(({ done, total, unit }) => [done, total, unit])).toEqual([
      [4, 20, "tokens"],
      [12, 20, "tokens"],
    ]);
    expect(backend.bytesInUse).toBe(before);
  });

  test("through a cache are those of generating with it; in f32, those without", async () => {
    const { ids } = sequence(280); // more than one chunk
    const plain = await tokenLosses(running, { ids, first: 1 });
    const f32 = await tokenLosses({ ...running, cache: "f32" }, { ids, first: 1 });
    expect(f32).toEqual(plain);
    expect(await tokenLosses({ ...running, cache: "f32" }, { ids, first: 270 })).toEqual(plain.slice(269));

    const [f16, int8, int4] = await Promise.all(
      (["f16", "int8", "int4"] as const).map((cache) =>
        tokenLosses({ ...running, cache }, { ids, first: 200 }),
      ),
    );
    const off = [f16, int8, int4].map((some) => Math.hypot(...some.map((loss, t) => loss - plain[199 + t])));
    expect(off[0]).toBeGreaterThan(0);
    expect(off[1]).toBeGreaterThan(3 * off[0]);
    expect(off[2]).toBeGreaterThan(3 * off[1]);
  });

  test("an id outside the vocabulary is named", async () => {
    await expect(losses(running, [{ ids: Int32Array.of(1, 40), first: 1 }])).rejects.toThrow(
      "token 40 is outside the model's vocabulary of 40",
    );
  });
});

describe("compare", () => {
  test("of a model from itself is 0, and both agree everywhere", async () => {
    const { divergence } = await compare(running, running, [sequence(40), sequence(5)]);
    expect(divergence).toEqual({ klMean: 0, kl99: 0, sameTop1: 1 });
  });

  test("is the mean and 99th percentile over counted tokens of both models' logits", async () => {
    const sequences = [sequence(40), sequence(20, 7)];
    const before = backend.bytesInUse;
    const { divergence: measured, clusters } = await compare(running, other, sequences);
    expect(backend.bytesInUse).toBe(before);
    expect(clusters).toEqual(await losses(other, sequences));

    const kl: number[] = [];
    let same = 0;
    const top = (row: Float32Array) => row.indexOf(Math.max(...row));
    for (const { ids, first } of sequences) {
      const p = (await allLogits(running, ids)).slice(first - 1);
      const q = (await allLogits(other, ids)).slice(first - 1);
      for (const [t, row] of p.entries()) {
        kl.push(klOfLogits(row, q[t], 0, 40));
        if (top(row) === top(q[t])) same++;
      }
    }
    expect(measured.klMean).toBeCloseTo(kl.reduce((a, b) => a + b) / kl.length, 6);
    expect(measured.kl99).toBeCloseTo(quantile(Float64Array.from(kl), 0.99), 5);
    expect(measured.sameTop1).toBe(same / kl.length);
  });

  test("needs the same vocabulary", async () => {
    await expect(compare(running, randomModel(backend, 1, 41), [sequence(5)])).rejects.toThrow(
      "same vocabulary, got 40 and 41 tokens",
    );
  });
});
