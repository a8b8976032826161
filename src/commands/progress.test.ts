import { expect, test } from "vitest";
import type { Progress } from "../record/record.ts";
import { duration, ProgressBar, progressLine, size } from "./progress.ts";
import { width } from "./table.ts";

/** A screen that keeps what is written, and a bar with a clock that is set by hand. */
function barOn({ isTTY, columns }: { isTTY: boolean; columns?: number }) {
  const written: string[] = [];
  let now = 0;
  const bar = new ProgressBar({ isTTY, columns, write: (text) => written.push(text) }, () => now);
  const at = (seconds: number, progress: Partial<Progress>) => {
    now = 1000 * seconds;
    bar.show({ task: "train", done: 0, total: 100, unit: "steps", ...progress });
  };
  return { bar, written, at };
}

test("a line has bar, count, rate, time left and note", () => {
  const progress = { task: "train", done: 25, total: 100, unit: "steps", note: "loss 4.2" };
  expect(progressLine(progress, 0, 10)).toBe(
    "train ██████░░░░░░░░░░░░░░░░░░ 25/100 steps  2.50 steps/s  30 s left  loss 4.2",
  );
});

test("bytes are said in kB and MB, their rate too", () => {
  const progress = { task: "download", done: 5e6, total: 20e6, unit: "bytes" };
  expect(progressLine(progress, 0, 10)).toContain("5.00 MB/20.0 MB  500 kB/s  30 s left");
});

test("nothing known yet: neither rate nor time left; all done: no time left", () => {
  expect(progressLine({ task: "a", done: 0, total: 0, unit: "files" }, 0, 0)).toBe(
    `a ${"░".repeat(24)} 0/0 files`,
  );
  expect(progressLine({ task: "a", done: 8, total: 8, unit: "files" }, 0, 2)).toBe(
    `a ${"█".repeat(24)} 8/8 files  4 files/s`,
  );
});

test("after a resume rate and time left count from the checkpoint", () => {
  const { written, at } = barOn({ isTTY: true });
  at(0, { done: 60 });
  at(10, { done: 80 });
  expect(written.at(-1)).toContain("80/100 steps  2 steps/s  10 s left");
});

test("the next task, and the same task begun anew, count from their own start", () => {
  const { written, at } = barOn({ isTTY: true });
  at(0, { task: "load", done: 0 });
  at(10, { task: "load", done: 100 });
  at(20, { task: "load", done: 0 });
  at(21, { task: "load", done: 50 });
  expect(written.at(-1)).toContain("50 steps/s  1 s left");
  at(30, { task: "evaluate", done: 10 });
  at(32, { task: "evaluate", done: 20 });
  expect(written.at(-1)).toContain("5 steps/s  16 s left");
});

test("the end is drawn once, however often it is reported", () => {
  const { written, at } = barOn({ isTTY: true });
  for (let i = 0; i < 50; i++) at(1 + i / 1000, { done: 100 });
  expect(written.length).toBe(1);
  const log = barOn({ isTTY: false });
  log.at(0, { done: 0 });
  for (let i = 0; i < 50; i++) log.at(20 + i / 1000, { done: 100 });
  expect(log.written.length).toBe(1);
});

test("a terminal: one line, redrawn ten times a second at most, and at the end; cut to the columns", () => {
  const { bar, written, at } = barOn({ isTTY: true, columns: 40 });
  at(0, { note: "模型模型模型模型模型模型模型" });
  at(0.05, { done: 1 });
  expect(written).toHaveLength(1);
  at(0.11, { done: 2 });
  at(0.12, { done: 100 });
  expect(written).toHaveLength(3);
  for (const line of written) {
    expect(line.startsWith("\r\x1b[K")).toBe(true);
    expect(line).not.toContain("\n");
    expect(width(line.slice(4))).toBeLessThan(40);
  }
  bar.clear();
  bar.clear();
  expect(written.slice(3)).toEqual(["\r\x1b[K"]);
});

test("a log file: a whole line every ten seconds, none for short work, no control characters", () => {
  const { bar, written, at } = barOn({ isTTY: false });
  for (const [seconds, done] of [
    [0, 0],
    [5, 20],
    [9, 40],
    [11, 45],
    [15, 60],
    [22, 90],
    [24, 100],
  ])
    at(seconds, { done });
  bar.clear();
  expect(written.map((line) => /(\d+)\/100/.exec(line)?.[1])).toEqual(["45", "90", "100"]);
  for (const line of written) expect(line).toMatch(/^train \P{Cc}*\n$/u);

  const short = barOn({ isTTY: false });
  short.at(0, { done: 0 });
  short.at(3, { done: 100 });
  expect(short.written).toEqual([]);
});

test.each([
  [0.2, "1 s"],
  [89.2, "90 s"],
  [91, "2 min"],
  [3600, "60 min"],
  [7500, "2 h 05 min"],
])("%d seconds are %s", (seconds, said) => expect(duration(seconds)).toBe(said));

test.each([
  [0, "0 B"],
  [999, "999 B"],
  [264_000, "264 kB"],
  [999_600, "1.00 MB"],
  [14_100_000, "14.1 MB"],
])("%d bytes are %s", (bytes, said) => expect(size(bytes)).toBe(said));
