import { expect, test } from "vitest";
import { StopTexts } from "./stop.ts";

/** What is shown of pieces, and after which of them it stopped. */
function run(stops: string[], pieces: string[]) {
  const filter = new StopTexts(stops);
  let shown = "";
  for (const [n, piece] of pieces.entries()) {
    const { text, stopped } = filter.push(piece);
    shown += text;
    if (stopped) return { shown, after: n };
  }
  return { shown: shown + filter.end(), after: undefined };
}

test("nothing of a stop text is shown, however it is cut into pieces", () => {
  const text = "one two\n\nUser: three";
  for (let a = 0; a <= text.length; a++) {
    for (let b = a; b <= text.length; b++) {
      const pieces = [text.slice(0, a), text.slice(a, b), text.slice(b)];
      expect(run(["\n\nUser:", "User"], pieces).shown).toBe("one two\n\n");
      expect(run(["\n\nUser:"], pieces).shown).toBe("one two");
      expect(run(["two", " t"], pieces).shown).toBe("one");
    }
  }
});

test("what only looked like a stop text is shown as soon as it is known", () => {
  const filter = new StopTexts(["abcd"]);
  expect(filter.push("xab")).toEqual({ text: "x", stopped: false });
  expect(filter.push("c")).toEqual({ text: "", stopped: false });
  expect(filter.push("ab")).toEqual({ text: "abc", stopped: false });
  expect(filter.push("!")).toEqual({ text: "ab!", stopped: false });
});

test("a beginning that overlaps with itself is not missed", () => {
  expect(run(["aab"], ["a", "a", "a", "b", "c"])).toEqual({ shown: "a", after: 3 });
});

test("of two that come, the one that ends first counts, at once or letter by letter", () => {
  expect(run(["abcd", "bc"], ["abcd"])).toEqual({ shown: "a", after: 0 });
  expect(run(["abcd", "bc"], [..."abcd"])).toEqual({ shown: "a", after: 2 });
});

test("what is held back when the text ends otherwise is shown", () => {
  expect(run(["end."], ["the e", "nd"])).toEqual({ shown: "the end", after: undefined });
});
