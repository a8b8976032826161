import { expect, test } from "vitest";
import { decayAt, rateAt, type Schedule } from "./schedules.ts";

const cosine: Schedule = { kind: "cosine", peak: 4, warmup: 10, final: 0.1 };
const trilm: Schedule = { kind: "trilm", p1: 6, p2: 4, warmup: 10 };

test("both rise in equal steps to the formula's value at the end of warm-up", () => {
  expect(rateAt(cosine, 0, 110)).toBeCloseTo(4 / 11, 14);
  expect(rateAt(cosine, 9, 110)).toBeCloseTo((4 * 10) / 11, 14);
  expect(rateAt(cosine, 10, 110)).toBe(4);
  expect(rateAt(trilm, 4, 100)).toBeCloseTo((6 * 0.9 * 5) / 11, 14);
  expect(rateAt(trilm, 10, 100)).toBeCloseTo(6 * 0.9, 14);
});

test("the cosine is half way at the middle and ends towards its final share", () => {
  expect(rateAt(cosine, 60, 110)).toBeCloseTo(4 * 0.55, 14);
  expect(rateAt(cosine, 110, 110)).toBeCloseTo(0.4, 14);
  expect(rateAt(cosine, 35, 110)).toBeCloseTo(4 * (0.1 + 0.45 * (1 + Math.SQRT1_2)), 14);
});

test("trilm steps down from its first line to its second at the middle", () => {
  expect(rateAt(trilm, 49, 100)).toBeCloseTo(6 * 0.51, 14);
  expect(rateAt(trilm, 50, 100)).toBeCloseTo(4 * 0.5, 14);
  expect(rateAt(trilm, 99, 100)).toBeCloseTo(4 * 0.01, 14);
  // Odd length: t < T/2 holds up to (T−1)/2.
  expect(rateAt(trilm, 50, 101)).toBeCloseTo(6 * (51 / 101), 14);
  expect(rateAt(trilm, 51, 101)).toBeCloseTo(4 * (50 / 101), 14);
});

test("weight decay ends at two thirds for trilm and never for the cosine", () => {
  expect([65, 66, 67, 99].map((t) => decayAt(trilm, 0.1, t, 99))).toEqual([0.1, 0, 0, 0]);
  expect([66, 67].map((t) => decayAt(trilm, 0.1, t, 100))).toEqual([0.1, 0]);
  expect(decayAt(cosine, 0.1, 99, 100)).toBe(0.1);
});

test("a run shorter than its warm-up still has positive rates", () => {
  for (const schedule of [cosine, trilm]) {
    for (let T = 1; T < 5; T++) {
      for (let t = 0; t < T; t++) expect(rateAt(schedule, t, T)).toBeGreaterThan(0);
    }
  }
});
