import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import { compressionStudy, isCompressionStudy } from "./compression.ts";
import { answersOf, resultsOf } from "./compression-answers.ts";
import type { CompressionRun } from "./compression-run.ts";

/** A run whose windows of 10 tokens lose so much each. */
function run(
  candidate: string,
  bits: number,
  choose: readonly number[],
  report: readonly number[],
  seed = 0,
): CompressionRun {
  const split = (losses: readonly number[]) => ({
    clusters: losses.map((loss) => ({ sum: 10 * loss, count: 10 })),
    klMean: 0.1,
    sameTop1: 0.8,
  });
  return {
    candidate,
    seed,
    identity: "",
    bits,
    split: { codes: bits },
    made: { int2: 1 },
    bytes: 100,
    seconds: 2,
    choose: split(choose),
    report: split(report),
  };
}

it("means over seeds and windows, with the spread among seeds", () => {
  const [one] = resultsOf([run("a", 2, [0.1], [0.2, 0.4], 0), run("a", 2.2, [0.3], [0.4, 0.6], 1)]);
  expect(one.seeds).toBe(2);
  expect(one.bits).toBeCloseTo(2.1, 12);
  expect(one.choose.mean).toBeCloseTo(0.2, 12);
  expect(one.report.mean).toBeCloseTo(0.4, 12);
  expect(one.amongSeeds).toBeCloseTo(Math.sqrt(2 * 0.1 ** 2), 12); // 0.3 and 0.5
});

it("chooses on one split and answers on the other, among those within the bits", () => {
  const windows = (mean: number) => [mean - 0.01, mean, mean + 0.01, mean + 0.002];
  const runs = [
    run("ours x", 2.1, windows(0.05), windows(0.09)), // chosen, though y is better where it is reported
    run("ours y", 2.2, windows(0.06), windows(0.03)),
    run("ours z", 3.1, windows(0.01), windows(0.01)), // too many bits
    run("gptq", 2.1, windows(0.2), windows(0.2)),
  ];
  const ask = { ask: "?", bits: [2, 2.3] as [number, number], of: "ours*", with: "gptq" };
  const [half, third, other] = answersOf(
    [
      { ...ask, share: 0.5 },
      { ...ask, share: 0.3 },
      { ...ask, share: 1, bits: [4, 4.3] },
    ],
    runs,
  );
  expect(half.best?.candidate).toBe("ours x");
  expect(half.verdict).toBe("yes"); // 0.09 − 0.1, windows paired
  expect(half.difference?.mean).toBeCloseTo(-0.01 + 0.0005 / 2, 6);
  expect(third.verdict).toBe("no"); // 0.09 − 0.06
  expect(other.verdict).toBe("not measured");
});

it("a difference that may be none is undecided", () => {
  const runs = [run("a", 2, [0.1, 0.1], [0.1, 0.3]), run("b", 2, [0.2, 0.2], [0.3, 0.11])];
  const [answer] = answersOf([{ ask: "?", bits: [2, 2], of: "a", with: "b", share: 1 }], runs);
  expect(answer.verdict).toBe("undecided");
});

it("refuses a text in two places and options that compress does not have, before anything runs", async () => {
  const folder = await mkdtemp(join(tmpdir(), "lowbit-study-"));
  try {
    const write = async (candidates: string, report: string) => {
      await writeFile(join(folder, "a.txt"), "one");
      await writeFile(join(folder, "b.txt"), "two");
      await writeFile(join(folder, "c.txt"), "three");
      const text = `study: compression
model: bundled:float
calibration: { files: [a.txt] }
choose: { files: [b.txt] }
report: { files: [${report}] }
seeds: [0]
candidates: ${candidates}
`;
      await writeFile(join(folder, "study.yaml"), text);
      expect(await isCompressionStudy(join(folder, "study.yaml"))).toBe(true);
      return compressionStudy({
        recipe: join(folder, "study.yaml"),
        out: join(folder, "out"),
        backend: "reference",
      });
    };
    await expect(write("{ x: { method: rtn, format: int4 } }", "a.txt")).rejects.toThrow(
      "study: a.txt is the text of calibration and of report; give each its own, or its own part",
    );
    await expect(write("{ x: { method: rtn, formt: int4 } }", "c.txt")).rejects.toThrow(
      /study.yaml: x.*formt/,
    );
  } finally {
    await rm(folder, { recursive: true });
  }
});
