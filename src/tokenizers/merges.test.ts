import { expect, test } from "vitest";
import { MinHeap } from "./heap.ts";
import { partsBetween } from "./merges.ts";

test("long texts are cut before spaces, where no merge can cross", () => {
  const text = `${"word ".repeat(2000)}${" ".repeat(9000)}end of it ${"x".repeat(9000)} y`;
  const parts = [...partsBetween(["a", " a", "  ", "bc"], " ")(text)];
  expect(parts.join("")).toBe(text);
  expect(parts.length).toBeGreaterThan(3);
  for (const part of parts.slice(1)) expect(part).toMatch(/^ +[^ ]/);
  for (const part of parts.slice(0, -1)) expect(part.endsWith(" ")).toBe(false);
});

test("a piece with a space after something else may cross: the text stays whole", () => {
  const text = "word ".repeat(2000);
  expect([...partsBetween(["a", "d w"], " ")(text)]).toEqual([text]);
});

test("the heap gives the smallest first", () => {
  const heap = new MinHeap();
  const items = [5, 3, 8, 3, 1, 9, 0, 7];
  for (const item of items) heap.push(item);
  const popped = Array.from(items, () => heap.pop());
  expect(popped).toEqual([...items].sort((a, b) => a - b));
  expect(heap.pop()).toBeUndefined();
});
