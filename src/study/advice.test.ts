import { expect, test } from "vitest";
import { advise } from "./advice.ts";
import { compressed, reference } from "./candidates.suite.ts";

const choice = (...candidates: ReturnType<typeof compressed>[]) => advise([reference, ...candidates]).choice;

test("the smallest file whose upper limit is below the tolerance", () => {
  const advice = advise([
    reference,
    compressed("int8", 800, { mean: 0.001, low: 0, high: 0.002 }),
    compressed("int4", 400, { mean: 0.01, low: 0.005, high: 0.015 }),
    compressed("int2", 200, { mean: 0.08, low: 0.07, high: 0.09 }),
  ]);
  expect(advice.choice).toBe("int4");
  expect(advice.tolerance).toBe(0.02);
  expect(advice.sentence).toContain(
    "take int4 (4.00 bits per weight in its linear layers, 4.0 times smaller than float)",
  );
  expect(advice.sentence).toContain("(upper limit +0.0150)");
});

test("the mean decides nothing: a loss that may be above the tolerance does not pass", () => {
  const unsure = compressed("unsure", 300, { mean: 0.001, low: -0.03, high: 0.032 });
  const sure = compressed("sure", 400, { mean: 0.015, low: 0.011, high: 0.019 });
  expect(choice(unsure, sure)).toBe("sure");
  expect(choice(unsure)).toBeUndefined();
});

test("an upper limit that equals the tolerance does not pass", () => {
  const at = compressed("at", 300, { mean: 0.01, low: 0, high: 0.02 });
  expect(choice(at)).toBeUndefined();
  expect(advise([reference, at], 0.021).choice).toBe("at");
});

test("of files of one size the one that loses least, in whatever order they come", () => {
  const rtn = compressed("rtn", 400, { mean: 0.012, low: 0.01, high: 0.014 });
  const gptq = compressed("gptq", 400, { mean: 0.008, low: 0.001, high: 0.015 });
  expect(choice(rtn, gptq)).toBe("gptq");
  expect(choice(gptq, rtn)).toBe("gptq");
});

test("none passes: keep the reference, by name", () => {
  const { choice, sentence } = advise([
    reference,
    compressed("int2", 200, { mean: 0.5, low: 0.4, high: 0.6 }),
  ]);
  expect(choice).toBeUndefined();
  expect(sentence).toBe(
    "Advice: keep the float; no smaller file stays below a loss increase of 0.02 nats per token with 95 % certainty.",
  );
});

test("a single window never passes, nor a loss that is no number", () => {
  expect(choice(compressed("one window", 200, { mean: 0 }))).toBeUndefined();
  expect(
    choice(compressed("broken", 200, { mean: Number.NaN, low: Number.NaN, high: Number.NaN })),
  ).toBeUndefined();
  expect(choice(compressed("unmeasured", 200, undefined))).toBeUndefined();
});

test("a file as large as the reference is no advice, however good", () => {
  expect(choice(compressed("as large", 1600, { mean: -0.1, low: -0.2, high: -0.05 }))).toBeUndefined();
});
