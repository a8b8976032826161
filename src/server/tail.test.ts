import { appendFileSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { Tail } from "./tail.ts";

const folder = mkdtempSync(join(tmpdir(), "lowbit-tail-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

interface Line {
  readonly step: number;
  readonly note?: string;
}
const parse = (value: unknown) =>
  typeof (value as Line | null)?.step === "number" ? (value as Line) : undefined;
const text = (...steps: number[]) => steps.map((step) => `{"step":${step}}\n`).join("");
const tailOf = (name: string) => {
  const path = join(folder, name);
  return { path, tail: new Tail(path, parse) };
};
const steps = (tail: Tail<Line>) => tail.lines.map(({ step }) => step);

test("lines come as they are written, half ones when they are whole", async () => {
  const { path, tail } = tailOf("grows");
  await tail.refresh();
  expect(tail.lines).toEqual([]);
  writeFileSync(path, `${text(1, 2)}{"st`);
  await tail.refresh();
  expect(steps(tail)).toEqual([1, 2]);
  appendFileSync(path, `ep":3}\n`);
  await tail.refresh();
  expect(steps(tail)).toEqual([1, 2, 3]);
  expect(tail.revision).toBe(0);
});

test("a file that was cut off and grew again is read anew", async () => {
  const { path, tail } = tailOf("cut");
  writeFileSync(path, text(1, 2, 3, 4));
  await tail.refresh();
  writeFileSync(path, text(1, 2));
  await tail.refresh();
  expect([steps(tail), tail.revision]).toEqual([[1, 2], 1]);
  // Between two looks both happened: the known length lies within another line.
  writeFileSync(path, `{"step":1,"note":"longer"}\n${text(2, 3, 4, 5)}`);
  await tail.refresh();
  expect([steps(tail), tail.revision]).toEqual([[1, 2, 3, 4, 5], 2]);
  rmSync(path);
  await tail.refresh();
  expect([steps(tail), tail.revision]).toEqual([[], 3]);
});

test("lines that are none are passed over, and more than a piece is read", async () => {
  const { path, tail } = tailOf("strange");
  writeFileSync(path, `null\n[1]\n{"step":1}\nnot json\n{"step":"2"}\n{"step":1}\n{"step":2}\n`);
  await tail.refresh();
  expect(steps(tail)).toEqual([1, 2]);
  const long = Array.from({ length: 30_000 }, (_, i) => `{"step":${i},"note":"${"x".repeat(80)}"}\n`);
  writeFileSync(path, long.join(""));
  await tail.refresh();
  expect(tail.lines.length).toBe(30_000);
  appendFileSync(path, "x".repeat(1 << 25));
  await tail.refresh();
  expect(tail.lines.length).toBe(30_000);
});
