import { expect, test } from "vitest";
import { cut, table, width } from "./table.ts";

/** Where a column begins on each line of a table, in columns of the terminal. */
const startsOf = (text: string, cells: readonly string[]) =>
  text
    .split("\n")
    .filter((_, i) => i !== 1)
    .map((line, i) => width(line.slice(0, line.indexOf(cells[i]))));

test("columns are as wide as they need; words stand to the left, numbers to the right", () => {
  const rows = [
    ["norm", "1,024", "+0.5", ""],
    ["projection", "7", "−12.25", "99.4 %"],
  ];
  expect(table(["name", "bytes", "Δ", "same"], rows)).toBe(
    [
      "name        bytes       Δ    same",
      "──────────  ─────  ──────  ──────",
      "norm        1,024    +0.5",
      "projection      7  −12.25  99.4 %",
    ].join("\n"),
  );
});

test("a column with a word in it stands to the left, numbers and all", () => {
  expect(
    table(
      ["a", "b"],
      [
        ["12", "x"],
        ["none", "y"],
      ],
    )
      .split("\n")
      .slice(2),
  ).toEqual(["12    x", "none  y"]);
});

test("a table without rows is its header", () => {
  expect(table(["model", "bytes"], [])).toBe("model  bytes\n─────  ─────");
});

test("wide, combined and astral characters keep columns in line", () => {
  const names = ["模型", "cafe\u0301", "👩‍🚀 한국", "plain"];
  const rows = names.map((name) => [name, "end"]);
  expect(new Set(startsOf(table(["name", "what"], rows), ["what", "end", "end", "end", "end"]))).toEqual(
    new Set([9]),
  );
  expect(names.map(width)).toEqual([4, 4, 7, 5]);
});

test("characters that would steer the terminal are shown as one that does not", () => {
  expect(table(["name"], [["a\u001b[31m\nb\u202ec"]]).split("\n")[2]).toBe("a�[31m�b�c");
});

test("a line is cut where its columns end, never within a character", () => {
  expect(cut("abc", 3)).toBe("abc");
  expect(cut("abcd", 3)).toBe("abc");
  expect(cut("模型模型", 5)).toBe("模型");
  expect(cut("e\u0301e\u0301", 1)).toBe("e\u0301");
});
